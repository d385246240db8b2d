"""The attributes of an answered request's span.

The law: a span has only what docxy made of the request; never a header of the client's, a query or an address.
"""

from __future__ import annotations

from docxy.observe.exchange import clipped
from docxy.observe.metrics import cache_word
from docxy.web.request import Request


def end_span(request: Request) -> None:
    """The request, whose span is recorded, is answered, or its client is gone."""
    span = request.span
    target = request.target
    told: dict[str, str | int | None] = {
        "http.request.method": clipped(request.method.decode("latin-1")),
        "http.response.status_code": request.code if request.startedWriting else None,
        "http.response.body.size": request.sentLength,
        "docxy.cache": cache_word(request.cache_status) or None,
        "docxy.whole": request.is_whole,
        "docxy.digest": request.digest,
    }
    if target is not None:
        span.call(f"{told['http.request.method']} {target.kind.value}")
        told["docxy.upstream"] = target.upstream.name
        told["docxy.kind"] = target.kind.value
        told["docxy.repository"] = clipped(target.repository) or None
        told["docxy.reference"] = clipped(target.reference) or None
    span.end(told, request.error or f"status {request.code}" if request.code >= 500 else None)

"""`/v2/<name>/blobs/<digest>`.

The law: a client that has the bytes may still not read them: a condition is answered after the pull has agreed.
"""

from __future__ import annotations

from docxy.bodies import BytesBody
from docxy.names import Digest
from docxy.pull.cache_status import REDIRECTED
from docxy.web.asked import Asked
from docxy.web.conditions import asked_range, not_modified
from docxy.web.send import Sender


async def serve_blob(asked: Asked, sender: Sender) -> None:
    """A blob, a range of it, or its size."""
    target, request = asked.at.target, asked.request
    digest = Digest.parse(target.reference)
    headers = asked.headers(
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
    )
    unmodified = not_modified(request, digest)
    if asked.head or unmodified:
        # For a condition too: that the client has the bytes does not show that it may.
        size, status = await asked.pull.blob_size(target.repository, digest, await asked.caller())
        request.cache_status, request.size = str(status), size
        headers += [("Cache-Status", request.cache_status), request.server_timing()]
        if unmodified:
            request.answer(304, headers, b"")
            return
        request.start(200, headers, size)
        request.finish()
        return
    span = asked_range(request, digest)
    caller = await asked.caller()
    link = await asked.pull.elsewhere(target.repository, digest, caller) if asked.pull.redirects else None
    if link is not None:
        request.cache_status, request.size = str(REDIRECTED), link.size
        # The URL is a right to read, and for this client.
        headers = asked.headers(
            ("Docker-Content-Digest", str(digest)),
            ("Location", link.url),
            ("Cache-Control", "no-store"),
            ("Cache-Status", request.cache_status),
        )
        request.answer(307, headers, b"")
        return
    pulled = await asked.pull.blob(target.repository, digest, span, caller)
    request.cache_status = str(pulled.status)
    request.fetched = pulled.fetched
    request.size = None if pulled.span is None else pulled.span.size
    headers += [("Cache-Status", request.cache_status), request.server_timing(), *pulled.passed]
    status_code = 200
    if span is not None and pulled.span is not None:
        headers.append(("Content-Range", str(pulled.span)))
        status_code = 206
    if isinstance(pulled.body, BytesBody):
        await sender.answer(request, status_code, headers, pulled.body.data)
        return
    length = None if pulled.span is None else pulled.span.stop - pulled.span.first
    request.start(status_code, headers, length)
    await sender.send(request, pulled.body)

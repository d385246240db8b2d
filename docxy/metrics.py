"""What is counted, and who counts it.

The law: nothing that is counted names a client, a repository or a query; labels have few values,
which the operator's configuration and this module give.
"""

from __future__ import annotations

from attrs import frozen
from twisted.web.http import Request
from zope.interface import Interface, implementer


@frozen
class Answered:
    """One answer, as far as it is told from others."""

    upstream: str
    """Its name; empty where none was meant."""
    kind: str
    """`manifests`, `blobs`, `tags`, `referrers`, `_catalog`, `ping`, `token`, `health` or `other`."""
    status: int
    cache: str
    """How it was come by: `hit`, `miss`, `collapsed`, `stale`, `revalidated`, `negative`, `bypass`, `pass`; empty
    where the cache has no part in it."""


def answered(request: Request) -> Answered:
    """What a finished request was."""
    upstream, kind = getattr(request, "about", None) or ("", _KINDS.get(request.path, "other"))
    told = request.responseHeaders.getRawHeaders("Cache-Status", [""])[-1]
    return Answered(upstream, kind, request.code, cache_word(told))


_KINDS = {b"/health": "health", b"/auth/token": "token"}
_FORWARDED = {"stale": "revalidated"}


def cache_word(cache_status: str) -> str:
    """The word for a `Cache-Status` of ours (RFC 9211)."""
    _, *parts = cache_status.split("; ")
    told = dict(part.partition("=")[::2] for part in parts)
    detail = told.get("detail", "")
    if "hit" in told:
        return "stale" if detail.startswith("stale-") else detail or "hit"
    if "collapsed" in told:
        return "collapsed"
    forwarded = told.get("fwd", "")
    return _FORWARDED.get(forwarded, forwarded) or detail


class IMeter(Interface):
    """Counts."""

    def answered(what: Answered, sent: int) -> None:
        """A client was answered with so many bytes of a body."""

    def fetched(upstream: str, status: int | None) -> None:
        """An upstream answered, redirects followed; None: it did not."""

    def received(upstream: str, count: int) -> None:
        """So many bytes of a body came from an upstream."""

    def allowed(upstream: str, limit: int, remaining: int) -> None:
        """An upstream told how many pulls it allows, and how many are left."""

    def sampled(requests: int, connections: int, fills: int) -> None:
        """What this process is at."""

    def kept(used: int, budget: int) -> None:
        """Bytes in the cache, and bytes there may be."""


@implementer(IMeter)
class NoMeter:
    """Counts nothing."""

    def answered(self, what: Answered, sent: int) -> None:
        return

    def fetched(self, upstream: str, status: int | None) -> None:
        return

    def received(self, upstream: str, count: int) -> None:
        return

    def allowed(self, upstream: str, limit: int, remaining: int) -> None:
        return

    def sampled(self, requests: int, connections: int, fills: int) -> None:
        return

    def kept(self, used: int, budget: int) -> None:
        return

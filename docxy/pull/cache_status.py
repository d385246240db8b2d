"""`Cache-Status` (RFC 9211): where an answer came from.

Pure.  The law: every answer says it in these terms; what is special about one is its `detail`.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class CacheStatus:
    """One member of the header's list, ours."""

    hit: bool = False
    fwd: str | None = None
    """Why the request went upstream: `miss`, `stale`, `bypass`, `uri-miss`…"""
    stored: bool = False
    collapsed: bool = False
    """Whether it shares a fetch that another request started."""
    ttl: int | None = None
    """Seconds of freshness left; negative when stale."""
    detail: str | None = None
    """A token: why it is not the usual case."""

    def __str__(self) -> str:
        parts = ["docxy"]
        if self.hit:
            parts.append("hit")
        if self.fwd is not None:
            parts.append(f"fwd={self.fwd}")
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.ttl is not None:
            parts.append(f"ttl={self.ttl}")
        if self.detail is not None:
            parts.append(f"detail={self.detail}")
        return "; ".join(parts)


HIT = CacheStatus(hit=True)
MISS = CacheStatus(fwd="miss")
BYPASS = CacheStatus(fwd="bypass")
NEGATIVE = CacheStatus(hit=True, detail="negative")
"""Of an error: the upstream did not have this a moment ago."""
ONLY_CACHED = CacheStatus(detail="offline-token")
"""Of an error: the client holds an offline token, and the upstream cannot be asked in its name."""

RESERVED = CacheStatus(detail="reserved")
"""Of an error: what is left of the upstream's pull limit is kept for others."""
RECALLED = CacheStatus(detail="recalled")
"""Of an error: the operator ordered that this is not to be pulled."""
ARCHIVED = CacheStatus(fwd="miss", stored=True, detail="archive")
"""Of a miss whose bytes come from the archive."""
REDIRECTED = CacheStatus(hit=True, detail="redirect")
"""Of a blob that the client is to get from the archive itself."""
FROZEN = "frozen"
"""Of an answer: the operator ordered that the tag stays where it is."""


STALE = ("Warning", '110 docxy "Response is Stale"')
"""The header of an answer that may be out of date (RFC 7234 section 5.5.1)."""


def telling(status: CacheStatus) -> tuple[tuple[str, str], ...]:
    """The header that goes with an error."""
    return (("Cache-Status", str(status)),)

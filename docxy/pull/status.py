"""`Cache-Status` (RFC 9211): how an answer was come by.

Pure.
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
"""What an upstream did not have a moment ago."""
ONLY_CACHED = CacheStatus(detail="pass")
"""A client with a pass of ours, in whose name the upstream can't be asked."""


def telling(status: CacheStatus) -> tuple[tuple[str, str], ...]:
    """The header that goes with an error."""
    return (("Cache-Status", str(status)),)

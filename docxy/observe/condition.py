"""Whether this process can serve, as it saw last.

The law: it is a note of what others looked at; reading it costs nothing and touches nothing, so that
a health check cannot wait for a disk.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define


@define
class Condition:
    """What `/ready` and `/startup` tell."""

    cached: bool
    """Whether there is a cache, or should be; else it is off by choice."""
    looked: bool = False
    """Whether this process has looked at what it needs, once since its start."""
    cache_failure: str | None = None
    """Why the cache that there should be cannot be used; names its path."""
    certified: Callable[[], bool] = lambda: True
    """Whether there is a certificate, or docxy is to serve without one."""
    unreachable: bool = False
    """Whether docxy backs off from all upstreams."""

    def missing(self) -> dict[str, str]:
        """What keeps this process from serving, with a reason that anybody may read; empty: it can serve.

        Upstreams that are down are no reason where a cache can serve.
        """
        if not self.looked:
            return {"startup": "docxy has not looked at its cache yet"}
        if not self.certified():
            return {"startup": "docxy has no certificate yet; its log says why"}
        if self.cache_failure is not None:
            return {"cache": "docxy cannot use its cache; its log says why"}
        if self.unreachable and not self.cached:
            return {"upstreams": "docxy has no cache, and no registry answers; its log says why"}
        return {}

"""A fill as the status page, the metrics and the traces see it.

The law: it is a copy of one moment; nothing here changes the fill.
"""

from __future__ import annotations

from attrs import frozen
from cachetools import LRUCache

from docxy.names import Digest
from docxy.observe.exchange import FETCH, Exchange
from docxy.observe.tracing import Told

MOST_COUNTED = 1_000
"""Upstreams whose resumed fills are counted: clients may name registries without end."""


class NamedCounts(LRUCache[str, int]):
    """A counter of few names."""

    def __missing__(self, key: str) -> int:
        return 0


@frozen
class Running:
    """A fill at this moment."""

    digest: Digest
    upstream: str
    repository: str
    size: int | None
    offset: int
    """Bytes that are here."""
    joined: int
    """Clients that asked for it so far."""
    connections: int
    resumed: int
    """Times that the upstream broke off and the fill went on."""
    started: float
    """Seconds, by the clock of the fills."""
    received: int
    """Bytes that came from the upstream."""
    failovers: int
    connecting: float
    """Seconds that it waited for a free connection before its first byte."""
    slowed: float
    """Seconds that docxy's own limit of the rate took of it."""
    request_id: str
    """Of the request that began it; empty: nobody's."""

    def noted(self, now: float, over: bool) -> Exchange:
        """For the read model, where those are who join it in other processes; `now`: by the same clock."""
        return Exchange(
            at=now,
            seconds=round(max(0.0, now - self.started), 4),
            kind=FETCH,
            upstream=self.upstream,
            repository=self.repository,
            reference=str(self.digest),
            status=200,
            cache="miss",
            whole=over,
            digest=str(self.digest),
            connections=self.connections,
            resumed=self.resumed,
            failovers=self.failovers,
            waits={"connection": round(self.connecting, 4), "rate": round(self.slowed, 4)},
            request_id=self.request_id,
        )

    def told(self) -> Told:
        """What its span tells at its end."""
        return {
            "docxy.size": self.size,
            "docxy.received": self.received,
            "docxy.joined": self.joined,
            "docxy.connections": self.connections,
            "docxy.resumed": self.resumed,
        }

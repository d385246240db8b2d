"""Which of an upstream's endpoints to ask, and how long to back off from one that failed.

Pure but for the clock and the dice it is given.  The law: docxy backs off from an endpoint that
fails, for longer after each failure and not for the same time in each process; then one request
tries it, and a success ends the back-off.  If docxy backs off from all of them, it asks the one
that is due first: it never gives up an upstream for good.  Before it fails a client it asks a second
one, even if it backs off from that; but not one that asked to be left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import define

FIRST_BACKOFF = 2.0
LONGEST_BACKOFF = 60.0
"""Seconds."""
LONGEST_RETRY_AFTER = 900.0
"""Seconds that docxy waits at most, even if the endpoint asks for more."""


@define
class Endpoint:
    """One base URL of an upstream."""

    url: str
    failures: int = 0
    """In a row."""
    due: float = 0.0
    left_alone_until: float = 0.0
    """As it asked with Retry-After."""


class Endpoints:
    """All base URLs of one upstream, in the operator's order of preference."""

    def __init__(self, urls: Sequence[str], seconds: Callable[[], float], random: Random) -> None:
        self._endpoints = [Endpoint(url) for url in urls]
        self._seconds = seconds
        self._random = random
        self.failovers = 0
        """Requests that another endpoint than the preferred one answered."""

    def order(self) -> list[Endpoint]:
        """Those to try for one request, in this order; never empty."""
        now = self._seconds()
        awake = [endpoint for endpoint in self._endpoints if endpoint.due <= now]
        first_due, *others = sorted(self._endpoints, key=lambda endpoint: endpoint.due)
        order = awake or [first_due]
        spare = [each for each in others if each not in order and each.left_alone_until <= now]
        return order if len(order) > 1 else [*order, *spare[:1]]

    def spare(self, tried: Sequence[Endpoint]) -> list[Endpoint]:
        """One more for the same request, once those were tried: it may have come to the end of its rest; or none."""
        now = self._seconds()
        others = [each for each in self._endpoints if each not in tried and each.left_alone_until <= now]
        return sorted(others, key=lambda endpoint: endpoint.due)[:1]

    @property
    def due(self) -> float:
        """When docxy asks the first endpoint again, if it backs off from all of them; else 0."""
        first = min(endpoint.due for endpoint in self._endpoints)
        return first if first > self._seconds() else 0.0

    def failed(self, endpoint: Endpoint, retry_after: float | None = None) -> None:
        """It did not answer as it should; `retry_after`: seconds that it asked to wait."""
        endpoint.failures += 1
        grown = min(FIRST_BACKOFF * 2.0 ** min(endpoint.failures - 1, 10), LONGEST_BACKOFF)
        pause = grown * self._random.uniform(0.5, 1.0)
        told = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
        endpoint.left_alone_until = self._seconds() + told
        endpoint.due = self._seconds() + max(pause, told)

    def answered(self, endpoint: Endpoint) -> None:
        """It answered."""
        self.failovers += endpoint is not self._endpoints[0]
        endpoint.failures = 0
        endpoint.due = endpoint.left_alone_until = 0.0

"""Which of an upstream's endpoints to ask, and when to leave one alone.

Pure but for the clock and the dice it is given.  The law: an endpoint that fails is left
alone for a while that grows with each failure and differs from process to process; then
one request tries it, and it is back when that succeeds.  When all are left alone, the one
whose time is over first is asked: an upstream is never given up for good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import define

FIRST_REST = 2.0
LONGEST_REST = 60.0
"""Seconds."""
LONGEST_ASKED = 900.0
"""Seconds of rest that an endpoint gets at most, whatever it asks for."""


@define
class Endpoint:
    """One base URL of an upstream."""

    url: str
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0


class Endpoints:
    """All base URLs of one upstream, in the operator's order of preference."""

    def __init__(self, urls: Sequence[str], seconds: Callable[[], float], random: Random) -> None:
        self._endpoints = [Endpoint(url) for url in urls]
        self._seconds = seconds
        self._random = random

    def order(self) -> list[Endpoint]:
        """Those to try for one request, in this order; never empty."""
        now = self._seconds()
        awake = [endpoint for endpoint in self._endpoints if endpoint.rests_until <= now]
        return awake or [min(self._endpoints, key=lambda endpoint: endpoint.rests_until)]

    def failed(self, endpoint: Endpoint, rest: float | None = None) -> None:
        """It did not answer as it should; `rest`: seconds it asked to be left alone for."""
        endpoint.failures += 1
        grown = min(FIRST_REST * 2.0 ** min(endpoint.failures - 1, 10), LONGEST_REST)
        pause = grown * self._random.uniform(0.5, 1.0)
        endpoint.rests_until = self._seconds() + max(pause, min(rest or 0.0, LONGEST_ASKED))

    def answered(self, endpoint: Endpoint) -> None:
        """It answered."""
        endpoint.failures = 0
        endpoint.rests_until = 0.0

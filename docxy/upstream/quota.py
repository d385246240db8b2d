"""How much an upstream still lets us pull.

Pure but for the clock it is given.  The law: what an upstream says of its limits is obeyed for
all clients at once.  Docker Hub counts GETs of manifests and says so on every answer:

    ratelimit-limit: 100;w=21600
    ratelimit-remaining: 76;w=21600
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen

from docxy.broadcast import Broadcast
from docxy.errors import delay

SCARCE = 0.1
"""Share of the limit below which quota is saved."""
LONGEST_WAIT = 900.0
"""Seconds for which a Retry-After is obeyed at most."""
_DEFAULT_WAIT = 60.0
_FIELD = re.compile(r"\s*(\d{1,12})(?!\d)\s*(?:;.*?\bw=(\d{1,9})(?!\d))?.*")


@frozen
class PullLimit:
    """What an upstream said last."""

    limit: int
    remaining: int
    window: int
    """Seconds the limit is for; 0 when not said."""
    at: float


class Quota:
    """One upstream's limits, for one of our credentials."""

    def __init__(
        self,
        seconds: Callable[[], float],
        broadcast: Broadcast,
        topic: str,
        observed: Callable[[int, int], object],
    ) -> None:
        """`broadcast`: to other processes that use the same credential; `topic`: names it.

        `observed`: called with the limit and what remains of it, whenever the upstream says so.
        """
        self._observed = observed
        self._seconds = seconds
        self._tell = broadcast.topic(topic, self._limit)
        self._tell_left = broadcast.topic(f"{topic}: left", self._allow)
        self._allowance: PullLimit | None = None
        self._waits_until: dict[str, float] = {}
        self.spent = 0
        """Pulls that this process made, which the upstream counts."""

    def observe(self, limit: str | None, remaining: str | None) -> None:
        """Take in the headers of a response, where it has them."""
        most, left = _FIELD.fullmatch(limit or ""), _FIELD.fullmatch(remaining or "")
        if most is not None and left is not None:
            window = int(left.group(2) or most.group(2) or 0)
            self._allow(int(most.group(1)), int(left.group(1)), window)
            self._tell_left(int(most.group(1)), int(left.group(1)), window)
            self._observed(int(most.group(1)), int(left.group(1)))

    def _allow(self, limit: int, remaining: int, window: int) -> None:
        self._allowance = PullLimit(limit, remaining, window, self._seconds())

    def charge(self) -> None:
        """A pull was made that counts."""
        self.spent += 1

    def limited(self, kind: str, retry_after: str | None) -> None:
        """A 429 came for this kind of request: none is made for as long as the upstream says."""
        told = delay(retry_after)
        wait = min(_DEFAULT_WAIT if told is None else told, LONGEST_WAIT)
        self._limit(kind, wait)
        self._tell(kind, wait)

    def _limit(self, kind: str, wait: float) -> None:
        until = self._seconds() + wait
        self._waits_until[kind] = max(self._waits_until.get(kind, 0.0), until)

    def wait(self, kind: str) -> float:
        """Seconds for which this kind of request is not made, because of a 429; 0: ask."""
        return max(0.0, self._waits_until.get(kind, 0.0) - self._seconds())

    @property
    def limited_until(self) -> float:
        """When the longest wait after a 429 is over; 0 where there was none."""
        return max(self._waits_until.values(), default=0.0)

    @property
    def is_limited(self) -> bool:
        """Whether some kind of request is not made now."""
        return any(until > self._seconds() for until in self._waits_until.values())

    @property
    def left(self) -> float:
        """The share that is left of what the upstream allows in its window; 1 where it said nothing lately."""
        known = self._allowance
        if known is None or known.limit <= 0:
            return 1.0
        if known.window and self._seconds() - known.at >= known.window:
            return 1.0
        return known.remaining / known.limit

    @property
    def scarce(self) -> bool:
        """Whether little is left."""
        return self.left < SCARCE

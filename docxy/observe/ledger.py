"""Who spent the pull limit of an upstream, and when it ends.

Pure apart from the clock that it is given.  The law: *each GET of a manifest that went to an
upstream is one charge, for `WINDOW`*: that is what Docker Hub counts, over six hours.  HEAD and
blobs are free.  No more than `MOST` charges are kept; the oldest leave first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from attrs import evolve, frozen

WINDOW = 6 * 3600.0
"""Seconds: `w=21600` in Docker Hub's RateLimit headers."""
RECENT = 1800.0
"""Seconds over which the pace is measured for a forecast."""
MOST = 50_000


@frozen
class Charge:
    """One counted request."""

    at: float
    """Seconds since the epoch."""
    upstream: str
    account: str
    """docxy's own account, or the client's; empty: anonymous."""
    repository: str
    group: str
    """Of the client who asked, as `[access.groups]` has it; empty: none."""


@frozen
class Spender:
    """Who spent how much within the window."""

    account: str
    repository: str
    group: str
    count: int


class QuotaLedger:
    """Charges of all upstreams."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._charges: deque[Charge] = deque(maxlen=MOST)
        self._unwritten: Counter[Charge] = Counter()

    def charge(self, charge: Charge) -> None:
        """One more; charges come in the order of their time."""
        self._charges.append(charge)
        minute = evolve(charge, at=charge.at // 60 * 60)
        if minute in self._unwritten or len(self._unwritten) < MOST:
            self._unwritten[minute] += 1

    def unwritten(self) -> Counter[Charge]:
        """Those of which this did not tell yet, each with the time of its minute's begin, and how many are alike."""
        told, self._unwritten = self._unwritten, Counter()
        return told

    def restore(self, charges: Counter[Charge]) -> None:
        """Add what was charged before a restart."""
        self._charges = deque(sorted([*charges.elements(), *self._charges], key=lambda charge: charge.at), MOST)

    def spent(self, upstream: str) -> int:
        """Charges to an upstream within the window."""
        return sum(1 for charge in self._within(WINDOW) if charge.upstream == upstream)

    def spenders(self, upstream: str, most: int = 10) -> list[Spender]:
        """Who spent most of it."""
        counts = Counter(
            (charge.account, charge.repository, charge.group)
            for charge in self._within(WINDOW)
            if charge.upstream == upstream
        )
        return [Spender(*who, count) for who, count in counts.most_common(most)]

    def ends_at(self, upstream: str, remaining: int) -> float | None:
        """When `remaining` pulls are spent at the pace of the last half hour; None if nothing is spent."""
        now = self._seconds()
        recent = [charge.at for charge in self._within(RECENT) if charge.upstream == upstream]
        if not recent:
            return None
        # A pace is measured over at least a minute: two charges in one second are no trend.
        pace = len(recent) / max(60.0, now - recent[0])
        return now + remaining / pace

    def _within(self, seconds: float) -> list[Charge]:
        now = self._seconds()
        while self._charges and not now - WINDOW <= self._charges[0].at <= now + WINDOW:
            self._charges.popleft()
        return [charge for charge in self._charges if charge.at >= now - seconds]

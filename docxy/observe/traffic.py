"""How much came from the cache, over an hour, a day and a week.

Pure apart from the clock that it is given.  The law: memory is fixed: a bucket a minute for an
hour, and a bucket an hour for a week; a bucket is emptied when its time comes round again.  What was counted since
it was last written down is kept apart, for two hours at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping

from attrs import define, fields, frozen
from cachetools import LRUCache

from docxy.observe.exchange import Exchange

MINUTE, _HOUR = 60.0, 3600.0
HOURS = 7 * 24
"""For which sums are told."""
_UNWRITTEN = 120
"""Minutes."""
_HITS = ("hit", "stale", "revalidated")


@frozen
class Share:
    """What one period came to."""

    answers: int = 0
    hits: int = 0
    """Answers for which no upstream sent a body."""
    joined: int = 0
    """Answers of what was fetched for them and for others at once: a fetch of another client that was under way, or
    docxy's own, begun ahead for the same pull."""
    sent: int = 0
    """Bytes to clients."""
    saved: int = 0
    """Those of the hits."""
    received: int = 0
    """Bytes from upstreams."""

    @property
    def hit_rate(self) -> float | None:
        """From 0 to 1; None if nobody asked."""
        return self.hits / self.answers if self.answers else None

    @property
    def join_rate(self) -> float | None:
        """The same of those that joined."""
        return self.joined / self.answers if self.answers else None


_NAMES = tuple(attribute.name for attribute in fields(Share))


@define
class _Bucket:
    index: int = -1
    answers: int = 0
    hits: int = 0
    joined: int = 0
    sent: int = 0
    saved: int = 0
    received: int = 0


class _Ring:
    def __init__(self, width: float, count: int) -> None:
        self._width = width
        self._buckets = [_Bucket() for _ in range(count)]

    def bucket(self, now: float) -> _Bucket:
        index = int(now // self._width)
        bucket = self._buckets[index % len(self._buckets)]
        if bucket.index != index:
            bucket = self._buckets[index % len(self._buckets)] = _Bucket(index)
        return bucket

    def at(self, seconds: float, now: float) -> _Bucket | None:
        """The bucket of another time than now; None: it is out of the ring's."""
        newest, index = int(now // self._width), int(seconds // self._width)
        return self.bucket(seconds) if newest - len(self._buckets) < index <= newest else None

    def since(self, now: float, count: int) -> list[_Bucket]:
        newest = int(now // self._width)
        return [bucket for bucket in self._buckets if newest - count < bucket.index <= newest]


class Traffic:
    """Counts answers."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds`: since the epoch."""
        self._seconds = seconds
        self._minutes = _Ring(MINUTE, 60)
        self._hours = _Ring(_HOUR, HOURS)
        self._unwritten: MutableMapping[int, _Bucket] = LRUCache(_UNWRITTEN)

    def _now(self) -> list[_Bucket]:
        """What is to be counted up."""
        now = self._seconds()
        minute = int(now // MINUTE)
        unwritten = self._unwritten.setdefault(minute, _Bucket(minute))
        return [self._minutes.bucket(now), self._hours.bucket(now), unwritten]

    def unwritten(self) -> dict[int, Share]:
        """What each minute since the epoch came to, as far as this did not tell of it yet."""
        told = {minute: _total([bucket]) for minute, bucket in self._unwritten.items()}
        self._unwritten.clear()
        return told

    def restore(self, minutes: Mapping[int, Share]) -> None:
        """Add what was counted before a restart."""
        now = self._seconds()
        for minute, share in minutes.items():
            for ring in (self._minutes, self._hours):
                bucket = ring.at(minute * MINUTE, now)
                if bucket is not None:
                    for name in _NAMES:
                        setattr(bucket, name, getattr(bucket, name) + getattr(share, name))

    def add(self, exchange: Exchange, ahead: bool) -> None:
        """Count one answer that had content; errors are not the cache's.

        `ahead`: whether docxy fetched it for the same pull, before its client asked.
        """
        if exchange.status >= 400 or exchange.head:
            return
        hit = exchange.cache in _HITS and not ahead
        for bucket in self._now():
            bucket.answers += 1
            bucket.hits += hit
            bucket.joined += ahead or exchange.cache == "collapsed"
            bucket.sent += exchange.sent
            bucket.saved += exchange.sent if hit else 0

    def add_hits(self, count: int, sent: int) -> None:
        """Count answers from the cache, and their bytes."""
        for bucket in self._now():
            bucket.answers += count
            bucket.hits += count
            bucket.sent += sent
            bucket.saved += sent

    def received(self, count: int) -> None:
        """Count bytes that came from upstreams."""
        for bucket in self._now() if count else ():
            bucket.received += count

    def hour(self) -> Share:
        return _total(self._minutes.since(self._seconds(), 60))

    def day(self) -> Share:
        return _total(self._hours.since(self._seconds(), 24))

    def week(self) -> Share:
        return _total(self._hours.since(self._seconds(), HOURS))


def _total(buckets: list[_Bucket]) -> Share:
    return Share(**{name: sum(getattr(bucket, name) for bucket in buckets) for name in _NAMES})

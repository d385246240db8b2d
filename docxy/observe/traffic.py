"""How much came from the cache, over an hour, a day and a week.

Pure apart from the clock that it is given.  The law: memory is fixed: a bucket a minute for an
hour, and a bucket an hour for a week; a bucket is emptied when its time comes round again.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, fields, frozen

from docxy.observe.exchange import Exchange

_MINUTE, _HOUR = 60.0, 3600.0
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

    def since(self, now: float, count: int) -> list[_Bucket]:
        newest = int(now // self._width)
        return [bucket for bucket in self._buckets if newest - count < bucket.index <= newest]


class Traffic:
    """Counts answers."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds`: since the epoch."""
        self._seconds = seconds
        self._minutes = _Ring(_MINUTE, 60)
        self._hours = _Ring(_HOUR, 7 * 24)

    def add(self, exchange: Exchange, ahead: bool) -> None:
        """Count one answer that had content; errors are not the cache's.

        `ahead`: whether docxy fetched it for the same pull, before its client asked.
        """
        if exchange.status >= 400 or exchange.head:
            return
        hit = exchange.cache in _HITS and not ahead
        now = self._seconds()
        for ring in (self._minutes, self._hours):
            bucket = ring.bucket(now)
            bucket.answers += 1
            bucket.hits += hit
            bucket.joined += ahead or exchange.cache == "collapsed"
            bucket.sent += exchange.sent
            bucket.saved += exchange.sent if hit else 0

    def add_hits(self, count: int, sent: int) -> None:
        """Count answers from the cache, and their bytes."""
        now = self._seconds()
        for ring in (self._minutes, self._hours):
            bucket = ring.bucket(now)
            bucket.answers += count
            bucket.hits += count
            bucket.sent += sent
            bucket.saved += sent

    def received(self, count: int) -> None:
        """Count bytes that came from upstreams."""
        now = self._seconds()
        for ring in (self._minutes, self._hours):
            ring.bucket(now).received += count

    def hour(self) -> Share:
        return _total(self._minutes.since(self._seconds(), 60))

    def day(self) -> Share:
        return _total(self._hours.since(self._seconds(), 24))

    def week(self) -> Share:
        return _total(self._hours.since(self._seconds(), 7 * 24))


def _total(buckets: list[_Bucket]) -> Share:
    names = [attribute.name for attribute in fields(Share)]
    return Share(**{name: sum(getattr(bucket, name) for bucket in buckets) for name in names})

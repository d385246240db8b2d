"""A large blob over several connections at once.

The law: *the bytes come out in order, as from one.*  Parts that are fetched before their turn wait in
unnamed files beside the cache, a few of them at most; when a part fails, the bytes
before it come first, and then the error that one connection would have raised there.

Connections are added one at a time, as long as each makes the whole faster: an upstream that
limits a connection gets more of them, one that limits the client does not.
"""

from __future__ import annotations

from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.bodies import BytesBody, IBody
from docxy.errors import UpstreamError
from docxy.pull.blobs.ahead import Ahead, Ask, Demands, Part, Scratch, part_error
from docxy.pull.blobs.extra import ExtraConnections
from docxy.ranges import Span
from docxy.storage.interfaces import StorageError

LARGE = 16 * 1024 * 1024
"""Bytes that must be left of a blob for it to be worth while."""
STEP = 0.4
"""Seconds over which a rate is measured."""
WORTH = 2.0
"""Seconds that the rest must still take for another connection to be worth while."""
GAIN = 0.4
"""Share of an equal share that another connection must add for a further one to be tried."""
SMALLEST, LARGEST = 2 * 1024 * 1024, 32 * 1024 * 1024
"""Bytes of a part."""
PART_SECONDS = 1.5
"""Seconds that a part is to take: asking for it costs some round trips."""
MOST_EXTRA = 2
"""Times as many as for one blob may be added for all blobs of an upstream together."""


@define
class Scaling:
    """Whether another connection is worth while.  Pure.

    Times are in seconds, `received` counts the bytes of all connections.
    """

    connections: int = 1
    settled: bool = False
    """Whether the last one did not help."""
    _since: float | None = None
    """Since when the newest connection delivers."""
    _base: int = 0
    _before: float = 0.0
    """Bytes a second before there was the newest connection."""

    def delivers(self, now: float, received: int) -> None:
        """The newest connection delivers, if it did not before."""
        if self._since is None:
            self._since, self._base = now, received

    def rate(self, now: float, received: int) -> float:
        """Bytes a second since the newest connection delivers; before it does, without it."""
        if self._since is None:
            return self._before
        return (received - self._base) / max(now - self._since, 1e-3)

    def each(self, now: float, received: int) -> float:
        """Bytes a second of one connection."""
        return self.rate(now, received) / (
            self.connections if self._since is not None else max(1, self.connections - 1)
        )

    def wants(self, now: float, received: int, left: int) -> bool:
        """Whether to add a connection now; `left`: bytes that nobody fetches yet."""
        if self._since is None or self.settled or now - self._since < STEP:
            return False
        rate = self.rate(now, received)
        if self.connections > 1 and rate < self._before * (1 + GAIN / (self.connections - 1)):
            self.settled = True
            return False
        return rate > 0 and left > WORTH * rate

    def added(self, now: float, received: int) -> None:
        """There is one more, which does not deliver yet."""
        self._before = self.rate(now, received)
        self.connections += 1
        self._since = None


@implementer(IBody)
class ParallelBody:
    """The rest of a blob: from its first connection, from others that were added, and from what clients waited for."""

    _log = Logger()

    def __init__(
        self, body: IBody | None, span: Span, ahead: Ahead, extra: ExtraConnections, clock: IReactorTime, grows: bool
    ) -> None:
        """`body`: gives the bytes of `span`; None: nothing does, a part begins there.

        What is behind them up to the blob's end is fetched in parts.  `grows`: connections may be added.
        """
        self._body = BytesBody(b"") if body is None else body
        self._ahead = ahead
        self._size = span.size
        ahead.position = span.first
        ahead.limit = ahead.sent_to = span.first if body is None else span.stop
        ahead.limit = min(ahead.limit, ahead.next(span.first))
        self._undivided = True
        """Whether the first connection still brings all that it can."""
        self._extra = extra
        self._clock = clock
        self._scaling = Scaling(settled=not grows)
        self._scaling.delivers(clock.seconds(), 0)
        self._received = 0
        self._taken = 0
        self._busy = self._ending = 0
        """Connections that fetch parts, and those of them that come back to the pool in this turn."""
        self._wanted: Deferred[Any] | None = None
        """Waits for a free connection to add."""
        self._failed = self._closed = False
        self._soon: IDelayedCall | None = None

    @property
    def connections(self) -> int:
        """Over which it comes now."""
        return self._scaling.connections

    @property
    def _position(self) -> int:
        return self._ahead.position

    async def read(self) -> bytes:
        self._consider()
        while self._position < self._size:
            if self._position < self._ahead.limit:
                return await self._read_first()
            part = self._ahead.at(self._position) or await self._begun()
            data = await self._read_part(part)
            if data:
                return data
        return b""

    async def _read_first(self) -> bytes:
        data = await self._body.read()
        data = data[: self._ahead.limit - self._position]
        self._received += len(data)
        self._ahead.position += len(data)
        if self._position == self._ahead.limit < self._size:
            # Its connection would go on to the end; the rest is fetched already, or by others.
            self._body.close()
        return data

    async def _begun(self) -> Part:
        """A part that begins where we are, and that nobody fetched yet."""
        await deferLater(self._clock, 0)  # the connection of the one before may be back, and have begun it
        part = self._ahead.at(self._position)
        if part is None and not self._failed:
            self._begin()
            part = self._ahead.at(self._position)
        if part is None:
            raise UpstreamError("a part failed before this one")
        return part

    async def _read_part(self, part: Part) -> bytes:
        """Bytes at our position; none where the part ended before it."""
        try:
            data = await part.read(self._position)
        except StorageError as error:
            raise UpstreamError(f"what was fetched ahead cannot be read: {error}") from error
        self._ahead.position += len(data)
        if self._position >= part.stop:
            self._ahead.drop(part)
        return data

    def _consider(self) -> None:
        """Fetch another part: with a connection that is free, or with one more if that is worth while."""
        if self._closed or self._failed:
            return
        if self._busy + (self._position < self._ahead.limit) < self._scaling.connections:
            # Not too far ahead of the reader.
            waiting = sum(not part.demanded for part in self._ahead.parts)
            if waiting <= self._scaling.connections and self._left():
                self._begin()
        elif self._wanted is None and self._extra.may and self._is_worth_while():
            wanted = self._wanted = self._extra.take()
            wanted.addCallbacks(self._added, lambda _: None)

    def _left(self) -> int:
        """Bytes that nobody fetches; while there is one connection, those that are still to come."""
        return self._ahead.unasked(self._position if self._undivided else self._ahead.limit)

    def _is_worth_while(self) -> bool:
        left = self._left()
        return (
            self._scaling.connections < self._extra.connections
            and left >= 2 * SMALLEST
            and self._scaling.wants(self._clock.seconds(), self._received, left)
        )

    def _added(self, _: object) -> None:
        """One more connection is free."""
        self._wanted = None
        if self._failed or not self._is_worth_while():
            self._extra.give_back()
            return
        self._taken += 1
        self._scaling.added(self._clock.seconds(), self._received)
        self._begin()

    def _begin(self) -> None:
        """Fetch the next bytes that nobody fetches."""
        ahead = self._ahead
        if self._undivided:
            self._undivided = False
            if self._position < ahead.limit:
                # The first connection keeps as many as a part has.
                ahead.limit = self._position + self._part_size(self._position, ahead.limit)
        gap = ahead.gap()
        if gap is None:
            return
        first, stop = gap
        part = Part(first, first + self._part_size(first, stop))
        ahead.add(part)
        self._busy += 1
        part.running = Deferred.fromCoroutine(ahead.fetch(part, self._came))
        part.running.addBoth(self._ended, part)

    def _part_size(self, first: int, stop: int) -> int:
        """Bytes for a part of a gap: few enough that the other parts do not wait for it in the end."""
        left = stop - first
        wanted = self._scaling.each(self._clock.seconds(), self._received) * PART_SECONDS
        size = int(max(SMALLEST, min(wanted, LARGEST, (self._size - first) / self._scaling.connections)))
        return left if left < size + SMALLEST else size

    def _came(self, count: int) -> None:
        self._scaling.delivers(self._clock.seconds(), self._received)
        self._received += count

    def _ended(self, outcome: object, part: Part) -> None:
        if isinstance(outcome, Failure) and not (self._closed or part.is_whole):
            # One connection fetches the rest: the reader comes to the error and goes on from there.
            self._failed = True
            part.error = part_error(outcome)
            self._log.info("bytes {first} to {stop}: {error}", first=part.first, stop=part.stop, error=outcome.value)
        self._ending += 1
        if self._soon is None and not self._closed:
            self._soon = self._clock.callLater(0, self._go_on)
        part.tell()

    def _go_on(self) -> None:
        self._soon = None
        self._busy -= self._ending
        self._ending = 0
        self._consider()

    def close(self) -> None:
        """What clients waited for stays ahead, for the next body."""
        if self._closed:
            return
        self._closed = True
        if self._wanted is not None:
            self._wanted.cancel()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._body.close()
        self._ahead.limit = self._ahead.sent_to = self._position
        for part in [part for part in self._ahead.parts if not part.demanded]:
            self._ahead.drop(part)
        for _ in range(self._taken):
            self._extra.give_back()


@frozen
class Parallel:
    """Fetches blobs of one upstream over several connections: large ones, and what clients wait for."""

    extra: ExtraConnections
    scratch: Scratch
    clock: IReactorTime

    def ahead(self, size: int, ask: Ask, demands: Demands) -> Ahead:
        """What is fetched ahead for one fill of `size` bytes."""
        return Ahead(size, ask, self.scratch, self.extra, demands)

    def body(self, body: IBody | None, span: Span, ahead: Ahead, grows: bool) -> ParallelBody:
        """The bytes from a span's first to the blob's end, over more connections if that is worth while.

        `body`: gives those of the span, see `ParallelBody`.
        """
        return ParallelBody(body, span, ahead, self.extra, self.clock, grows and span.size - span.first >= LARGE)

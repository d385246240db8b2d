"""A large blob over several connections at once.

The law: *the bytes come out in order, as from one.*  Parts that are fetched before their turn wait in
unnamed files beside the cache, a few of them at most; whatever goes wrong with a part, the bytes
before it come first, and then the error that one connection would have raised there.

Connections are added one at a time, as long as each makes the whole faster: an upstream that
limits a connection gets more of them, one that limits the client does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.errors import RegistryError, UpstreamError
from docxy.ranges import Range, Span
from docxy.shared import ISlots
from docxy.storage.interfaces import IScratch, StorageError
from docxy.upstream.body import IBody
from docxy.upstream.remote import BlobResponse

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
PIECE = 1024 * 1024
MOST_LANES = 2
"""Times as many as for one blob may be added for all blobs of an upstream together."""

Ask = Callable[[Range], Awaitable[BlobResponse]]
"""Asks the upstream for a part."""
Scratch = Callable[[], Awaitable[IScratch]]


@define
class Pace:
    """Whether another connection is worth while.  Pure.

    Times are in seconds, `received` counts the bytes of all connections.
    """

    lanes: int = 1
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
        return self.rate(now, received) / (self.lanes if self._since is not None else max(1, self.lanes - 1))

    def wants(self, now: float, received: int, left: int) -> bool:
        """Whether to add a connection now; `left`: bytes that nobody fetches yet."""
        if self._since is None or self.settled or now - self._since < STEP:
            return False
        rate = self.rate(now, received)
        if self.lanes > 1 and rate < self._before * (1 + GAIN / (self.lanes - 1)):
            self.settled = True
            return False
        return rate > 0 and left > WORTH * rate

    def added(self, now: float, received: int) -> None:
        """There is one more, which does not deliver yet."""
        self._before = self.rate(now, received)
        self.lanes += 1
        self._since = None


@define(eq=False)
class Lanes:
    """The connections that blobs of one upstream may take besides the first of each."""

    connections: int
    """For one blob, with its first."""
    _slots: ISlots
    """How many there are for all blobs together, of all processes."""
    _upstream: str
    _calm: Callable[[], bool] | None = None
    """Whether the upstream can be asked for more now."""
    refused: bool = False
    """Whether it was seen not to send parts."""

    @property
    def may(self) -> bool:
        """Whether to try for one more."""
        return not self.refused and (self._calm is None or self._calm())

    def take(self) -> Deferred[Any]:
        """Fires when there is one to be had, which must be given back; may be cancelled until then."""
        return self._slots.acquire(self._key)

    def give_back(self) -> None:
        self._slots.release(self._key)

    @property
    def _key(self) -> str:
        return f"{self._upstream} parts"


@define(eq=False)
class Part:
    """Bytes that are fetched before their turn."""

    first: int
    stop: int
    scratch: IScratch | None = None
    got: int = 0
    error: Exception | None = None
    running: Deferred[None] | None = None
    _waiting: Deferred[None] | None = field(default=None, init=False)

    def tell(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def read(self, position: int) -> bytes:
        """Bytes at a position, as soon as there are some; raises what ended the part early."""
        while self.first + self.got <= position:
            if self.error is not None:
                raise self.error
            self._waiting = Deferred(lambda _: self._forget())
            await self._waiting
        assert self.scratch is not None
        return await self.scratch.read(position - self.first, min(PIECE, self.first + self.got - position))

    def _forget(self) -> None:
        """Whoever was waiting is not any more."""
        self._waiting = None

    @property
    def is_whole(self) -> bool:
        return self.got == self.stop - self.first

    def close(self) -> None:
        """Want no more of it; what is whole ends by itself, so that its connection can be used again."""
        if self.running is not None and not self.is_whole:
            self.running.cancel()
        if self.scratch is not None:
            self.scratch.close()


@implementer(IBody)
class WideBody:
    """The rest of a blob: from its first connection, and from others that were added."""

    _log = Logger()

    def __init__(self, body: IBody, span: Span, ask: Ask, scratch: Scratch, lanes: Lanes, clock: IReactorTime) -> None:
        """`body`: gives the bytes of `span`, which goes to the blob's end."""
        self._body = body
        self._position = span.first
        self._size = span.size
        self._limit = span.size
        """Where the first connection's bytes end."""
        self._unasked = span.size
        """Where the bytes begin that nobody fetches, once there are parts."""
        self._parts: deque[Part] = deque()
        """In their order; the first is the next to be read."""
        self._ask = ask
        self._scratch = scratch
        self._lanes = lanes
        self._clock = clock
        self._pace = Pace()
        self._pace.delivers(clock.seconds(), 0)
        self._received = 0
        self._taken = 0
        self._busy = self._ending = 0
        """Connections that fetch parts, and those of them that come back to the pool in this turn."""
        self._wanted: Deferred[Any] | None = None
        """The connection that is to be added, until there is one to be had."""
        self._failed = self._closed = False
        self._soon: IDelayedCall | None = None

    async def read(self) -> bytes:
        self._consider()
        return await (self._read_first() if self._position < self._limit else self._read_part())

    async def _read_first(self) -> bytes:
        data = (await self._body.read())[: self._limit - self._position]
        self._received += len(data)
        self._position += len(data)
        if self._position == self._limit < self._size:
            # Its connection would go on to the end; the rest is fetched already, or by others.
            self._body.close()
        return data

    async def _read_part(self) -> bytes:
        if self._position == self._size:
            return b""
        if not self._parts:
            await deferLater(self._clock, 0)
            if not self._parts:
                self._begin()
        part = self._parts[0]
        try:
            data = await part.read(self._position)
        except StorageError as error:
            raise UpstreamError(f"what was fetched ahead cannot be read: {error}") from error
        self._position += len(data)
        if self._position == part.stop:
            self._parts.popleft()
            part.close()
        return data

    def _consider(self) -> None:
        """Fetch another part: with a connection that is free, or with one more if that is worth while."""
        if self._closed or self._failed:
            return
        if self._busy + (self._position < self._limit) < self._pace.lanes:
            # Not too far ahead of whoever reads.
            if len(self._parts) <= self._pace.lanes and self._left():
                self._begin()
        elif self._wanted is None and self._lanes.may and self._is_worth_while():
            wanted = self._wanted = self._lanes.take()
            wanted.addCallbacks(self._added, lambda _: None)

    def _left(self) -> int:
        """Bytes that nobody fetches; while there is one connection, those that are still to come."""
        return self._size - (self._position if self._limit == self._size else self._unasked)

    def _is_worth_while(self) -> bool:
        left = self._left()
        return (
            self._pace.lanes < self._lanes.connections
            and left >= 2 * SMALLEST
            and self._pace.wants(self._clock.seconds(), self._received, left)
        )

    def _added(self, _: object) -> None:
        """There is one more connection to be had."""
        self._wanted = None
        if self._failed or not self._is_worth_while():
            self._lanes.give_back()
            return
        self._taken += 1
        self._pace.added(self._clock.seconds(), self._received)
        self._begin()

    def _begin(self) -> None:
        """Fetch the next bytes that nobody fetches."""
        if self._limit == self._size:
            # The first connection keeps as many as a part has.
            self._limit = self._unasked = self._position + self._part_size(self._position)
        part = Part(self._unasked, self._unasked + self._part_size(self._unasked))
        self._unasked = part.stop
        self._parts.append(part)
        self._busy += 1
        part.running = Deferred.fromCoroutine(self._fetch(part))
        part.running.addBoth(self._ended, part)

    def _part_size(self, first: int) -> int:
        """Bytes for a part that begins here: none of them so many that the others have to wait for it in the end."""
        left = self._size - first
        wanted = self._pace.each(self._clock.seconds(), self._received) * PART_SECONDS
        size = int(max(SMALLEST, min(wanted, LARGEST, left / self._pace.lanes)))
        return left if left < size + SMALLEST else size

    async def _fetch(self, part: Part) -> None:
        part.scratch = await self._scratch()
        answer = await self._ask(Range(part.first, part.stop - 1))
        body = answer.response.body()
        try:
            if answer.span != Span(part.first, part.stop, self._size):
                self._lanes.refused = True
                raise UpstreamError(f"{answer.response.source} does not send parts of blobs")
            while data := await body.read():
                await part.scratch.append(data)
                self._pace.delivers(self._clock.seconds(), self._received)
                self._received += len(data)
                part.got += len(data)
                part.tell()
            if not part.is_whole:
                raise UpstreamError(f"{answer.response.source} ended a part early")
        finally:
            body.close()

    def _ended(self, outcome: object, part: Part) -> None:
        if isinstance(outcome, Failure) and not (self._closed or part.is_whole):
            # What is left is for one connection: whoever reads comes to the error and goes on from there.
            self._failed = True
            error = outcome.value
            part.error = error if isinstance(error, RegistryError) else UpstreamError(f"a part failed: {error}")
            self._log.info("bytes {first} to {stop}: {error}", first=part.first, stop=part.stop, error=error)
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
        if self._closed:
            return
        self._closed = True
        if self._wanted is not None:
            self._wanted.cancel()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._body.close()
        while self._parts:
            self._parts.popleft().close()
        for _ in range(self._taken):
            self._lanes.give_back()


@frozen
class Widener:
    """Makes bodies of one upstream wide."""

    lanes: Lanes
    scratch: Scratch
    clock: IReactorTime

    def widen(self, body: IBody, span: Span, ask: Ask) -> IBody:
        """The same bytes, over more connections if that is worth while."""
        if span.stop != span.size or span.stop - span.first < LARGE:
            return body
        return WideBody(body, span, ask, self.scratch, self.lanes, self.clock)

"""Bytes of a fill that are fetched before their turn: by connections besides the first, and for clients that wait.

The law: *each byte is asked for once, and who waits for it decides when.*  The blob lies before a fill as a
row of parts and gaps.  Where a client waits for a byte in a gap, a part of its own begins there at once; its bytes
go to that client as they come, and into the blob when the fill comes to them.  A connection that would have
brought them later ends where that part begins.

What goes wrong with such a part is no failure of the fill: what came of it stays, the rest is a gap again.  How
many there may be is bounded, for a blob and for the process; who gets none follows the fill, as everybody does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.errors import RegistryError, UpstreamError
from docxy.pull.blobs.extra import ExtraConnections
from docxy.ranges import Range, Span
from docxy.storage.interfaces import IScratch
from docxy.storage.view import Changes
from docxy.upstream.blob_response import BlobResponse

NEAR = 1 << 20
"""Bytes that a fill brings as soon as another request would."""
LEAST, MOST = 512 << 10, 8 << 20
"""Bytes of a part that a client waits for: who reads here and there reads the next bytes soon."""
LANES, LANES_IN_ALL = 4, 16
"""Parts that clients wait for and that are fetched at the same time, of one blob and of all."""
HELD, HELD_IN_ALL = 64, 256
"""Such parts that wait for their fills, of one blob and of all: each is an open file."""
EVER = 256
"""Such parts in the life of one fill."""
FAILURES = 8
"""Such parts that may fail in the life of one fill until no other is begun."""
CUT, CUT_SHARE = 1 << 20, 50
"""A cut connection may lose one byte in this many of a blob."""
STRETCH = 8 << 20
"""Bytes that a fill asks for at once where clients read here and there: the next part need not cut it."""
PIECE = 1 << 20

Ask = Callable[[Range], Awaitable[BlobResponse]]
"""Asks the upstream for a part."""
Scratch = Callable[[], Awaitable[IScratch]]


@define
class Demands:
    """Parts that clients wait for, of all blobs of this process."""

    running: int = 0
    held: int = 0

    @property
    def may(self) -> bool:
        return self.running < LANES_IN_ALL and self.held < HELD_IN_ALL


@define(eq=False)
class Part:
    """Bytes that are fetched before their turn."""

    first: int
    stop: int
    scratch: IScratch | None = None
    got: int = 0
    error: Exception | None = None
    running: Deferred[None] | None = None
    demanded: bool = False
    """Whether it was begun because a client waits for it."""
    closed: bool = False
    _changes: Changes = field(factory=Changes, init=False)

    @property
    def end(self) -> int:
        """Where the bytes end that are here."""
        return min(self.first + self.got, self.stop)

    @property
    def is_whole(self) -> bool:
        return self.end >= self.stop

    def tell(self) -> None:
        self._changes.fire()

    def changed(self) -> Deferred[None]:
        """Fires when there is more of it, or it has ended.  May be cancelled."""
        return self._changes.wait()

    async def read(self, position: int) -> bytes:
        """Bytes at a position, as soon as there are some; none where the part now ends there.

        Raises what ended the part early, StorageError.
        """
        while self.end <= position:
            if self.error is not None:
                raise self.error
            if position >= self.stop or self.closed:
                return b""
            await self.changed()
        return await self.here(position, PIECE)

    async def here(self, position: int, most: int) -> bytes:
        """Bytes at a position that are here.  Raises StorageError."""
        assert self.scratch is not None
        return await self.scratch.read(position - self.first, min(most, self.end - position))

    def close(self) -> None:
        """Want no more of it; what is whole ends by itself, so that its connection can be used again."""
        self.closed = True
        if self.running is not None and not self.is_whole:
            self.running.cancel()
        if self.scratch is not None:
            self.scratch.close()
        self.tell()


class Ahead:
    """What lies before one fill."""

    _log = Logger()

    def __init__(self, size: int, ask: Ask, scratch: Scratch, extra: ExtraConnections, demands: Demands) -> None:
        """`size`: of the blob in bytes; `extra`: knows whether the upstream may be asked for parts."""
        self.size = size
        self.position = 0
        """Where the fill is."""
        self.limit = 0
        """Where the bytes end that the fill's first connection brings."""
        self.sent_to = 0
        """Where they would end if it were not cut."""
        self.parts: list[Part] = []
        """In their order; none has a byte of another, nor one before `limit`."""
        self._ask = ask
        self._scratch = scratch
        self._extra = extra
        self._demands = demands
        self._changes = Changes()
        self._running = self._ever = self._failures = self._cuts = 0
        self._off = False

    # -- what there is

    def at(self, position: int) -> Part | None:
        """The part that has this byte, or will have it."""
        return next((part for part in self.parts if part.first <= position < part.stop), None)

    def next(self, position: int) -> int:
        """Where the next part begins from here; the blob's end without one."""
        return next((part.first for part in self.parts if part.first >= position), self.size)

    def stretch(self, position: int) -> int:
        """Up to where to ask for what is missing from here on: the blob's end, unless clients read here and there."""
        return min(self.next(position), position + STRETCH) if self._ever else self.size

    def gap(self) -> tuple[int, int] | None:
        """The first bytes that nobody fetches: where they begin and end; None when there are none."""
        first = max(self.limit, self.position)
        while (part := self.at(first)) is not None:
            first = part.stop
        return None if first >= self.size else (first, self.next(first))

    def unasked(self, position: int) -> int:
        """Bytes from here on that no part has."""
        return self.size - position - sum(max(0, part.stop - max(part.first, position)) for part in self.parts)

    def changed(self) -> Deferred[None]:
        """Fires when another part may be begun.  May be cancelled."""
        return self._changes.wait()

    # -- what clients wait for

    def want(self, first: int, stop: int) -> Part | None:
        """The part that brings the byte at `first`, for a client that reads up to `stop`.

        It begins now if there is none; None: the fill will be there soon, or there may be no more parts.
        """
        part = self.at(first)
        if part is not None:
            if part.demanded or first < part.end + NEAR or not (self._may_begin and self._may_cut):
                return part
            self._cuts += 1
            part.stop = first
        elif first < self.position + NEAR or not self._may_begin:
            return None
        elif first < self.limit:
            if self.limit == self.sent_to:
                if not self._may_cut:
                    return None
                self._cuts += 1
            self.limit = first
        wanted = Part(first, min(first + max(LEAST, min(stop - first, MOST)), self.next(first)), demanded=True)
        self._begin(wanted, None)
        return wanted

    def adopt(self, span: Span, answer: BlobResponse) -> None:
        """Take a response as what a client waits for."""
        self._begin(Part(span.first, span.stop, demanded=True), answer)

    @property
    def _may_begin(self) -> bool:
        return (
            not self._off
            and self._extra.may
            and self._running < LANES
            and self._ever < EVER
            and sum(part.demanded for part in self.parts) < HELD
            and self._demands.may
        )

    @property
    def _may_cut(self) -> bool:
        return (self._cuts + 1) * CUT * CUT_SHARE <= self.size

    def _begin(self, part: Part, answer: BlobResponse | None) -> None:
        self._ever += 1
        self._running += 1
        self._demands.running += 1
        self._demands.held += 1
        self.add(part)
        part.running = Deferred.fromCoroutine(self.fetch(part, lambda _: None, answer))
        part.running.addBoth(self._ended, part)

    def _ended(self, outcome: object, part: Part) -> None:
        self._running -= 1
        self._demands.running -= 1
        if isinstance(outcome, Failure) and not part.closed:
            error = outcome.value
            self._failures += 1
            if not isinstance(error, UpstreamError) or self._failures >= FAILURES:
                self._off = True
            self._log.info(
                "bytes {first} to {stop}, asked for by a client: {error}",
                first=part.first,
                stop=part.stop,
                error=error,
            )
            part.stop = part.end
            if not part.got:
                self.drop(part)
                if self.position < self.limit == part.first:
                    self.limit = min(self.sent_to, self.next(part.first))  # not cut after all
        part.tell()
        self._changes.fire()

    # -- parts

    def add(self, part: Part) -> None:
        self.parts.append(part)
        self.parts.sort(key=lambda each: each.first)

    def drop(self, part: Part) -> None:
        """Be done with a part, whether it is here or not."""
        if part in self.parts:
            self.parts.remove(part)
            if part.demanded:
                self._demands.held -= 1
        part.close()

    def close(self) -> None:
        """Be done with all of it."""
        self._off = True
        for part in [*self.parts]:
            self.drop(part)
        self._changes.fire()

    async def fetch(self, part: Part, came: Callable[[int], object], answer: BlobResponse | None = None) -> None:
        """Fetch a part; `came`: told of the bytes that come; `answer`: where it was asked for before.

        Raises RegistryError, StorageError.
        """
        asked = Span(part.first, part.stop, self.size)
        try:
            part.scratch = await self._scratch()
        except BaseException:
            if answer is not None:
                answer.response.abandon()
            raise
        answer = answer or await self._ask(Range(asked.first, asked.stop - 1))
        body = answer.response.body()
        try:
            if answer.span != asked:
                self._extra.refused = True
                raise UpstreamError(f"{answer.response.source} does not send parts of blobs")
            # To its very end, so that the connection can be used again.
            while part.stop >= part.end and (data := await body.read()):
                data = data[: part.stop - part.end]
                if not data:
                    break
                await part.scratch.append(data)
                came(len(data))
                part.got += len(data)
                part.tell()
                if part.is_whole and part.stop < asked.stop:
                    break
            if not part.is_whole:
                raise UpstreamError(f"{answer.response.source} ended a part early")
        finally:
            body.close()


def part_error(reason: Failure) -> RegistryError:
    """What a part that failed means for the fill: the rest can be asked for after it."""
    error = reason.value
    return error if isinstance(error, RegistryError) else UpstreamError(f"a part failed: {error}")

"""Ranges of large blobs that nobody wants whole: fetched where clients read, and nowhere else.

The law: *nothing is asked of the upstream that no client reads*, but for the rest of a short part.  As long as only
ranges of a blob were asked for, no fill begins; who asks for all of it begins one, which takes nothing from here.
The parts that came lie in unnamed files, for all clients of this process that read the same bytes.  They were never
verified, so none of them becomes part of a blob; they are few, and the one read longest ago goes first.

A blob is shown under a repository only after the upstream served it under that repository, as everywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

from attrs import frozen
from cachetools import LRUCache
from zope.interface import implementer

from docxy.bodies import IBody
from docxy.catalog.interfaces import IHeld
from docxy.names import Digest
from docxy.pull.blobs.again import Source
from docxy.pull.blobs.ahead import LANES, LEAST, MOST, Ahead, Demands, Part
from docxy.pull.blobs.extra import ExtraConnections
from docxy.pull.blobs.parallel import Parallel
from docxy.pull.blobs.rest import range_of
from docxy.pull.blobs.resuming import Resuming
from docxy.pull.cache_status import CacheStatus
from docxy.pull.caller import Caller
from docxy.pull.direct import direct_blob
from docxy.pull.interfaces import PulledBlob
from docxy.ranges import Range, Span
from docxy.single_flight import SingleFlight
from docxy.storage.interfaces import IBlobStore, State, StorageError
from docxy.upstream.blob_response import BlobResponse
from docxy.upstream.remote import Remote

BYTES = 256 << 20
"""Of all parts together, in one process."""
PARTS = 256
"""How many of them at most: each is an open file."""
AT_ONCE = 16
"""Of them, or of first answers, under way at the same time."""
BLOBS = 1_000
"""Whose size is remembered."""

_MISS = CacheStatus(fwd="miss", detail="touched")
_JOINED = CacheStatus(fwd="miss", collapsed=True, detail="touched")
_HIT = CacheStatus(hit=True, detail="touched")


class Pieces(Ahead):
    """What is here of one blob, without a fill."""

    def __init__(self, size: int, source: Source, parallel: Parallel, table: Touched) -> None:
        """`source`: asks in the name of the client that came last."""
        super().__init__(size, self._ask_last, parallel.scratch, parallel.extra, table.demands)
        self.source = source
        self._table = table

    async def _ask_last(self, asked: Range) -> BlobResponse:
        return await self.source(asked)

    @property
    def has_failed(self) -> bool:
        """Whether no more of it is fetched: what begins it anew asks in another client's name."""
        return self._off

    def want(self, first: int, stop: int) -> Part | None:
        """See `Ahead`; None: the client is served past this."""
        part = self.at(first)
        if part is None and self._may_begin:
            part = Part(first, min(first + max(LEAST, min(stop - first, MOST)), self.next(first)), demanded=True)
            self._begin(part, None)
        if part is not None:
            self._table.used(self, part)
        return part

    @property
    def _may_begin(self) -> bool:
        return not self._off and self._extra.may and self._running < LANES and self._table.may

    def _begin(self, part: Part, answer: BlobResponse | None) -> None:
        self._table.used(self, part)
        super()._begin(part, answer)

    def drop(self, part: Part) -> None:
        self._table.gone(part)
        super().drop(part)


class Touched:
    """The parts of all blobs of this process."""

    def __init__(self) -> None:
        self.demands = Demands()
        self._opening: SingleFlight[tuple[str, str, Digest, str], Pieces | None] = SingleFlight()
        self._blobs: LRUCache[tuple[str, Digest], Pieces] = _Blobs(BLOBS)
        self._parts: OrderedDict[Part, Pieces] = OrderedDict()
        """The one read longest ago first."""
        self._stopped = False

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def bytes(self) -> int:
        return sum(part.stop - part.first for part in self._parts)

    @property
    def may(self) -> bool:
        """Whether another part may be begun now."""
        return not self._stopped and self.demands.running + len(self._opening) < AT_ONCE

    def of(self, upstream: str, digest: Digest) -> Pieces | None:
        """What there is of a blob; None: nobody asked for a range of it lately."""
        found = self._blobs.get((upstream, digest))
        if found is not None and found.has_failed:
            self.forget(upstream, digest)
            return None
        return found

    def open(
        self, key: tuple[str, str, Digest, str], work: Callable[[], Coroutine[Any, Any, Pieces | None]]
    ) -> Awaitable[Pieces | None]:
        """Ask for the first of a blob, once for all who ask meanwhile.

        `key`: upstream, repository, digest, credential.
        """
        return self._opening.do(key, work)

    def begin(self, upstream: str, digest: Digest, size: int, source: Source, parallel: Parallel) -> Pieces:
        """What there is of a blob of `size` bytes; nothing yet where it had another size."""
        found = self.of(upstream, digest)
        if found is not None and found.size == size:
            return found
        self.forget(upstream, digest)
        pieces = self._blobs[upstream, digest] = Pieces(size, source, parallel, self)
        return pieces

    def forget(self, upstream: str, digest: Digest) -> None:
        """Be done with what there is of a blob."""
        found = self._blobs.pop((upstream, digest), None)
        if found is not None:
            found.close()

    def used(self, pieces: Pieces, part: Part) -> None:
        """A client reads this part: others go before it."""
        new = part not in self._parts
        self._parts[part] = pieces
        self._parts.move_to_end(part)
        if new:
            self._make_room()

    def gone(self, part: Part) -> None:
        self._parts.pop(part, None)

    def _make_room(self) -> None:
        idle = [part for part in self._parts if part.scratch is not None and part.is_whole]
        for part in idle:
            if len(self._parts) <= PARTS and self.bytes <= BYTES:
                return
            self._parts[part].drop(part)

    def forget_all(self, digests: Collection[str]) -> None:
        """Be done with what there is of these blobs."""
        for upstream, digest in [key for key in self._blobs if str(key[1]) in digests]:
            self.forget(upstream, digest)

    async def stop(self) -> None:
        """End all of it, and begin nothing more."""
        self._stopped = True
        await self._opening.stop()
        for upstream, digest in [*self._blobs]:
            self.forget(upstream, digest)


class _Blobs(LRUCache[tuple[str, Digest], Pieces]):
    """Whatever falls out is closed."""

    def popitem(self) -> tuple[tuple[str, Digest], Pieces]:
        key, pieces = super().popitem()
        pieces.close()
        return key, pieces


@frozen
class TouchedBlobs:
    """Ranges of one upstream's blobs."""

    table: Touched
    remote: Remote
    store: IBlobStore
    held: IHeld
    parallel: Parallel
    resuming: Resuming

    async def blob(
        self, repository: str, digest: Digest, asked: Range, size: int | None, source: Source, caller: Caller
    ) -> PulledBlob | None:
        """A range of a blob that nobody fetches whole; None: it is a matter of the cache.

        `size`: where a manifest lists it.  `caller`: may read the repository, with the upstream's consent.
        """
        name = self.remote.name
        if not reads_here_and_there(asked, size) or self._extra.refused or await self._is_there(digest):
            return None
        pieces, opened = self.table.of(name, digest), False
        if pieces is None:
            opened = True
            if not self.table.may:
                return await direct_blob(source, digest, asked, self.resuming)
            key = (name, repository, digest, caller.credential)
            pieces = await self.table.open(key, lambda: self._first(repository, digest, asked, size, source))
            if pieces is None:
                return None
        elif not await self.held.blob(repository, digest, latest=True):
            await self.remote.blob_size(repository, digest, caller.authorization)
            self.held.hold_blob(repository, digest)
        span = asked.within(pieces.size)
        pieces.source = source
        there = None if opened else pieces.at(span.first)
        status = _MISS if there is None else _HIT if there.end > span.first else _JOINED

        async def direct(position: int) -> IBody:
            return await range_of(source, digest, span, position, self.resuming)

        return PulledBlob(span, Touching(pieces, span, direct), status)

    @property
    def _extra(self) -> ExtraConnections:
        return self.parallel.extra

    async def _is_there(self, digest: Digest) -> bool:
        """Whether the blob is in the cache, or on its way there."""
        try:
            reader = await self.store.open(digest)
        except StorageError:
            return True  # which the cache deals with
        if reader is None:
            return False
        state = reader.state
        reader.close()
        return state not in (State.RELEASED, State.WITHDRAWN, State.WRONG)

    async def _first(
        self, repository: str, digest: Digest, asked: Range, size: int | None, source: Source
    ) -> Pieces | None:
        """Ask for a client's range; None: the upstream sends no parts."""
        answer = await source(_first_part(asked, size))
        span = answer.span
        if span is None or span.stop - span.first > MOST:
            answer.response.abandon()
            self._extra.refused = True
            return None
        self.held.hold_blob(repository, digest)
        pieces = self.table.begin(self.remote.name, digest, span.size, source, self.parallel)
        if pieces.at(span.first) is None and span.stop <= pieces.next(span.first):
            pieces.adopt(span, answer)
        else:
            answer.response.abandon()
        return pieces


@implementer(IBody)
class Touching:
    """One client's way through a range."""

    def __init__(self, pieces: Pieces, span: Span, direct: Callable[[int], Awaitable[IBody]]) -> None:
        """`direct`: the rest from a position on, past all this."""
        self._pieces = pieces
        self._position, self._stop = span.first, span.stop
        self._direct = direct
        self._rest: IBody | None = None
        self._closed = False

    async def read(self) -> bytes:
        while self._position < self._stop and not self._closed:
            if self._rest is not None:
                return await self._rest.read()
            part = self._pieces.want(self._position, self._stop)
            data = b"" if part is None else await self._read(part)
            if data:
                self._position += len(data)
                return data
            rest = await self._direct(self._position)
            self._rest = rest
            if self._closed:
                rest.close()
        return b""

    async def _read(self, part: Part) -> bytes:
        """Bytes at our position; none where the part brings none any more."""
        try:
            data = await part.read(self._position)
        except StorageError:
            return b""
        return data[: self._stop - self._position]

    def close(self) -> None:
        self._closed = True
        if self._rest is not None:
            self._rest.close()


def reads_here_and_there(asked: Range, size: int | None) -> bool:
    """Whether this is a piece of a blob, and not the rest of one that somebody wants whole."""
    if asked.first is None:
        return 0 < (asked.last or 0) <= MOST
    if asked.last is None:
        return size is not None and 0 < size - asked.first <= MOST and asked.first > 0
    return asked.first <= asked.last and (asked.first, asked.last + 1) != (0, size)


def _first_part(asked: Range, size: int | None) -> Range:
    """A client's range as the part that brings it; see `Pieces.want`."""
    if asked.first is None and size is None:
        return asked
    first = max(0, (size or 0) - (asked.last or 0)) if asked.first is None else asked.first
    count = MOST if asked.last is None or asked.first is None else asked.last + 1 - first
    stop = first + max(LEAST, min(count, MOST))
    return Range(first, (stop if size is None else min(stop, max(size, first + 1))) - 1)

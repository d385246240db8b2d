"""Blobs and records as objects of S3, Google Cloud Storage or Azure, by obstore.

The laws: *nothing here blocks the reactor's thread*: obstore's synchronous calls are made in threads of the
archive's own.  The client is made when the service starts: one that was used before a fork hangs after it.
No request lasts longer than its time-outs, so that no thread is lost to a store that stalls: a blob is read in
ranges of `PART` bytes, and written in parts.  Only this module and `docxy.archive.clients` know obstore, which
is an extra.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from threading import Event
from typing import Any, ParamSpec, TypeVar

from attrs import define, frozen
from obstore import delete as remove
from obstore import get, head, open_writer, put, sign
from obstore.exceptions import PermissionDeniedError
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from docxy.archive.clients import words
from docxy.archive.interfaces import LINK_FOR, ArchiveError, Found, IArchive, Link
from docxy.bodies import IBody
from docxy.errors import UpstreamError
from docxy.names import Digest
from docxy.threads import InThread, Threads

P = ParamSpec("P")
T = TypeVar("T")

PART = 64 << 20
"""Bytes of a blob that are asked for at once."""
PIECE = 1 << 20
"""Bytes that a thread hands over at once."""
PIECE_WITHIN = 10.0
"""Seconds for a piece: a store that is slower than this is left for the registry."""
MAX_RECORD = 1 << 20
"""Bytes."""
_WRITTEN = 8 << 20
"""Bytes of a part of an upload, at least."""
_MOST_PARTS = 9_000
"""S3 takes 10,000."""
_ATTEMPTS = 3
"""How often in a row a range may fail without a byte of progress."""
_PAUSE = 0.5
"""Seconds before a range is asked for again, times the attempt."""
READERS, WRITERS = 16, 4
"""Threads."""


@frozen
class Clients:
    """The object store, as obstore reaches it."""

    reading: Any
    writing: Any
    """Patient: nobody waits for it."""
    public: Any = None
    """As clients reach the store; None: they do not."""


@implementer(IArchive)
class ObjectArchive(Service):
    """One bucket, or a prefix of it."""

    def __init__(
        self, name: str, connect: Callable[[], Clients], rate: int | None, clock: IReactorTime, reactor: Any
    ) -> None:
        """`connect`: makes the clients; `rate`: bytes a second that one `put` may send; None: any number."""
        self.name = name
        self._connect = connect
        self._rate = rate
        self._clock = clock
        self._readers = Threads(reactor, READERS, "archive")
        self._writers = Threads(reactor, WRITERS, "archive puts")
        self._running: set[Deferred[None]] = set()
        self._stopping = Event()
        self._clients: Clients | None = None
        self._failure = "docxy does not serve yet"

    # -- life

    def startService(self) -> None:
        Service.startService(self)
        try:
            self._clients = self._connect()
        except Exception as error:  # obstore does not say what it may raise here
            self._failure = words(error)
        self._readers.startService()
        self._writers.startService()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        self._stopping.set()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        while self._running:
            await DeferredList(self._running)
        self._readers.stopService()
        self._writers.stopService()

    def _do(self, in_thread: InThread, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """What a thread makes of it; who waits may give up, the stop waits for the thread."""
        if self._stopping.is_set():
            raise ArchiveError(f"{self.name}: docxy stops")
        waiting: Deferred[T] = Deferred()
        ended: Deferred[None] = Deferred()
        self._running.add(ended)

        def done(outcome: Any) -> None:
            self._running.discard(ended)
            if not waiting.called:
                waiting.callback(outcome)
            ended.callback(None)

        in_thread(work, *args, **kwargs).addBoth(done)
        return waiting

    @property
    def _open_clients(self) -> Clients:
        if self._clients is None:
            raise ArchiveError(f"{self.name} cannot be used: {self._failure}")
        return self._clients

    async def _told(self, doing: str, work: Coroutine[Any, Any, T]) -> T:
        """What obstore raises, as an ArchiveError."""
        try:
            return await work
        except (ArchiveError, CancelledError):
            raise
        except Exception as error:  # obstore has a class for each kind of failure, and may have more
            raise ArchiveError(f"{self.name}: cannot {doing}: {words(error)}") from error

    # -- blobs

    async def put(self, digest: Digest, descriptor: int, size: int) -> bool:
        store = self._open_clients.writing

        async def work() -> bool:
            return await self._do(self._writers.in_thread, self._put, store, _key(digest), descriptor, size)

        return await self._told(f"put {digest}", work())

    def _put(self, store: Any, key: str, descriptor: int, size: int) -> bool:
        """In a thread."""
        try:
            if head(store, key)["size"] == size:
                return False
        except FileNotFoundError:
            pass
        part = max(_WRITTEN, -(-size // _MOST_PARTS))
        # Left by an exception, the writer aborts: an upload that is not complete is no object.
        with open_writer(store, key, buffer_size=part, max_concurrency=2) as writer:
            for piece in self._pieces(descriptor, size):
                writer.write(piece)
        return True

    def _pieces(self, descriptor: int, size: int) -> Iterator[bytes]:
        offset = 0
        while offset < size:
            piece = os.pread(descriptor, min(PIECE, size - offset), offset)
            if not piece:
                raise ArchiveError(f"{self.name}: the blob's file ended after {offset} of {size} bytes")
            yield piece
            offset += len(piece)
            if self._stopping.wait(0 if self._rate is None else len(piece) / self._rate):
                raise ArchiveError(f"{self.name}: docxy stops")

    async def open(self, digest: Digest, first: int) -> Found | None:
        async def work() -> Found | None:
            try:
                part = await self.part(digest, first, first + PART)
            except (FileNotFoundError, PermissionDeniedError):
                # AWS says 403 of a key that is not there to who may not list the bucket; whether docxy may read at
                # all was seen at the start.
                return None
            return Found(part.size, _Body(self, digest, first, part, self._clock))

        return await self._told(f"read {digest}", work())

    async def part(self, digest: Digest, first: int, stop: int) -> RangeReader:
        """A range of a blob, on its way.  Raises what obstore does."""
        store = self._open_clients.reading
        return await self._do(self._readers.in_thread, _part, store, _key(digest), first, stop)

    async def piece(self, part: RangeReader) -> bytes:
        """The next bytes; none at the part's end.  Raises what obstore does, TimeoutError."""
        return await self._do(self._readers.in_thread, part.next).addTimeout(PIECE_WITHIN, self._clock)

    async def link(self, digest: Digest) -> Link | None:
        clients = self._open_clients
        if clients.public is None:
            raise ArchiveError(f"{self.name}: no client is sent there")

        async def work() -> Link | None:
            try:
                return await self._do(self._readers.in_thread, _link, clients, _key(digest))
            except (FileNotFoundError, PermissionDeniedError):
                return None

        return await self._told(f"link to {digest}", work())

    async def drop(self, digest: Digest) -> None:
        store = self._open_clients.reading

        async def work() -> None:
            await self._do(self._readers.in_thread, remove, store, _key(digest))

        await self._told(f"remove {digest}", work())

    # -- records

    async def put_record(self, name: str, data: bytes) -> None:
        store = self._open_clients.writing

        async def work() -> None:
            await self._do(self._writers.in_thread, put, store, name, data, use_multipart=False)

        await self._told(f"write {name}", work())

    async def record(self, name: str) -> bytes | None:
        store = self._open_clients.reading

        async def work() -> bytes | None:
            try:
                return await self._do(self._readers.in_thread, _record, store, name)
            except (FileNotFoundError, PermissionDeniedError):
                return None

        return await self._told(f"read {name}", work())


@define
class RangeReader:
    """A range of a blob that is being read.  Only one thread may be in `next` at a time."""

    size: int
    """Bytes of the whole blob."""
    stop: int
    """Where the range ends."""
    _stream: Iterator[Any]

    def next(self) -> bytes:
        """In a thread: the next bytes; none at the end."""
        return bytes(next(self._stream, b""))


def _part(store: Any, key: str, first: int, stop: int) -> RangeReader:
    found = get(store, key, options={"range": (first, stop)})
    return RangeReader(int(found.meta["size"]), int(found.range[1]), iter(found.stream(min_chunk_size=PIECE)))


def _link(clients: Clients, key: str) -> Link:
    size = int(head(clients.reading, key)["size"])
    return Link(size, str(sign(clients.public, "GET", key, timedelta(seconds=LINK_FOR))))


def _record(store: Any, name: str) -> bytes | None:
    found = get(store, name)
    return None if found.meta["size"] > MAX_RECORD else bytes(found.bytes())


@implementer(IBody)
class _Body:
    """A blob's bytes, range by range; a range that breaks off is asked for again, from the byte where it did."""

    def __init__(
        self, archive: ObjectArchive, digest: Digest, first: int, part: RangeReader, clock: IReactorTime
    ) -> None:
        self._archive = archive
        self._digest = digest
        self._position = first
        self._size = part.size
        self._part: RangeReader | None = part
        self._clock = clock
        self._closed = False

    async def read(self) -> bytes:
        failures = 0
        while self._position < self._size and not self._closed:
            try:
                data = await self._some()
            except (UpstreamError, CancelledError):
                raise
            except Exception as error:  # whatever obstore raises
                self._part = None
                failures += 1
                if failures == _ATTEMPTS or isinstance(error, (TimeoutError, FileNotFoundError, ArchiveError)):
                    raise UpstreamError(f"the archive broke off after {self._position} bytes") from error
                await deferLater(self._clock, _PAUSE * failures, lambda: None)
                continue
            if data:
                self._position += len(data)
                return data
        return b""

    async def _some(self) -> bytes:
        """Bytes at our position; none at the end of a range."""
        part = self._part
        if part is None:
            work = self._archive.part(self._digest, self._position, self._position + PART)
            part = await Deferred.fromCoroutine(work).addTimeout(PIECE_WITHIN, self._clock)
            if part.size != self._size:
                raise UpstreamError("the archive has something else there now")
            self._part = part
        data = await self._archive.piece(part)
        if not data:
            if self._position != part.stop:
                raise OSError("a range ended early")
            self._part = None
        return data

    def close(self) -> None:
        self._closed = True
        self._part = None


def _key(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

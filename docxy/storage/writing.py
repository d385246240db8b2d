"""The writer of a fill on disk.

The law: bytes are written and hashed in a thread, in the order they came, one job at a time.
They are verified before anybody gets the last of them, durable before they have their final
name, named before they are counted as committed.  Whatever fails, the descriptor that owns the
fill is closed, so that another writer may own it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.names import Digest
from docxy.storage import files
from docxy.storage.body import Body, Changes
from docxy.storage.files import Claim, explained
from docxy.storage.index import Index
from docxy.storage.interfaces import DigestMismatch, IBlobReader, IBlobWriter, State, StorageError
from docxy.storage.paths import Tree
from docxy.storage.threads import InThread, shielded

if TYPE_CHECKING:
    from hashlib import _Hash

_AHEAD = 1 << 20
"""Bytes that may wait for the thread before `write` does."""

_CATCH_UP = 16 << 20
"""Bytes of an interrupted fill that are hashed with each write."""


@define(eq=False)
class Fill:
    """The thread's side: the file, and the hash of what is in it."""

    digest: Digest
    owner: int
    hashed: int = 0
    hasher: _Hash = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hasher = self.digest.hasher()

    def append(self, path: str, pieces: Sequence[bytes], offset: int) -> int:
        """How many bytes were written."""
        pieces = files.joined(pieces)
        with explained("write", path):
            wrote = files.append(self.owner, pieces, offset)
            if self.hashed == offset:
                for piece in pieces:
                    self.hasher.update(piece)
                self.hashed += wrote
            else:
                # What an interrupted writer left: its hash died with it.  Readers wait for the new
                # bytes, not for the hash, so it catches up by and by.
                self._catch_up(min(offset + wrote, self.hashed + _CATCH_UP))
            return wrote

    def matches(self, path: str, size: int) -> bool:
        """Whether these are the bytes, and as many as were announced."""
        with explained("read", path):
            self._catch_up(size)
            return os.fstat(self.owner).st_size == size == self.hashed and self.digest.matches(self.hasher)

    def _catch_up(self, end: int) -> None:
        self.hashed = files.hash_range(self.owner, self.hashed, end, self.hasher)


@implementer(IBlobWriter)
@define(eq=False)
class FileWriter:
    """Made by FilesystemStore.write; owns the fill until one of commit, cancel, release."""

    _body: Body
    """Held already; the writer lets go of it in the end."""
    _fill: Fill
    _tree: Tree
    _index: Index
    _in_thread: InThread
    _reader: Callable[[Body], IBlobReader]
    _renew: Callable[[Digest, Claim], Body]
    """Another Body for the same digest, when the bytes start anew."""
    _uses: Callable[[], dict[Digest, float]]
    """The uses not yet written down, for eviction."""
    _now: Callable[[], float]
    _flushed: int = field(init=False)
    """Bytes in the file."""
    _announced: bool = field(init=False, default=False)
    _pending: list[bytes] = field(init=False, factory=list)
    _queued: int = field(init=False, default=0)
    _running: bool = field(init=False, default=False)
    _error: BaseException | None = field(init=False, default=None)
    _ended: bool = field(init=False, default=False)
    _progress: Changes = field(init=False, factory=Changes)
    _turn: DeferredLock = field(init=False, factory=DeferredLock)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._flushed = self._body.written
        self._body.owned = True

    @property
    def digest(self) -> Digest:
        return self._body.digest

    @property
    def size(self) -> int | None:
        return self._body.size

    @property
    def offset(self) -> int:
        return self._flushed + self._queued

    def open(self) -> IBlobReader:
        return self._reader(self._body)

    # -- filling

    async def announce(self, size: int) -> None:
        self._must_go_on()
        await shielded(self._in_turn(self._announce(size)))

    async def _in_turn(self, step: Coroutine[Any, Any, None]) -> None:
        """One step after the other: what nobody waits for any more may still be at work."""
        await self._turn.acquire()
        try:
            await step
        finally:
            self._turn.release()

    async def _announce(self, size: int) -> None:
        await self._idle()
        self._must_go_on()
        if self._body.size not in (None, size):
            with explained("write", self._path):
                claim = await self._in_thread(files.restart, self._tree, self.digest)
            self._start_anew(claim)
        await self._in_thread(self._index.reserve, self.digest, size, self._uses(), self._now())
        self._announced = True
        self._body.update(size=size)

    def _start_anew(self, claim: Claim) -> None:
        old = self._body
        os.close(self._fill.owner)
        self._fill = Fill(self.digest, claim.owner)
        self._flushed = 0
        self._body = self._renew(self.digest, claim)
        self._body.owned = True
        self._body.hold()
        old.owned = False
        old.update(state=State.CANCELLED)
        old.let_go()

    async def write(self, data: bytes) -> None:
        self._must_go_on()
        if not self._announced or self.size is None:
            raise ValueError("announce the size before the first byte")
        if self.offset + len(data) > self.size:
            await self.cancel()
            raise DigestMismatch(f"more than the {self.size} bytes announced for {self.digest}")
        self._pending.append(data)
        self._queued += len(data)
        if not self._running:
            self._go_on()
        while self._queued > _AHEAD and self._error is None:
            await self._progress.wait()
        self._must_go_on()

    def _go_on(self) -> None:
        """Give the thread all that waits, in one piece of work."""
        pieces, self._pending = self._pending, []
        self._running = True
        job = self._in_thread(self._fill.append, self._path, pieces, self._flushed)
        job.addCallbacks(self._wrote, self._failed)

    def _wrote(self, count: int) -> None:
        self._flushed += count
        self._queued -= count
        self._running = False
        if self._pending:  # the thread goes on while readers are told
            self._go_on()
        self._body.update(written=self._flushed)
        self._progress.fire()

    def _failed(self, reason: Failure) -> None:
        self._running = False
        self._pending.clear()
        self._queued = 0
        self._error = reason.value
        self._progress.fire()

    async def _idle(self) -> None:
        while self._running:
            await self._progress.wait()

    def _must_go_on(self) -> None:
        if self._error is not None and not self._ended:
            raise self._error
        if self._ended:
            raise StorageError(f"the fill of {self.digest} has ended")

    @property
    def _path(self) -> str:
        return self._tree.incoming(self.digest)

    # -- ending

    async def commit(self) -> None:
        await shielded(self._in_turn(self._commit()))

    async def _commit(self) -> None:
        await self._idle()
        self._must_go_on()
        size = self.size
        try:
            if size is None or not await self._in_thread(self._fill.matches, self._path, size):
                raise DigestMismatch(f"{self.offset} of {size} bytes were written, and they are not {self.digest}")
        except BaseException:
            await self._withdraw()
            raise
        # Readers here need not wait for the disk: what they read is right, whatever the disk says now.
        self._body.update(state=State.VERIFIED)
        try:
            await self._in_thread(self._publish, size)
        except BaseException:
            await self._withdraw()
            raise
        self._end(State.VERIFIED)

    def _publish(self, size: int) -> None:
        """In a thread.  The name comes before the row: until then the row counts the fill, at the same size.

        The other order could leave a row that says committed beside a file that is not.
        """
        files.publish(self._tree, self.digest, self._fill.owner, self._body.descriptor)
        try:
            self._index.commit(self.digest, size, self._now())
        except StorageError as error:  # the next use of the blob puts the row right
            self._log.warn("{digest} is kept, but not yet noted: {error}", digest=self.digest, error=error)

    async def cancel(self) -> None:
        if not self._ended:
            await shielded(self._in_turn(self._cancel()))

    async def _cancel(self) -> None:
        self._pending.clear()
        await self._idle()
        if not self._ended:
            await self._withdraw()

    async def _withdraw(self) -> None:
        """Nothing is kept; this cannot fail, only be noted."""
        try:
            await self._in_thread(self._remove)
        except StorageError as error:
            self._log.warn("could not note that {digest} is gone: {error}", digest=self.digest, error=error)
        finally:
            self._queued = 0
            # Bytes that were verified stay right, even if the disk could not keep them.
            self._end(State.VERIFIED if self._body.state is State.VERIFIED else State.CANCELLED)

    def _remove(self) -> None:
        """In a thread."""
        try:
            self._index.remove(self.digest, self._unlink)
        except StorageError:
            self._unlink()
            raise

    def _unlink(self) -> bool:
        with explained("remove", self._path):
            if files.names(self._tree.blob(self.digest), os.fstat(self._fill.owner)):
                os.unlink(self._tree.blob(self.digest))  # its name could not be made durable
            return files.unlink(self._path)

    async def release(self) -> None:
        if not self._ended:
            await shielded(self._in_turn(self._release()))

    async def _release(self) -> None:
        await self._idle()
        if not self._ended:
            self._end(State.RELEASED)

    def _end(self, state: State) -> None:
        """Let others own it, then tell those who wait: they may claim it at once."""
        self._ended = True
        self._body.owned = False
        os.close(self._fill.owner)
        self._body.update(state=state)
        if self._body.awaited and self._body.watch is not None:
            self._body.watch.start()  # who waits goes on waiting for the next writer
        self._body.let_go()

"""The writer of a fill on disk.

The law: bytes are written in one thread and then hashed in another, in the order they came.
They are verified before anybody gets the last of them, durable before they have their final
name, named before they are counted as committed.  Whatever fails, the descriptor that owns the
fill is closed, so that another writer may own it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
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
from docxy.storage.threads import InThread, Line, shielded

if TYPE_CHECKING:
    from hashlib import _Hash

_AHEAD = 1 << 20
"""Bytes that may wait for the thread before `write` does."""

_BEHIND = 4 << 20
"""Bytes that may wait to be hashed before `write` does."""

_CATCH_UP = 16 << 20
"""Bytes of an interrupted fill that are hashed at a time."""


@define(eq=False)
class Fill:
    """The threads' side: the file, and the hash of what is in it."""

    digest: Digest
    owner: int
    hashed: int = 0
    hasher: _Hash = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hasher = self.digest.hasher()

    def append(self, path: str, pieces: Sequence[bytes], offset: int) -> Sequence[bytes]:
        """What was written."""
        pieces = files.joined(pieces)
        with explained("write", path):
            files.append(self.owner, pieces, offset)
        return pieces

    def hash(self, path: str, pieces: Sequence[bytes], offset: int) -> None:
        """Hash what was written at `offset`."""
        if self.hashed == offset:
            for piece in pieces:
                self.hasher.update(piece)
                self.hashed += len(piece)
        else:
            # What an interrupted writer left: its hash died with it.  Readers wait for the new
            # bytes, not for the hash, so it catches up by and by.
            with explained("read", path):
                self._catch_up(min(offset + sum(map(len, pieces)), self.hashed + _CATCH_UP))

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
    _writing: Line[Sequence[bytes]] = field(init=False)
    _hashing: Line[None] = field(init=False)
    """What has been through the other."""
    _announced: bool = field(init=False, default=False)
    _error: BaseException | None = field(init=False, default=None)
    _ended: bool = field(init=False, default=False)
    _progress: Changes = field(init=False, factory=Changes)
    _turn: DeferredLock = field(init=False, factory=DeferredLock)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._body.owned = True
        self._begin_at(self._body.written)

    def _begin_at(self, position: int) -> None:
        path = self._path
        self._writing = Line(self._in_thread, partial(self._fill.append, path), self._wrote, self._failed, position)
        self._hashing = Line(self._in_thread, partial(self._fill.hash, path), self._hashed, self._failed, position)

    @property
    def digest(self) -> Digest:
        return self._body.digest

    @property
    def size(self) -> int | None:
        return self._body.size

    @property
    def offset(self) -> int:
        return self._writing.position + self._writing.waiting

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
        self._body = self._renew(self.digest, claim)
        self._body.owned = True
        self._body.hold()
        self._begin_at(0)
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
        self._writing.push([data])
        while self._error is None and (self._writing.waiting > _AHEAD or self._hashing.waiting > _BEHIND):
            await self._progress.wait()
        self._must_go_on()

    def _wrote(self, pieces: Sequence[bytes]) -> None:
        if self._error is None:
            self._hashing.push(pieces)
        self._body.update(written=self._writing.position)
        self._progress.fire()

    def _hashed(self, _: None) -> None:
        self._progress.fire()

    def _failed(self, reason: Failure) -> None:
        self._error = self._error or reason.value
        self._stop()
        self._progress.fire()

    def _stop(self) -> None:
        self._writing.stop()
        self._hashing.stop()

    async def _idle(self) -> None:
        while self._writing.busy or self._hashing.busy:
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
        self._stop()
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

"""The writer of a fill on disk.

The law: room is made for bytes before they come.  They are written in one thread and then hashed
in another, in the order they came.  They are verified before anybody gets the last of them,
durable before they have their final name, named before they are counted as committed.  After
every failure the descriptor that owns the fill is closed, so that another writer may own it; and a file
that loses its name is marked for those who follow it (`docxy.storage.holds`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.names import Digest
from docxy.storage import disk, files, holds
from docxy.storage.disk import explained
from docxy.storage.eviction import Eviction
from docxy.storage.files import Claim
from docxy.storage.fill_file import FillFile
from docxy.storage.index import Index
from docxy.storage.interfaces import (
    STEP,
    UNSIZED_STEP,
    DigestMismatch,
    DiskFull,
    IBlobReader,
    IBlobWriter,
    State,
    StorageError,
)
from docxy.storage.paths import Tree
from docxy.storage.view import BlobView, Changes
from docxy.storage.watch import BEAT
from docxy.threads import InThread, Line, shielded

_AHEAD = 1 << 20
"""Bytes that may wait for the thread before `write` does."""

_BEHIND = 4 << 20
"""Bytes that may wait to be hashed before `write` does."""

_MARKS = {State.VERIFIED: holds.VERIFIED, State.WRONG: holds.WRONG, State.WITHDRAWN: holds.GONE}


@implementer(IBlobWriter)
@define(eq=False)
class FileWriter:
    """Made by FilesystemStore.join; owns the fill until one of commit, cancel, reject, release."""

    _view: BlobView
    """Held already; the writer lets go of it in the end."""
    _file: FillFile
    _tree: Tree
    _index: Index
    _eviction: Eviction
    _in_thread: InThread
    _clock: IReactorTime
    _reader: Callable[[BlobView], IBlobReader]
    _renew: Callable[[Digest, Claim], BlobView]
    """Another BlobView for the same digest, when the bytes start anew."""
    _uses: Callable[[], dict[Digest, float]]
    """The uses not yet written down, for eviction."""
    _now: Callable[[], float]
    _writing: Line[Sequence[bytes]] = field(init=False)
    _hashing: Line[None] = field(init=False)
    """What has been through the other."""
    _room: int = field(init=False, default=0)
    """Bytes that the file may grow to; 0 before the fill was admitted."""
    _error: BaseException | None = field(init=False, default=None)
    _ended: bool = field(init=False, default=False)
    _progress: Changes = field(init=False, factory=Changes)
    _turn: DeferredLock = field(init=False, factory=DeferredLock)
    _beat: IDelayedCall | None = field(init=False, default=None)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._view.owned = True
        self._begin_at(self._view.written)
        self._beat = self._clock.callLater(BEAT, self._show_life)

    def _begin_at(self, position: int) -> None:
        path = self._path
        append = partial(self._file.append, path, self._relieve)
        self._writing = Line(self._in_thread, append, self._wrote, self._failed, position)
        self._hashing = Line(self._in_thread, partial(self._file.hash, path), self._hashed, self._failed, position)

    def _relieve(self, wanted: int) -> bool:
        """In a thread: free some of a full disk."""
        return self._eviction.relieve(wanted, self.digest)

    def _show_life(self) -> None:
        """Those who follow in other processes see by the file's time that this one does not stand still."""
        self._beat = self._clock.callLater(BEAT, self._show_life)
        self._in_thread(_touch, self._path).addErrback(lambda reason: None)

    @property
    def digest(self) -> Digest:
        return self._view.digest

    @property
    def size(self) -> int | None:
        return self._view.size

    @property
    def offset(self) -> int:
        return self._writing.position + self._writing.waiting

    def open(self) -> IBlobReader:
        return self._reader(self._view)

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
        if self._view.size not in (None, size):
            await self._discard()
        await self._admit(size)
        self._view.update(size=size)

    async def _admit(self, size: int | None) -> None:
        first = max(self.offset, UNSIZED_STEP if size is None else min(STEP, size))
        await self._in_thread(self._eviction.admit, self.digest, size, first, self._uses(), self._now())
        self._room = first

    async def discard(self) -> None:
        self._must_go_on()
        await shielded(self._in_turn(self._discard()))

    async def _discard(self) -> None:
        await self._idle()
        with explained("write", self._path):
            self._start_anew(await self._in_thread(files.restart, self._tree, self.digest))

    def _start_anew(self, claim: Claim) -> None:
        old = self._view
        os.close(self._file.owner)
        self._file = FillFile(self.digest, claim.owner)
        self._view = self._renew(self.digest, claim)
        self._view.owned = True
        self._view.hold()
        self._room = 0
        self._begin_at(0)
        old.owned = False
        old.update(state=State.WITHDRAWN)
        old.let_go()

    async def write(self, data: bytes) -> None:
        self._must_go_on()
        end = self.offset + len(data)
        if self.size is not None and end > self.size:
            await self.reject()
            raise DigestMismatch(f"more than the {self.size} bytes announced for {self.digest}")
        if end > self._room:
            await shielded(self._in_turn(self._make_room(end)))
            self._must_go_on()
        self._writing.push([data])
        while self._error is None and (self._writing.waiting > _AHEAD or self._hashing.waiting > _BEHIND):
            await self._progress.wait()
        self._must_go_on()

    async def _make_room(self, end: int) -> None:
        self._must_go_on()
        if not self._room:
            await self._admit(self.size)
        if end > self._room:
            room = end + UNSIZED_STEP if self.size is None else min(end + STEP, self.size)
            await self._in_thread(self._eviction.grow, self.digest, self.size, room, self._now())
            self._room = room

    def _wrote(self, pieces: Sequence[bytes]) -> None:
        if self._error is None:
            self._hashing.push(pieces)
        self._view.update(written=self._writing.position)
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
        size = self.offset if self.size is None else self.size
        try:
            if not self._room:  # nothing was written that would have made it
                await self._admit(size)
            if not await self._in_thread(self._file.matches, self._path, size):
                raise DigestMismatch(f"{self.offset} of {size} bytes were written, and they are not {self.digest}")
        except DigestMismatch:
            await self._withdraw(State.WRONG)
            raise
        except BaseException:
            await self._withdraw(State.WITHDRAWN)
            raise
        # Readers here need not wait for the disk: what they read is right, whatever the disk says now.
        self._view.update(size=size, state=State.VERIFIED)
        try:
            await self._in_thread(self._publish, size)
        except BaseException:
            # Bytes that were verified stay right, even if the disk could not keep them.
            await self._withdraw(State.VERIFIED)
            raise
        self._end(State.VERIFIED)

    def _publish(self, size: int) -> None:
        """In a thread.  The name comes before the row: until then the row counts the fill, at the same size.

        The other order could leave a row that says committed beside a file that is not.
        """
        try:
            files.publish(self._tree, self.digest, self._file.owner, self._view.descriptor)
        except DiskFull:
            if not self._relieve(size):
                raise
            files.publish(self._tree, self.digest, self._file.owner, self._view.descriptor)
        try:
            with explained("look at", self._path):
                counted = disk.on_disk(os.fstat(self._file.owner))
            self._index.commit(self.digest, size, counted, self._now())
        except StorageError as error:  # the next use of the blob puts the row right
            self._log.warn("{digest} is kept, but not yet noted: {error}", digest=self.digest, error=error)

    async def cancel(self) -> None:
        await self._end_unkept(State.WITHDRAWN)

    async def reject(self) -> None:
        await self._end_unkept(State.WRONG)

    async def _end_unkept(self, state: State) -> None:
        if not self._ended:
            await shielded(self._in_turn(self._cancel(state)))

    async def _cancel(self, state: State) -> None:
        self._stop()
        await self._idle()
        if not self._ended:
            await self._withdraw(state)

    async def _withdraw(self, state: State) -> None:
        """Nothing is kept; this cannot fail, only be noted.  `state`: what its readers have."""
        try:
            await self._in_thread(self._remove, _MARKS[state])
        except StorageError as error:
            self._log.warn("could not note that {digest} is gone: {error}", digest=self.digest, error=error)
        finally:
            self._end(state)

    def _remove(self, mark: int) -> None:
        """In a thread."""
        unlink = partial(self._unlink, mark)
        try:
            self._index.remove(self.digest, unlink)
        except StorageError:
            unlink()
            raise

    def _unlink(self, mark: int) -> bool:
        with explained("remove", self._path):
            with suppress(OSError):  # a disk that is read-only keeps the name as well
                holds.put_mark(self._file.owner, mark)
            if files.names(self._tree.blob(self.digest), os.fstat(self._file.owner)):
                os.unlink(self._tree.blob(self.digest))  # its name could not be made durable
            return disk.unlink(self._path)

    async def release(self) -> None:
        if not self._ended:
            await shielded(self._in_turn(self._release()))

    async def _release(self) -> None:
        await self._idle()
        if self._ended:
            return
        kept = self._writing.position
        if not kept:
            await self._withdraw(State.WITHDRAWN)
            return
        try:
            await self._in_thread(self._sync, kept)
        except StorageError as error:
            self._log.warn("{digest} would not survive a power cut: {error}", digest=self.digest, error=error)
        finally:
            self._end(State.RELEASED)

    def _sync(self, kept: int) -> None:
        """In a thread: what is left for the next writer is made durable, and noted so."""
        with explained("sync", self._path):
            os.fsync(self._file.owner)
        self._index.synced(self.digest, kept)

    def _end(self, state: State) -> None:
        """Let others own it, then tell those who wait: they may claim it at once."""
        self._ended = True
        if self._beat is not None:
            self._beat.cancel()
        self._view.owned = False
        os.close(self._file.owner)
        self._view.update(state=state)
        if self._view.awaited and self._view.watch is not None:
            self._view.watch.start()  # who waits goes on waiting for the next writer
        self._view.let_go()


def _touch(path: str) -> None:
    with suppress(OSError):  # it was just renamed
        os.utime(path)

"""The bytes of one blob as this process sees them, and the readers of them.

The law: all readers of a blob in this process share one BlobView, hence one descriptor, one lock
and, when another process writes it, one watch.  What they may hand out is `readable`, which
stays below the size until the bytes are verified.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from docxy.names import Digest
from docxy.page_cache import NOWAIT, read_in_memory
from docxy.storage import disk, holds
from docxy.storage.disk import explained
from docxy.storage.interfaces import IBlobReader, State, StorageError
from docxy.threads import InThread, shielded

if TYPE_CHECKING:
    from hashlib import _Hash

_AT_ONCE = 1 << 18
"""Bytes that are copied from the page cache on the reactor's thread in one go."""


class IWatch(Protocol):
    """Finds out what another process does to a BlobView."""

    def look(self) -> None:
        """Bring the BlobView up to date."""

    def start(self) -> None:
        """Somebody waits for a change: keep looking until `stop`."""

    def stop(self) -> None: ...

    async def learn_size(self) -> None:
        """Find out the announced size."""


class Changes:
    """Those who wait for the next change."""

    def __init__(self) -> None:
        self._waiting: dict[Deferred[None], None] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wait(self) -> Deferred[None]:
        """Fires at the next change; may be cancelled."""
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting[waiting] = None
        return waiting

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiting.pop(waiting, None)

    def fire(self) -> None:
        """Something changed."""
        waiting, self._waiting = self._waiting, {}
        for one in waiting:
            if not one.called:
                one.callback(None)


def readable(size: int | None, written: int, state: State) -> int:
    """How many bytes may be handed out."""
    if state is State.VERIFIED:
        return written if size is None else size
    return max(0, min(written, (written if size is None else size) - 1))


@define(eq=False)
class BlobView:
    """Used by readers and by the writer; closed when the last of them has let go."""

    digest: Digest
    descriptor: int
    """Open for reading; holds the file (`docxy.storage.holds`), by a shared lock once the blob is committed."""
    size: int | None
    written: int
    state: State
    unused: Callable[[BlobView], None]
    """Called when the last user has let go."""
    owned: bool = False
    """Whether a writer of this process is at work; then there is nothing to watch."""
    watch: IWatch | None = None
    nowait: bool = bool(NOWAIT)
    _changes: Changes = field(init=False, factory=Changes)
    _users: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        if self.state is not State.VERIFIED:  # a committed blob is held by its shared lock
            holds.hold(self.descriptor)

    @property
    def readable(self) -> int:
        return readable(self.size, self.written, self.state)

    def is_of(self, descriptor: int) -> bool:
        """Whether another descriptor is of the very same file."""
        return os.path.sameopenfile(self.descriptor, descriptor)

    @property
    def is_sound(self) -> bool:
        """Whether a committed blob's file still is as large as it was.  Raises OSError."""
        return os.fstat(self.descriptor).st_size == self.size

    @property
    def closed(self) -> bool:
        return self.descriptor < 0

    def hold(self) -> None:
        """One more uses it; each use ends with `let_go`."""
        self._users += 1

    def let_go(self) -> None:
        """One less uses it; with the last one it is closed."""
        self._users -= 1
        if self._users == 0:
            if self.watch is not None:
                self.watch.stop()
            self.unused(self)
            os.close(self.descriptor)
            self.descriptor = -1

    def update(self, *, size: int | None = None, written: int | None = None, state: State | None = None) -> None:
        """Take in what is new; tell those who wait, if anything is."""
        before = (self.size, self.readable, self.state)
        self.size = self.size if size is None else size
        self.written = self.written if written is None else written
        self.state = state or self.state
        if before != (self.size, self.readable, self.state):
            self._changes.fire()

    def changed(self) -> Deferred[None]:
        waiting = self._changes.wait()
        if self.watch is not None and not self.owned:
            self.watch.start()
        return waiting

    @property
    def awaited(self) -> bool:
        return bool(self._changes)


@implementer(IBlobReader)
@define(eq=False)
class FileReader:
    """One reader of a BlobView."""

    _view: BlobView
    _in_thread: InThread
    _closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._view.hold()

    @property
    def digest(self) -> Digest:
        return self._view.digest

    @property
    def size(self) -> int | None:
        return self._view.size

    @property
    def readable(self) -> int:
        return self._view.readable

    @property
    def state(self) -> State:
        return self._view.state

    async def read(self, offset: int, length: int) -> bytes:
        wanted = min(length, self._view.readable - offset)
        if wanted <= 0:
            return b""
        if self._closed:
            raise StorageError(f"the reader of {self.digest} is closed")
        view = self._view
        if view.nowait:
            data = _from_page_cache(view, offset, min(wanted, _AT_ONCE))
            if data:
                return data
        view.hold()  # the descriptor must outlive the thread's work, though nobody waits for it
        return await shielded(self._from_disk(view, offset, wanted))

    async def _from_disk(self, view: BlobView, offset: int, length: int) -> bytes:
        try:
            with explained("read", str(view.digest)):
                data = await self._in_thread(os.pread, view.descriptor, length, offset)
        finally:
            view.let_go()
        if not data:
            raise StorageError(f"the file of {view.digest} was cut short at {offset} of {view.size} bytes")
        return data

    async def hashed(self, count: int) -> _Hash:
        view, hasher = self._view, self.digest.hasher()
        view.hold()
        return await shielded(self._hash(view, count, hasher))

    async def _hash(self, view: BlobView, count: int, hasher: _Hash) -> _Hash:
        try:
            with explained("read", str(view.digest)):
                got = await self._in_thread(disk.hash_range, view.descriptor, 0, count, hasher)
        finally:
            view.let_go()
        if got < count:
            raise StorageError(f"the file of {view.digest} was cut short at {got} of {count} bytes")
        return hasher

    def changed(self) -> Deferred[None]:
        return self._view.changed()

    def same(self, other: IBlobReader) -> bool:
        return isinstance(other, FileReader) and other._view is self._view

    def fileno(self) -> int | None:
        return None if self._closed else self._view.descriptor

    def again(self) -> IBlobReader:
        return FileReader(self._view, self._in_thread)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._view.let_go()


def _from_page_cache(view: BlobView, offset: int, length: int) -> bytes:
    """What can be had without waiting for the disk; nothing if nothing can."""
    buffer = bytearray(length)
    try:
        got = read_in_memory(view.descriptor, buffer, offset)
    except BlockingIOError:
        return b""
    except OSError:  # this file system cannot tell: its reads may block
        view.nowait = False
        return b""
    return bytes(buffer) if got == length else bytes(memoryview(buffer)[:got])

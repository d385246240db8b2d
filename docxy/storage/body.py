"""The bytes of one blob as this process sees them, and the readers of them.

The law: all readers of a blob in this process share one Body, hence one descriptor, one lock
and, when another process writes it, one watch.  What they may hand out is `readable`, which
stays below the size until the bytes are verified.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from docxy.names import Digest
from docxy.storage.files import explained
from docxy.storage.interfaces import IBlobReader, State, StorageError
from docxy.storage.threads import InThread, shielded

_AT_ONCE = 1 << 18
"""Bytes that are copied from the page cache on the reactor's thread in one go."""

_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class IWatch(Protocol):
    """Finds out what another process does to a Body."""

    def look(self) -> None:
        """Bring the Body up to date."""

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
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting[waiting] = None
        return waiting

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiting.pop(waiting, None)

    def fire(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in waiting:
            if not one.called:
                one.callback(None)


def readable(size: int | None, written: int, state: State) -> int:
    """How many bytes may be handed out."""
    if size is None:
        return 0
    return size if state is State.VERIFIED else max(0, min(written, size - 1))


@define(eq=False)
class Body:
    """Used by readers and by the writer; closed when the last of them has let go."""

    digest: Digest
    descriptor: int
    """Open for reading; holds the shared lock once the blob is committed."""
    size: int | None
    written: int
    state: State
    unused: Callable[[Body], None]
    """Called when the last user has let go."""
    owned: bool = False
    """Whether a writer of this process is at work; then there is nothing to watch."""
    watch: IWatch | None = None
    nowait: bool = bool(_NOWAIT)
    identity: tuple[int, int] = field(init=False)
    _changes: Changes = field(init=False, factory=Changes)
    _users: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        found = os.fstat(self.descriptor)
        self.identity = (found.st_dev, found.st_ino)

    @property
    def readable(self) -> int:
        return readable(self.size, self.written, self.state)

    @property
    def closed(self) -> bool:
        return self.descriptor < 0

    def hold(self) -> None:
        self._users += 1

    def let_go(self) -> None:
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
    """One reader of a Body."""

    _body: Body
    _in_thread: InThread
    _closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._body.hold()

    @property
    def digest(self) -> Digest:
        return self._body.digest

    @property
    def size(self) -> int | None:
        return self._body.size

    @property
    def readable(self) -> int:
        return self._body.readable

    @property
    def state(self) -> State:
        return self._body.state

    async def read(self, offset: int, length: int) -> bytes:
        wanted = min(length, self._body.readable - offset)
        if wanted <= 0:
            return b""
        if self._closed:
            raise StorageError(f"the reader of {self.digest} is closed")
        body = self._body
        if body.nowait:
            data = _from_page_cache(body, offset, min(wanted, _AT_ONCE))
            if data:
                return data
        body.hold()  # the descriptor must outlive the thread's work, whoever waits for it
        return await shielded(self._from_disk(body, offset, wanted))

    async def _from_disk(self, body: Body, offset: int, length: int) -> bytes:
        try:
            with explained("read", str(body.digest)):
                data = await self._in_thread(os.pread, body.descriptor, length, offset)
        finally:
            body.let_go()
        if not data:
            raise StorageError(f"the file of {body.digest} was cut short at {offset} of {body.size} bytes")
        return data

    def changed(self) -> Deferred[None]:
        return self._body.changed()

    def fileno(self) -> int | None:
        return None if self._closed else self._body.descriptor

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._body.let_go()


def _from_page_cache(body: Body, offset: int, length: int) -> bytes:
    """What can be had without waiting for the disk; nothing if nothing can."""
    buffer = bytearray(length)
    try:
        got = os.preadv(body.descriptor, [buffer], offset, _NOWAIT)
    except BlockingIOError:
        return b""
    except OSError:  # this file system cannot tell: its reads may block
        body.nowait = False
        return b""
    return bytes(buffer) if got == length else bytes(memoryview(buffer)[:got])

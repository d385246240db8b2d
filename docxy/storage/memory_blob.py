"""A blob in memory, its readers, and bytes without a name.

The law: a reader shares the bytes of its blob, and may hand out no more of them than `view.readable` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from docxy.names import Digest
from docxy.storage.interfaces import (
    IBlobReader,
    IScratch,
    State,
    StorageError,
)
from docxy.storage.view import Changes, readable

if TYPE_CHECKING:
    from hashlib import _Hash


@define(eq=False)
class MemoryBlob:
    """One blob or fill."""

    digest: Digest
    size: int | None = None
    data: bytearray = field(factory=bytearray)
    state: State = State.RELEASED
    room: int = 0
    """Bytes that it may grow to; what is counted of it."""
    last_used: float = 0.0
    readers: int = 0
    changes: Changes = field(factory=Changes)

    @property
    def in_use(self) -> bool:
        return self.state is State.FILLING or self.readers > 0

    @property
    def wanted(self) -> int:
        """Bytes that it will take in the end, as far as that is known."""
        return max(self.room, self.size or 0) if self.state is State.FILLING else self.room

    def update(self, state: State) -> None:
        self.state = state
        self.changes.fire()


@implementer(IBlobReader)
@define(eq=False)
class MemoryReader:
    """One reader of what is held."""

    _held: MemoryBlob
    _closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._held.readers += 1

    @property
    def digest(self) -> Digest:
        return self._held.digest

    @property
    def size(self) -> int | None:
        return self._held.size

    @property
    def readable(self) -> int:
        return readable(self._held.size, len(self._held.data), self._held.state)

    @property
    def state(self) -> State:
        return self._held.state

    async def read(self, offset: int, length: int) -> bytes:
        wanted = min(length, self.readable - offset)
        if wanted <= 0:
            return b""
        if self._closed:
            raise StorageError(f"the reader of {self.digest} is closed")
        with memoryview(self._held.data) as data:
            return bytes(data[offset : offset + wanted])

    async def hashed(self, count: int) -> _Hash:
        hasher = self.digest.hasher()
        hasher.update(self._held.data[:count])
        return hasher

    def same(self, other: IBlobReader) -> bool:
        return isinstance(other, MemoryReader) and other._held is self._held

    def changed(self) -> Deferred[None]:
        return self._held.changes.wait()

    def fileno(self) -> int | None:
        return None

    def again(self) -> IBlobReader:
        return MemoryReader(self._held)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._held.readers -= 1


@implementer(IScratch)
@define(eq=False)
class MemoryScratch:
    """Made by MemoryStore.scratch."""

    _data: bytearray = field(factory=bytearray)

    async def append(self, data: bytes) -> None:
        self._data += data

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    def close(self) -> None:
        self._data = bytearray()

"""Blobs in memory, of this process only: for tests and for small caches.

The law is the one of every store (`docxy.storage.interfaces`); nothing survives the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from docxy.names import Digest
from docxy.storage.body import Changes, readable
from docxy.storage.interfaces import (
    BlobMissing,
    BlobStat,
    DigestMismatch,
    IBlobReader,
    IBlobStore,
    IBlobWriter,
    IScratch,
    NoSpace,
    State,
    StorageError,
    WriterBusy,
)

if TYPE_CHECKING:
    from hashlib import _Hash


@define(eq=False)
class Held:
    """One blob or fill."""

    digest: Digest
    size: int | None = None
    data: bytearray = field(factory=bytearray)
    state: State = State.RELEASED
    last_used: float = 0.0
    readers: int = 0
    changes: Changes = field(factory=Changes)

    @property
    def in_use(self) -> bool:
        return self.state is State.FILLING or (self.state is State.VERIFIED and self.readers > 0)

    def update(self, state: State) -> None:
        self.state = state
        self.changes.fire()


@implementer(IBlobReader)
@define(eq=False)
class MemoryReader:
    """One reader of what is held."""

    _held: Held
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

    def changed(self) -> Deferred[None]:
        return self._held.changes.wait()

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._held.readers -= 1


@implementer(IBlobWriter)
@define(eq=False)
class MemoryWriter:
    """Made by MemoryStore.write; owns the fill until one of commit, cancel, release."""

    _store: MemoryStore
    _held: Held
    _hasher: _Hash
    _announced: bool = field(init=False, default=False)
    _ended: bool = field(init=False, default=False)

    @property
    def digest(self) -> Digest:
        return self._held.digest

    @property
    def offset(self) -> int:
        return len(self._held.data)

    @property
    def size(self) -> int | None:
        return self._held.size

    def open(self) -> IBlobReader:
        return MemoryReader(self._held)

    async def announce(self, size: int) -> None:
        self._must_go_on()
        if self._held.size not in (None, size):
            old = self._held
            self._held = self._store.renew(self.digest)
            self._hasher = self.digest.hasher()
            old.update(State.CANCELLED)
        self._store.reserve(self._held, size)
        self._announced = True
        self._held.changes.fire()

    async def write(self, data: bytes) -> None:
        self._must_go_on()
        if not self._announced or self.size is None:
            raise ValueError("announce the size before the first byte")
        if self.offset + len(data) > self.size:
            await self.cancel()
            raise DigestMismatch(f"more than the {self.size} bytes announced for {self.digest}")
        self._held.data += data
        self._hasher.update(data)
        self._held.changes.fire()

    async def commit(self) -> None:
        self._must_go_on()
        if self.offset != self.size or not self.digest.matches(self._hasher):
            offset = self.offset
            await self.cancel()
            raise DigestMismatch(f"{offset} of {self.size} bytes were written, and they are not {self.digest}")
        self._ended = True
        self._store.used_now(self._held)
        self._held.update(State.VERIFIED)

    async def cancel(self) -> None:
        if not self._ended:
            self._ended = True
            self._store.drop(self._held)
            self._held.update(State.CANCELLED)

    async def release(self) -> None:
        if not self._ended:
            self._ended = True
            self._held.update(State.RELEASED)

    def _must_go_on(self) -> None:
        if self._ended:
            raise StorageError(f"the fill of {self.digest} has ended")


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


@implementer(IBlobStore)
class MemoryStore:
    """`budget`: bytes that blobs and fills may have together."""

    def __init__(self, budget: int, clock: IReactorTime) -> None:
        self._budget = budget
        self._clock = clock
        self._last_use = 0.0
        self._held: dict[Digest, Held] = {}

    def start(self) -> None:
        """Nothing to open; here because every store has it."""

    async def stop(self) -> None:
        """Nothing to write down."""

    async def stat(self, digest: Digest) -> BlobStat | None:
        held = self._held.get(digest)
        return _stat(held) if held is not None and held.state is State.VERIFIED else None

    def touch(self, digest: Digest) -> None:
        held = self._held.get(digest)
        if held is not None:
            self.used_now(held)

    async def open(self, digest: Digest) -> IBlobReader:
        held = self._held.get(digest)
        if held is None or held.state not in (State.VERIFIED, State.FILLING):
            raise BlobMissing(f"{digest} is not in memory")
        self.used_now(held)
        return MemoryReader(held)

    async def write(self, digest: Digest) -> IBlobWriter:
        held = self._held.get(digest)
        if held is None:
            held = self.renew(digest)
        elif held.state is not State.RELEASED:
            raise WriterBusy(f"{digest} is {held.state.value}")
        hasher = digest.hasher()
        hasher.update(held.data)
        held.update(State.FILLING)
        return MemoryWriter(self, held, hasher)

    async def delete(self, digest: Digest) -> bool:
        held = self._held.get(digest)
        if held is None or held.state is not State.VERIFIED:
            return False
        self.drop(held)
        return True

    async def scratch(self) -> IScratch:
        return MemoryScratch()

    async def list(self) -> AsyncIterator[BlobStat]:
        for held in [*self._held.values()]:
            if held.state is State.VERIFIED:
                yield _stat(held)

    async def used(self) -> int:
        """Bytes of all blobs and of all that is reserved for fills."""
        return sum(held.size or 0 for held in self._held.values())

    # -- for the writers

    def renew(self, digest: Digest) -> Held:
        """Nothing yet, in the place of what there was."""
        held = self._held[digest] = Held(digest, state=State.FILLING)
        return held

    def used_now(self, held: Held) -> None:
        self._last_use = max(self._clock.seconds(), self._last_use + 1e-6)
        held.last_used = self._last_use

    def reserve(self, held: Held, size: int) -> None:
        """Evict until `size` bytes fit.  Raises NoSpace, and then has evicted nothing."""
        others = [other for other in self._held.values() if other is not held]
        short = sum(other.size or 0 for other in others) + size - self._budget
        victims = []
        for other in sorted(others, key=lambda other: other.last_used):
            if short > 0 and other.size and not other.in_use:
                victims.append(other)
                short -= other.size
        if short > 0:
            raise NoSpace(f"no room for {size} bytes in memory: {short} are missing")
        for victim in victims:
            self.drop(victim)
            if victim.state is State.RELEASED:
                victim.update(State.CANCELLED)
        held.size = size
        self.used_now(held)

    def drop(self, held: Held) -> None:
        if self._held.get(held.digest) is held:
            del self._held[held.digest]


def _stat(held: Held) -> BlobStat:
    return BlobStat(held.digest, len(held.data), held.last_used)

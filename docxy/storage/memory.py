"""Blobs in memory, of this process only: for tests and for small caches.

The law is the one of every store (`docxy.storage.interfaces`); nothing survives the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from docxy.names import Digest
from docxy.settings.model import HISTORY_SHARE
from docxy.storage.interfaces import (
    PINNED_SHARE,
    STEP,
    UNSIZED_STEP,
    BlobStat,
    DigestMismatch,
    IBlobReader,
    IBlobStore,
    IBlobWriter,
    IScratch,
    Joined,
    NoSpace,
    Pinned,
    State,
    StorageError,
)
from docxy.storage.large import Large
from docxy.storage.memory_blob import MemoryBlob, MemoryReader, MemoryScratch

if TYPE_CHECKING:
    from hashlib import _Hash


@implementer(IBlobWriter)
@define(eq=False)
class MemoryWriter:
    """Made by MemoryStore.join; owns the fill until one of commit, cancel, reject, release."""

    _store: MemoryStore
    _held: MemoryBlob
    _hasher: _Hash
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
            await self.discard()
        self._store.admit(self._held, size)
        self._held.changes.fire()

    async def write(self, data: bytes) -> None:
        self._must_go_on()
        if self.size is not None and self.offset + len(data) > self.size:
            await self.reject()
            raise DigestMismatch(f"more than the {self.size} bytes announced for {self.digest}")
        self._store.grow(self._held, self.offset + len(data))
        self._held.data += data
        self._hasher.update(data)
        self._held.changes.fire()

    async def commit(self) -> None:
        self._must_go_on()
        if self.size not in (None, self.offset) or not self.digest.matches(self._hasher):
            offset = self.offset
            await self.reject()
            raise DigestMismatch(f"{offset} of {self.size} bytes were written, and they are not {self.digest}")
        self._ended = True
        self._held.size = self.offset
        self._store.used_now(self._held)
        self._held.update(State.VERIFIED)

    async def discard(self) -> None:
        self._must_go_on()
        old = self._held
        self._held = self._store.renew(self.digest)
        self._hasher = self.digest.hasher()
        old.update(State.WITHDRAWN)

    async def cancel(self) -> None:
        self._withdraw(State.WITHDRAWN)

    async def reject(self) -> None:
        self._withdraw(State.WRONG)

    def _withdraw(self, state: State) -> None:
        if not self._ended:
            self._ended = True
            self._store.drop(self._held)
            self._held.update(state)

    async def release(self) -> None:
        if not self.offset:
            await self.cancel()
        elif not self._ended:
            self._ended = True
            self._held.update(State.RELEASED)

    def _must_go_on(self) -> None:
        if self._ended:
            raise StorageError(f"the fill of {self.digest} has ended")


@implementer(IBlobStore)
class MemoryStore:
    """`budget`: bytes that blobs and fills may have together; `large`: what large ones may."""

    def __init__(self, budget: int, clock: IReactorTime, large: Large | None = None) -> None:
        self._budget = budget
        self._large = large or Large()
        self._clock = clock
        self._last_use = 0.0
        self._held: dict[Digest, MemoryBlob] = {}
        self._pinned: frozenset[Digest] = frozenset()
        self._remembered: dict[Digest, float] = {}

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

    def remember(self, digest: Digest, until: float, parts: Sequence[Digest]) -> None:
        self._remembered = {each: at for each, at in self._remembered.items() if at > self._clock.seconds()}
        for each in (digest, *parts):
            self._remembered[each] = max(until, self._remembered.get(each, 0.0))

    def belongs(self, digest: Digest, parts: Sequence[Digest]) -> None:
        until = self._remembered.get(digest)
        if until is not None:
            self.remember(digest, until, parts)

    async def open(self, digest: Digest) -> IBlobReader | None:
        held = self._held.get(digest)
        if held is None or held.state is State.RELEASED:
            return None
        self.used_now(held)
        return MemoryReader(held)

    async def join(self, digest: Digest) -> Joined:
        reader = await self.open(digest)
        if reader is not None:
            return Joined(reader, None)
        held = self._held.get(digest) or self.renew(digest)
        hasher = digest.hasher()
        hasher.update(held.data)
        held.update(State.FILLING)
        writer = MemoryWriter(self, held, hasher)
        return Joined(writer.open(), writer)

    async def pin(self, digests: Sequence[Digest]) -> Pinned:
        kept = wanted = 0
        pinned = set()
        for digest in dict.fromkeys(digests):
            room = self._held[digest].room if digest in self._held else 0
            wanted += room
            if wanted <= PINNED_SHARE * self._budget:
                kept += room
                pinned.add(digest)
        self._pinned = frozenset(pinned)
        return Pinned(kept, wanted)

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
        return sum(held.room for held in self._held.values())

    # -- for the writers

    def renew(self, digest: Digest) -> MemoryBlob:
        """Nothing yet, in the place of what there was."""
        held = self._held[digest] = MemoryBlob(digest, state=State.FILLING)
        return held

    def used_now(self, held: MemoryBlob) -> None:
        self._last_use = max(self._clock.seconds(), self._last_use + 1e-6)
        held.last_used = self._last_use

    def admit(self, held: MemoryBlob, size: int) -> None:
        """Raises NoSpace if there cannot be room for all of it, and then has evicted nothing."""
        others = sum(other.wanted for other in self._held.values() if other is not held)
        staying = others - sum(victim.room for victim in self._victims(held, size, size))
        if staying + size > self._budget:
            raise NoSpace(f"no room for {size} bytes in memory: {staying} are in use, pinned or not large")
        held.size = size
        self._take(held, min(size, STEP))

    def grow(self, held: MemoryBlob, count: int) -> None:
        """Evict until `count` bytes of a fill fit.  Raises NoSpace."""
        if count > held.room:
            self._take(held, count + UNSIZED_STEP if held.size is None else min(count + STEP, held.size))

    def _take(self, held: MemoryBlob, room: int) -> None:
        others = [other for other in self._held.values() if other is not held]
        short = sum(other.room for other in others) + room - self._budget
        for victim in self._victims(held, held.size, room):
            if short > 0:
                self.drop(victim)
                victim.update(State.WITHDRAWN)
                short -= victim.room
        if short > 0:
            raise NoSpace(f"no room for {room} bytes in memory: {short} are missing")
        held.room = room
        self.used_now(held)

    def _stays(self, held: MemoryBlob) -> bool:
        return held.in_use or held.digest in self._pinned

    def _victims(self, held: MemoryBlob, size: int | None, room: int) -> Sequence[MemoryBlob]:
        """What may be evicted so that a fill has this room, as it is evicted; see `docxy.storage.large`."""
        others = [other for other in self._held.values() if other is not held]
        claimed = self._large.claim(size, room, room)
        large = [other for other in others if self._large.claim(other.size, other.room, 0) is not None]
        over = self._large.over(self._budget, sum(other.room for other in large) + (claimed or 0))
        first: Sequence[MemoryBlob] = []
        for other in sorted(large, key=lambda other: other.last_used):
            if over > 0 and not self._stays(other):
                first = [*first, other]
                over -= other.room
        if claimed is not None and over > 0:
            return first
        rest = [other for other in self._in_order(others) if other not in first and not self._stays(other)]
        return [*first, *rest]

    def _in_order(self, others: Sequence[MemoryBlob]) -> Sequence[MemoryBlob]:
        """As they are evicted; see `docxy.storage.remembered`."""
        now = self._clock.seconds()
        first: Sequence[MemoryBlob] = []
        late: Sequence[MemoryBlob] = []
        over = -int(self._budget * HISTORY_SHARE)
        over += sum(other.room for other in others if self._remembered.get(other.digest, 0.0) > now)
        for other in sorted(others, key=lambda other: other.last_used):
            is_remembered = self._remembered.get(other.digest, 0.0) > now
            if is_remembered and over <= 0:
                late = [*late, other]
                continue
            over -= other.room if is_remembered else 0
            first = [*first, other]
        return [*first, *late]

    def drop(self, held: MemoryBlob) -> None:
        if self._held.get(held.digest) is held:
            del self._held[held.digest]


def _stat(held: MemoryBlob) -> BlobStat:
    return BlobStat(held.digest, len(held.data), held.last_used)

"""What is cached goes into the archive, behind the clients' backs.

The law: *what is to be put is what the index says, and nothing waits for it.*  So a restart forgets nothing, and a
blob of any process is put by the one that does this.  A few at a time, at a bounded rate; an archive that fails is
left alone for a while; a blob that fails again and again while others do not rests for hours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cachetools import LRUCache, TTLCache
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from docxy.archive.calm import CalmArchive
from docxy.archive.interfaces import ArchiveError
from docxy.names import Digest
from docxy.storage.interfaces import IBlobStore, State
from docxy.storage.ledger import Ledger

PAGE = 100
"""Blobs that are looked up at a time."""
ATTEMPTS = 5
"""How often a blob is tried before it rests."""
RESTS_FOR = 6 * 3600.0
"""Seconds."""
MOST_NOTED = 10_000
"""Blobs of which failures are remembered."""
_SHORTEST, _LONGEST = 2.0, 300.0
"""Seconds without a put after one that failed; doubled while they fail."""


class Putting:
    """Of one cache and its archive."""

    _log = Logger()

    def __init__(self, archive: CalmArchive, store: IBlobStore, ledger: Ledger, most: int, clock: IReactorTime) -> None:
        """`most`: blobs that are put at once."""
        self._archive = archive
        self._store = store
        self._ledger = ledger
        self._most = most
        self._clock = clock
        self._due = 0.0
        self._pause = _SHORTEST
        self._stopped = False
        self._failures: LRUCache[Digest, int] = LRUCache(MOST_NOTED)
        self._resting: TTLCache[Digest, None] = TTLCache(MOST_NOTED, RESTS_FOR, timer=clock.seconds)
        self.waiting = 0
        """Blobs that were not put yet, as of the last look."""

    async def work(self) -> None:
        """Put all that is not there yet, or until the archive fails.  Raises StorageError."""
        after = ""
        while not self._is_off:
            page = await self._ledger.not_put(after, PAGE)
            if not page:
                break
            after = str(page[-1])
            await self._put_all([digest for digest in page if digest not in self._resting])
        self.waiting = await self._ledger.waiting()

    def stop(self) -> None:
        """Begin no other."""
        self._stopped = True

    @property
    def _is_off(self) -> bool:
        return self._stopped or self._clock.seconds() < self._due

    async def _put_all(self, digests: Sequence[Digest]) -> None:
        left = deque(digests)

        async def some() -> None:
            while left and not self._is_off:
                await self._put(left.popleft())

        await gatherResults([Deferred.fromCoroutine(some()) for _ in range(self._most)], consumeErrors=True)

    async def _put(self, digest: Digest) -> None:
        reader = await self._store.open(digest)
        if reader is None:
            return
        try:
            descriptor = reader.fileno()
            if reader.state is not State.VERIFIED or descriptor is None or reader.size is None:
                return
            # Nobody asks for nothing, and stores have no range of it.
            put = bool(reader.size) and await self._archive.archive.put(digest, descriptor, reader.size)
        except ArchiveError as error:
            self._failed(digest, error)
            return
        finally:
            reader.close()
        self._archive.counts["put", "done" if put else "there"] += 1
        self._archive.moved["put"] += reader.size if put else 0
        self._archive.answered()
        self._pause = _SHORTEST
        self._failures.pop(digest, None)
        await self._ledger.note(digest, archived=True)

    def _failed(self, digest: Digest, error: ArchiveError) -> None:
        if self._stopped:
            return
        self._archive.counts["put", "failed"] += 1
        self._log.warn("{digest} is not in the archive yet: {error}", digest=digest, error=error)
        self._due = self._clock.seconds() + self._pause
        self._pause = min(_LONGEST, 2 * self._pause)
        self._failures[digest] = self._failures.get(digest, 0) + 1
        if self._failures[digest] >= ATTEMPTS:
            del self._failures[digest]
            self._resting[digest] = None

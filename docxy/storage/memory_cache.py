"""Small blobs that were used lately, in memory: manifests and configs, which everybody asks for first.

The law: what is here hashed to its digest when it was read, and a use of it is a use of the blob
in the store, which must not be evicted because nobody reads it there any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from docxy.content import LARGEST_MANIFEST
from docxy.names import Digest
from docxy.single_flight import SingleFlight
from docxy.storage.interfaces import IBlobStore, State, StorageError

SMALL = 256 * 1024
"""Bytes of a blob that is worth a place here, at most."""
BUDGET = 16 * 1024 * 1024
"""Bytes of all of them."""
LOADS = 8
"""Blobs that are read at the same time."""


class MemoryCache:
    """In front of a store."""

    _log = Logger()

    def __init__(self, store: IBlobStore, budget: int = BUDGET) -> None:
        self._store = store
        self._budget = budget
        self._kept: OrderedDict[Digest, bytes] = OrderedDict()
        self._size = 0
        self._forgotten = 0
        """Changes when something is forgotten."""
        self._loading: SingleFlight[Digest, bytes | None] = SingleFlight()
        self._turns = DeferredSemaphore(LOADS)

    def get(self, digest: Digest) -> bytes | None:
        """A blob's bytes, if they are here; a use of it."""
        data = self._kept.get(digest)
        if data is not None:
            self._kept.move_to_end(digest)
            self._store.touch(digest)
        return data

    async def load(self, digest: Digest) -> bytes | None:
        """All bytes of a committed blob, however large; None when it is not there or cannot be read.

        One that is damaged is dropped from the store.
        """
        data = self.get(digest)
        if data is not None:
            return data
        return await self._loading.do(digest, lambda: self._load(digest))

    async def _load(self, digest: Digest) -> bytes | None:
        forgotten = self._forgotten
        # However many are asked for at once: what is half read is in memory, too.
        await self._turns.acquire()
        try:
            data = await self._read(digest)
        finally:
            self._turns.release()
        if data is None:
            return None
        if Digest.of(data, digest.algorithm) != digest:
            self._log.error("{digest} was damaged in the cache; it is fetched again", digest=digest)
            try:
                await self._store.delete(digest)
            except StorageError as error:
                self._log.error("{digest} cannot be dropped: {error}", digest=digest, error=error)
            return None
        if forgotten == self._forgotten:
            self.keep(digest, data)
        return data

    def keep(self, digest: Digest, data: bytes) -> None:
        """These bytes, which hash to the digest, were just used."""
        if len(data) > LARGEST_MANIFEST or digest in self._kept:
            return
        self._kept[digest] = data
        self._size += len(data)
        while self._size > self._budget:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)

    async def forget_all(self, digests: Sequence[str]) -> None:
        """Serve these from here no more; what is being loaded meanwhile is not kept, either."""
        self._forgotten += 1
        for digest in map(Digest.parse, digests):
            dropped = self._kept.pop(digest, None)
            if dropped is not None:
                self._size -= len(dropped)

    async def _read(self, digest: Digest) -> bytes | None:
        try:
            reader = await self._store.open(digest)
        except StorageError as error:
            self._log.error("{digest} cannot be opened in the cache: {error}", digest=digest, error=error)
            return None
        if reader is None:
            return None
        try:
            if reader.state is not State.VERIFIED or reader.size is None:
                return None
            pieces: list[bytes] = []
            done = 0
            while piece := await reader.read(done, reader.size - done):
                pieces.append(piece)
                done += len(piece)
        except StorageError as error:
            self._log.error("{digest} cannot be read from the cache: {error}", digest=digest, error=error)
            return None
        finally:
            reader.close()
        return b"".join(pieces)

"""What vouches for a committed blob's file: the size that it had when its bytes were hashed.

The law: *a file of another size is not the blob*; where the index was lost, docxy hashes the bytes again before
it serves them.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from attrs import field, frozen
from cachetools import LRUCache
from twisted.logger import Logger

from docxy.names import Digest
from docxy.storage import disk
from docxy.storage.check import is_right as hashes_to
from docxy.storage.disk import explained
from docxy.storage.index import Index
from docxy.storage.interfaces import StorageError
from docxy.storage.paths import Tree
from docxy.storage.upkeep import Upkeep
from docxy.storage.uses import Uses
from docxy.threads import InThread

MOST = 20_000
"""Blobs whose size is remembered, so that the index need not be asked."""


@frozen
class CommittedSizes:
    """Those of one store."""

    _log = Logger()

    _tree: Tree
    _index: Index
    _upkeep: Upkeep
    _uses: Uses
    _in_thread: InThread
    _known: MutableMapping[Digest, int] = field(init=False, factory=lambda: LRUCache(MOST))

    def known(self, digest: Digest) -> int | None:
        """What this process remembers."""
        return self._known.get(digest)

    async def expected(self, digest: Digest) -> int | None:
        """The size that a blob had when it was committed; None when the index was lost since."""
        try:
            size = await self._in_thread(self._index.size, digest)
        except StorageError as error:
            self._log.warn("the index does not tell the size of {digest}: {error}", digest=digest, error=error)
            return None
        if size is not None:
            self._known[digest] = size
        return size

    async def is_right(self, digest: Digest, descriptor: int, size: int) -> bool:
        """Whether a committed file hashes to its digest, which is then noted; closes the descriptor."""
        try:
            with explained("check", self._tree.blob(digest)):
                if not await self._in_thread(hashes_to, digest, descriptor, size):
                    return False
                counted = disk.on_disk(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        self._known[digest] = size
        self._upkeep.do(self._upkeep.indexed(self._index.commit, digest, size, counted, self._uses.now()))
        return True

"""The whole store, blob by blob, for operators: no pull asks this.

The law: what takes long is done in slices, each in a thread; the files are looked at only where their bytes are wanted.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from docxy.content import LARGEST_MANIFEST
from docxy.names import Digest
from docxy.storage import check as checks
from docxy.storage import files
from docxy.storage.check import Check
from docxy.storage.disk import explained
from docxy.storage.index import Index
from docxy.storage.interfaces import Counted
from docxy.storage.paths import Tree
from docxy.threads import InThread

PAGE = 2000
"""Rows of the index."""


class StoreSurvey:
    """Of one store; every method raises StorageError."""

    def __init__(self, tree: Tree, index: Index, indexed: InThread) -> None:
        """`indexed`: calls work in a thread, and has an index mended that turns out to be damaged."""
        self._tree = tree
        self._index = index
        self._indexed = indexed

    async def blobs(self) -> AsyncIterator[Counted]:
        """Every committed blob that the index knows, by digest; 100,000 take less than a second."""
        after = ""
        while page := await self._indexed(self._index.counted, after, PAGE):
            for blob in page:
                yield blob
            after = str(page[-1].digest)

    async def read(self, digests: Sequence[Digest]) -> Mapping[Digest, bytes]:
        """The bytes of small blobs, not hashed; those that are not there or cannot be read are left out."""
        return await self._indexed(self._read, digests)

    def _read(self, digests: Sequence[Digest]) -> Mapping[Digest, bytes]:
        found: dict[Digest, bytes] = {}
        for digest in digests:
            with suppress(OSError), open(self._tree.blob(digest), "rb") as file:
                found[digest] = file.read(LARGEST_MANIFEST + 1)
        return found

    async def check(self, digest: Digest, now: float, pause: Callable[[], Awaitable[None]] | None) -> Check | None:
        """Hash a committed blob, and note when; nothing is removed.  None when its file is not there.

        `pause` is awaited between pieces.
        """
        checked = await checks.run(digest, self._tree.blob(digest), self._indexed, pause)
        if checked is not None and checked.passed:
            await self._indexed(self._index.checked, digest, now)
        return checked

    async def is_counted(self, digest: Digest) -> bool:
        """Whether the index knows it."""
        return await self._indexed(self._index.size, digest) is not None

    async def drop_fills(self, before: float, really: bool) -> tuple[int, int]:
        """Drop what interrupted writers left and nobody wrote to since; how many, and the bytes of the disk.

        `before`: in seconds since the epoch; `really`: whether to drop them, or only to count.
        """
        return await self._indexed(self._drop_fills, before, really)

    def _drop_fills(self, before: float, really: bool) -> tuple[int, int]:
        count = freed = 0
        for digest in list(self._tree.fills()):
            path = self._tree.incoming(digest)
            with explained("remove", path):
                found = _abandoned(path, before)
                if found is None:
                    continue
                if really:
                    if files.drop_fill(self._tree, digest) is not None:  # somebody took it up meanwhile
                        continue
                    self._index.remove(digest, lambda: False)
            count += 1
            freed += found
        return count, freed


def _abandoned(path: str, before: float) -> int | None:
    """Bytes on the disk of a fill that nobody owns, and nobody wrote to since; None for any other."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if found.st_mtime >= before or not files.try_lock(descriptor, fcntl.LOCK_EX):
            return None
        return found.st_blocks * 512
    finally:
        os.close(descriptor)

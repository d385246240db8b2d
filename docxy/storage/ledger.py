"""Which blobs of a cache are in the archive, as the index knows it.

The law: *a row says what was done, not what is there*: the archive may have lost a blob that it was given, and have
one that nobody here put.  It is written behind what it tells of, so that after a restart nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from docxy.names import Digest
from docxy.storage.index import Index
from docxy.threads import InThread

_PAGE = "SELECT digest FROM blobs WHERE digest > ? AND committed AND NOT archived ORDER BY digest LIMIT ?"
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM blobs WHERE committed AND NOT archived LIMIT ?)"
_USED = "SELECT digest, last_used FROM blobs WHERE last_used > ? AND committed ORDER BY last_used LIMIT ?"
MOST_COUNTED = 100_000


class Ledger:
    """Of one store; every method raises StorageError."""

    def __init__(self, index: Index, indexed: InThread) -> None:
        """`indexed`: calls work in a thread, and has an index mended that turns out to be damaged."""
        self._index = index
        self._indexed = indexed

    async def not_put(self, after: str, limit: int) -> Sequence[Digest]:
        """Committed blobs that are not known to be in the archive, by digest, from the one that follows `after`."""
        return await self._indexed(self._page, after, limit)

    def _page(self, after: str, limit: int) -> Sequence[Digest]:
        with self._index.reading() as db:
            return [Digest.parse(digest) for (digest,) in db.execute(_PAGE, (after, limit))]

    async def waiting(self) -> int:
        """How many these are, as far as `MOST_COUNTED`."""
        return await self._indexed(self._count)

    def _count(self) -> int:
        with self._index.reading() as db:
            return int(db.execute(_COUNT, (MOST_COUNTED,)).fetchone()[0])

    async def used_since(self, after: float, limit: int) -> Sequence[tuple[Digest, float]]:
        """Committed blobs that were used after this (seconds since the epoch), and when, in that order."""
        return await self._indexed(self._used_since, after, limit)

    def _used_since(self, after: float, limit: int) -> Sequence[tuple[Digest, float]]:
        with self._index.reading() as db:
            return [(Digest.parse(digest), float(used)) for digest, used in db.execute(_USED, (after, limit))]

    async def note(self, digest: Digest, archived: bool) -> None:
        """It is in the archive, or is there no more."""
        await self._indexed(self._note, digest, archived)

    def _note(self, digest: Digest, archived: bool) -> None:
        with self._index.transaction() as db:
            db.execute("UPDATE blobs SET archived = ? WHERE digest = ?", (archived, str(digest)))

"""Blobs as large as a model's, and the share of the budget that is theirs.  Everything here blocks.

The law: *a large blob makes room at others' cost within the share of large ones only.*  Where large blobs hold more, as
they may while nobody else needs the room, they go before all else, what was used least recently first.  So one model
may take the place of other models, never that of every image.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from attrs import frozen

from docxy.settings.model import LARGE_BLOB, LARGE_SHARE

_FROM = """
FROM blobs WHERE (counted >= ?1 OR digest IN (SELECT digest FROM blobs WHERE NOT committed AND size >= ?1))
"""
_TOTAL = f"SELECT coalesce(sum(counted), 0) {_FROM}"
_ROWS = f"SELECT digest, counted {_FROM} AND counted > 0 AND digest NOT IN (SELECT digest FROM pins) ORDER BY last_used"


@frozen
class Large:
    """Which blobs are large, and what they may hold."""

    size: int = LARGE_BLOB
    """Bytes from which a blob is."""
    share: float = LARGE_SHARE
    """Of the budget."""

    def claim(self, size: int | None, count: int, more: int) -> int | None:
        """Bytes by which a fill adds to what large blobs hold; None: it is not large.

        `size`: what was announced; `count`: bytes that it has, and is to have; `more`: how many of these are new.
        """
        return more if max(size or 0, count) >= self.size else None

    def over(self, budget: int, held: int) -> int:
        """Bytes beyond the share."""
        return held - int(budget * self.share)

    def held(self, db: sqlite3.Connection) -> int:
        """Bytes of all that is large, and of fills that will be."""
        return int(db.execute(_TOTAL, (self.size,)).fetchone()[0])

    def in_order(self, db: sqlite3.Connection) -> Iterator[tuple[str, int]]:
        """Large blobs with their bytes, what was used least recently first; none that is pinned."""
        yield from db.execute(_ROWS, (self.size,)).fetchall()

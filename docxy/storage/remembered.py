"""What the history of tags names, and so is evicted late.  Everything here blocks.

The law: *what is remembered goes last, within its share* of the budget (`most`): beyond that, what a tag led to
is evicted as everything is, what was used least recently first.  What a manifest names
is remembered as long as the manifest.  A row says nothing of whether the blob is there.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence

from docxy.names import Digest
from docxy.storage.index import Index

MOST = 200_000
"""Digests that are remembered; those whose time ends first are forgotten first."""
_COUNT_EVERY = 5.0
"""Seconds between two counts of what is remembered."""

_PUT = """
INSERT INTO remembered (digest, until) VALUES (?, ?)
ON CONFLICT (digest) DO UPDATE SET until = max(until, excluded.until)
"""
_ADD = """
INSERT INTO remembered (digest, until) SELECT ?1, until FROM remembered WHERE digest = ?2
ON CONFLICT (digest) DO UPDATE SET until = max(until, excluded.until)
"""
_TRIM = """
DELETE FROM remembered WHERE digest IN (SELECT digest FROM remembered ORDER BY until
    LIMIT max(0, (SELECT count(*) FROM remembered) - ?))
"""
_TOTAL = """
SELECT coalesce(sum(counted), 0) FROM remembered JOIN blobs ON blobs.digest = remembered.digest WHERE until > ?
"""
_ROWS = """
SELECT blobs.digest, counted, coalesce(until, 0) FROM blobs LEFT JOIN remembered ON remembered.digest = blobs.digest
WHERE counted > 0 AND blobs.digest NOT IN (SELECT digest FROM pins) ORDER BY
"""


class Late:
    """The order in which one cache is evicted, as what is remembered makes it.  May be used by many threads."""

    def __init__(self, most: int, seconds: Callable[[], float]) -> None:
        """`most`: bytes that may be held as remembered; `seconds`: the time since the epoch."""
        self._most = most
        self._seconds = seconds
        self._over = 0
        """Bytes that are remembered beyond the share, as far as is known."""
        self._beyond: dict[str, int] = {}
        """Those of the last order that are."""
        self._counted = -_COUNT_EVERY

    def in_order(self, db: sqlite3.Connection, order: str) -> Iterator[tuple[str, int]]:
        """All blobs with their bytes, as they are evicted; `order`: columns."""
        now = self._seconds()
        if time.monotonic() > self._counted + _COUNT_EVERY:
            self._counted = time.monotonic()
            self._over = int(db.execute(_TOTAL, (now,)).fetchone()[0]) - self._most
        late: list[tuple[str, int]] = []
        over, self._beyond = self._over, {}
        for name, counted, until in db.execute(_ROWS + order):
            if until > now and over <= 0:
                late.append((name, counted))
                continue
            if until > now:
                over -= counted
                self._beyond[name] = counted
            yield name, counted
        yield from late

    def evicted(self, name: str) -> None:
        """One of the last order is gone."""
        self._over -= self._beyond.pop(name, 0)


class Remembered(Late):
    """What is remembered of one cache."""

    def __init__(self, index: Index, most: int, seconds: Callable[[], float]) -> None:
        """`most`, `seconds`: see `Late`."""
        Late.__init__(self, most, seconds)
        self._index = index

    def put(self, digest: Digest, until: float, parts: Sequence[Digest]) -> None:
        """A tag led to this manifest, which names these.  Raises StorageError."""
        with self._index.transaction() as db:
            db.executemany(_PUT, [(str(each), until) for each in (digest, *parts)])
            db.execute("DELETE FROM remembered WHERE until <= ?", (self._seconds(),))
            db.execute(_TRIM, (MOST,))

    def add(self, digest: Digest, parts: Sequence[Digest]) -> None:
        """A manifest names these.  Raises StorageError."""
        with self._index.transaction() as db:
            db.executemany(_ADD, [(str(part), str(digest)) for part in parts])
            db.execute(_TRIM, (MOST,))

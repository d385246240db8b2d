"""Which blob goes to make room for another.  Everything here blocks.

The law: *the budget is kept over the rows of the index, and never more than the disk has.*  Room is
made as bytes come, not for what somebody announces; an announcement only finds out whether there
could be room.  What somebody reads or writes stays, and what is pinned.  What was used least recently goes first,
what the history of tags names after all else (`remembered`), what is large and beyond its share before all else
(`large`); when the disk itself is full, fills that nobody is at go even before that.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from twisted.logger import Logger

from docxy.names import Digest
from docxy.storage import files
from docxy.storage.counts import Counts
from docxy.storage.disk import explained, rounded
from docxy.storage.index import Index
from docxy.storage.interfaces import PINNED_SHARE, DiskFull, NoSpace, Pinned, StorageError
from docxy.storage.large import Large
from docxy.storage.paths import Tree
from docxy.storage.remembered import Late, Remembered
from docxy.storage.scratch import write_block

P = ParamSpec("P")
T = TypeVar("T")

SPARE = 16 << 20
"""Bytes of the disk that are left free, for databases and logs; less on a small disk."""
_SPARE_SHARE = 50
"""The spare part of a disk is one in this many, at most."""
_LOOK_EVERY = 5.0
"""Seconds."""
_USE, _DISK = "last_used", "committed, last_used"
"""Who goes first, where the budget is short and where the disk is."""
_RELIEF = 16 << 20
"""Bytes that are freed at least when the disk is full."""


class Eviction:
    """Room for fills, within the budget and the disk.  May be used by many threads."""

    _log = Logger()

    def __init__(
        self, tree: Tree, index: Index, remembered: Remembered, large: Large, budget: int, counts: Counts
    ) -> None:
        """`budget`: bytes that all of the cache directory may take on the disk."""
        self._remembered = remembered
        self._large = large
        self._counts = counts
        self._tree = tree
        self._index = index
        self._budget = budget
        self._bookkeeping = 0
        self._looked = -_LOOK_EVERY

    @property
    def _room(self) -> int:
        """Bytes for blobs and fills: the databases and directories count, too."""
        return self._budget - self._beside()

    def _beside(self) -> int:
        """Bytes of databases and directories; these are hundreds, and looked at now and then only."""
        now = time.monotonic()
        if now > self._looked + _LOOK_EVERY:
            with explained("look at", self._tree.directory):
                self._looked, self._bookkeeping = now, self._tree.bookkeeping()
        return self._bookkeeping

    def used(self) -> int:
        """Bytes of the whole directory on disk, with what is reserved.  Raises StorageError."""
        with explained("look at", self._tree.directory):
            return self._index.used() + self._tree.bookkeeping()

    def free(self) -> int:
        """Bytes that the disk has free for this user, after a block was written to it.

        Raises StorageError where that cannot be.  A full disk is well while something can be evicted.
        """
        try:
            write_block(self._tree)
        except DiskFull:
            with self._index.reading() as db:
                if not self._victims(db, 1, None):
                    raise
        disk = os.statvfs(self._tree.directory)
        return disk.f_bavail * disk.f_frsize

    def admit(self, digest: Digest, size: int | None, first: int, uses: Mapping[Digest, float], now: float) -> None:
        """Take a fill in if there can be room for all of it; make room for its first bytes.

        `size`: what was announced; `uses`: the uses not yet written down.  Raises NoSpace, IndexDamaged, StorageError.
        """
        if size is not None and rounded(size) > self._room:
            raise NoSpace(f"{digest} of {size} bytes is larger than the whole cache ({self._budget} bytes)")
        self._with_room(self._admit, digest, size, rounded(first), uses, now)

    def _admit(self, digest: Digest, size: int | None, first: int, uses: Mapping[Digest, float], now: float) -> None:
        with self._index.transaction() as db:
            self._index.must_be_complete(db)
            self._index.note_uses(db, uses)
            others = self._promised(db, digest)
            wanted = max(first, rounded(size or 0)) - _counted(db, digest)
            claimed = self._large.claim(size, first, wanted)
            short = max(self._missing(db, others + wanted), others + wanted - self._free())
            if short > 0 and not self._victims(db, short, digest, claimed=claimed):
                whose = "" if claimed is None else "of what large_share gives it, "
                raise NoSpace(
                    f"no room for {digest} in {self._tree.directory}: "
                    f"{whose}what is not being read or written would not be enough"
                )
            self._grow(db, digest, size, first, now)

    def grow(self, digest: Digest, size: int | None, count: int, now: float) -> None:
        """Make room for a fill of `count` bytes so far.  Raises NoSpace, StorageError."""
        self._with_room(self._grown, digest, size, rounded(count), now)

    def _grown(self, digest: Digest, size: int | None, count: int, now: float) -> None:
        with self._index.transaction() as db:
            self._index.must_be_complete(db)
            self._grow(db, digest, size, count, now)

    def _grow(self, db: sqlite3.Connection, digest: Digest, size: int | None, count: int, now: float) -> None:
        more = max(0, count - _counted(db, digest))
        claimed = self._large.claim(size, count, more)
        if self._evict(db, self._missing(db, more), digest, claimed=claimed) > 0:
            raise NoSpace(f"no room for {digest} in {self._tree.directory}: the rest is being read or written")
        self._evict(db, more - self._free(), digest, _DISK, claimed)  # if that is not enough, the disk says so
        self._index.put_fill(db, digest, size, count, now)

    def pin(self, digests: Sequence[Digest]) -> Pinned:
        """See `IBlobStore.pin`.  Raises IndexDamaged, StorageError."""
        most = PINNED_SHARE * self._budget
        kept = wanted = 0
        names: list[str] = []
        with self._index.reading() as db:
            before = {name for (name,) in db.execute("SELECT digest FROM pins")}
            for digest in dict.fromkeys(digests):
                counted = _counted(db, digest)
                wanted += counted
                if wanted <= most:
                    kept += counted
                    names.append(str(digest))
        if before != set(names):
            with self._index.transaction() as db:
                db.execute("DELETE FROM pins")
                db.executemany("INSERT INTO pins VALUES (?)", [(name,) for name in names])
        return Pinned(kept, wanted)

    def trim(self) -> None:
        """Evict until the budget is kept: it may have been larger the last time."""
        with self._index.transaction() as db:
            self._index.must_be_complete(db)
            self._evict(db, self._missing(db, 0), None)

    def relieve(self, wanted: int, keep: Digest | None = None) -> bool:
        """Free some of a full disk, within the budget too; whether anything was freed.

        Files go before their rows: a full disk may have no room for a change of the index.  What cannot be
        looked at or removed stays.
        """
        gone: list[Digest] = []
        freed = 0
        with suppress(OSError):
            for digest in self._tree.fills():
                if digest != keep:
                    freed += self._take(digest, gone)
        with suppress(StorageError), self._index.reading() as db:
            for name, _ in self._victims(db, max(wanted, _RELIEF) - freed, keep, partly=True, order=_DISK):
                freed += self._take(Digest.parse(name), gone)
        if gone:
            self._log.warn(
                "the disk of {path} is full: {count} blobs or parts of them were evicted",
                path=self._tree.directory,
                count=len(gone),
            )
        for digest in gone:
            try:
                self._index.remove(digest, lambda: False)
            except StorageError:  # eviction drops the row when it meets it
                break
        return freed > 0

    def _take(self, digest: Digest, gone: list[Digest]) -> int:
        try:
            found = files.evict(self._tree, digest)
        except OSError:
            return 0
        if found:
            gone.append(digest)
            self._counts.evict(found)
        return found

    def _with_room(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do it; if the disk is full, free some of it and do it again."""
        try:
            work(*args, **kwargs)
        except DiskFull:
            if not self.relieve(_RELIEF):
                raise
            work(*args, **kwargs)

    def _promised(self, db: sqlite3.Connection, digest: Digest) -> int:
        """Bytes that other fills in flight were admitted for and have not got yet."""
        rows = db.execute("SELECT digest, size, counted FROM blobs WHERE NOT committed AND size > counted")
        return sum(
            rounded(size) - counted
            for name, size, counted in rows.fetchall()
            if name != str(digest) and not files.evictable(self._tree, Digest.parse(name))
        )

    def _missing(self, db: sqlite3.Connection, more: int) -> int:
        return int(db.execute("SELECT bytes FROM total").fetchone()[0]) + more - self._room

    def _free(self) -> int:
        """Bytes of the disk that may be taken."""
        disk = os.statvfs(self._tree.directory)
        return disk.f_bavail * disk.f_frsize - min(SPARE, disk.f_blocks * disk.f_frsize // _SPARE_SHARE)

    def _evict(
        self,
        db: sqlite3.Connection,
        short: int,
        keep: Digest | None,
        order: str = _USE,
        claimed: int | None = None,
    ) -> int:
        """Bytes still missing; not above 0 when all went well.  `claimed`: as `_in_order` has it."""
        while short > 0:
            before = short
            for name, counted in self._victims(db, short, keep, partly=True, order=order, claimed=claimed):
                digest = Digest.parse(name)
                # What looked free may be in use a moment later.
                freed = files.evict(self._tree, digest)
                if freed:
                    self._counts.evict(freed)
                if freed or files.evictable(self._tree, digest):
                    db.execute("DELETE FROM blobs WHERE digest = ?", (name,))
                    self._remembered.evicted(name)
                    short -= counted
            if short == before:
                break
        return short

    def _victims(
        self,
        db: sqlite3.Connection,
        short: int,
        keep: Digest | None,
        partly: bool = False,
        order: str = _USE,
        claimed: int | None = None,
    ) -> list[tuple[str, int]]:
        """Enough blobs in their order; none, unless `partly`, if all are not enough."""
        victims = []
        for name, counted in self._in_order(db, keep, order, claimed):
            if short <= 0:
                break
            victims.append((name, counted))
            short -= counted
        return victims if partly or short <= 0 else []

    def _in_order(
        self, db: sqlite3.Connection, keep: Digest | None, order: str, claimed: int | None
    ) -> Iterator[tuple[str, int]]:
        """`claimed`: bytes by which `keep` adds to what large blobs hold, if it is one."""
        return in_order(
            db, self._budget, self._large, self._remembered, partial(self._may_go, keep=keep), order, claimed
        )

    def _may_go(self, name: str, keep: Digest | None = None) -> bool:
        return name != str(keep) and files.evictable(self._tree, Digest.parse(name))


def in_order(
    db: sqlite3.Connection,
    budget: int,
    large: Large,
    remembered: Late,
    may_go: Callable[[str], bool],
    order: str = _USE,
    claimed: int | None = None,
) -> Iterator[tuple[str, int]]:
    """What may be evicted, with its bytes, what goes first before the others.

    `claimed`: bytes by which room for a large blob adds to what large ones hold; then nothing but large ones goes for
    what is beyond their share.
    """
    over = large.over(budget, large.held(db) + (claimed or 0))
    taken: set[str] = set()
    for name, counted in large.in_order(db) if over > 0 else ():
        if over > 0 and may_go(name):
            taken.add(name)
            over -= counted
            yield name, counted
    if claimed is not None and over > 0:
        return
    for name, counted in remembered.in_order(db, order):
        if name not in taken and may_go(name):
            yield name, counted


def _counted(db: sqlite3.Connection, digest: Digest) -> int:
    row = db.execute("SELECT counted FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
    return 0 if row is None else int(row[0])

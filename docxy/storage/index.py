"""What is in the cache, counted: an SQLite table shared by all processes.  Everything here blocks.

The law: *a blob has a row before its file grows, and keeps it until its file is gone.*  So the
sum of all rows is never less than what is on disk, even if a process dies at any moment,
and a budget kept over the rows (`docxy.storage.eviction`) is kept over the disk.  The other way
round, a row whose file has gone is dropped when eviction meets it, and a file without a row gets
one when it is used.  Nothing is ever served because of a row: the files are the truth.

What is counted is what the disk gives for it: blocks, not bytes.  A size that nobody knows is
NULL; the length of a fill so far is not its size.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from attrs import frozen
from twisted.logger import Logger

from docxy import database
from docxy.names import Digest
from docxy.storage import disk, files
from docxy.storage.disk import explained, rounded
from docxy.storage.interfaces import BlobStat, Counted, DiskFull, StorageError
from docxy.storage.paths import Tree
from docxy.storage.schema import SCHEMA

_PUT = """
INSERT INTO blobs (digest, size, counted, committed, last_used, checked) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET size = coalesce(excluded.size, size), counted = excluded.counted,
    committed = excluded.committed, last_used = max(last_used, excluded.last_used),
    checked = max(checked, excluded.checked)
"""
_GROW = """
INSERT INTO blobs (digest, size, counted, committed, last_used, boot) VALUES (?, ?, ?, FALSE, ?, ?)
ON CONFLICT (digest) DO UPDATE SET size = excluded.size, counted = max(counted, excluded.counted), committed = FALSE,
    last_used = max(last_used, excluded.last_used), boot = excluded.boot,
    synced = CASE WHEN boot = excluded.boot THEN synced ELSE 0 END
"""

_PATIENCE = 30.0
"""Seconds to wait for another process's transaction; it may be removing large files."""

_log = Logger()


class IndexDamaged(StorageError):
    """The index cannot be read, or does not know all blobs yet; `Index.rebuild` mends it."""


@frozen
class KeptFill:
    """What is known of an interrupted fill."""

    size: int | None
    """The size that was announced for it."""
    trusted: int
    """Bytes from its start that a loss of power cannot have changed."""


class Index:
    """The table and its sum.  May be used by many threads."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._damaged: tuple[int, int] | None = None

    # -- life

    def open(self) -> None:
        """Raises IndexDamaged when `rebuild` is needed, StorageError."""
        with self._lock, self._explained():
            self.must_be_complete(self._connected())

    def close(self) -> None:
        """The next use opens it again."""
        with self._lock:
            if self._db is not None:
                with suppress(sqlite3.Error):
                    self._db.close()
                self._db = None

    # -- reading

    def used(self) -> int:
        """Bytes on disk of all blobs, and of all that is reserved for fills."""
        with self.reading() as db:
            return int(db.execute("SELECT bytes FROM total").fetchone()[0])

    def kept(self, digest: Digest) -> KeptFill:
        """What is known of an interrupted fill.  What nothing is known of is not to be trusted."""
        with self.reading() as db:
            row = db.execute("SELECT size, synced, boot FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
        if row is None:
            return KeptFill(None, 0)
        size, synced, boot = row
        return KeptFill(size, 1 << 62 if boot == disk.boot() else synced)

    def size(self, digest: Digest) -> int | None:
        """The size of a blob, committed or announced; None when nobody knows."""
        with self.reading() as db:
            row = db.execute("SELECT size FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
            return None if row is None else row[0]

    def stat(self, digest: Digest, used: float) -> BlobStat | None:
        """A committed blob's facts; None when it is not there, or its file is not as it was committed.

        `used`: a use that is not noted yet, in seconds since the epoch.
        """
        path = self._tree.blob(digest)
        with explained("look at", path):
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                return None
        if not stat.S_ISREG(found.st_mode) or self.size(digest) not in (None, found.st_size):
            return None  # damaged: the next one to open it drops it
        noted = self.last_used(digest)
        return BlobStat(digest, found.st_size, max(used, found.st_mtime if noted is None else noted))

    def last_used(self, digest: Digest) -> float | None:
        """Seconds since the epoch."""
        with self.reading() as db:
            row = db.execute("SELECT last_used FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
            return None if row is None else float(row[0])

    def page(self, after: str, limit: int) -> list[Digest]:
        """Committed blobs in the order of their digests, from the one that follows `after`."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT digest FROM blobs WHERE digest > ? AND committed ORDER BY digest LIMIT ?", (after, limit)
            ).fetchall()
        return [Digest.parse(digest) for (digest,) in rows]

    def counted(self, after: str, limit: int) -> list[Counted]:
        """As `page`, with what is known of each."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT digest, coalesce(size, counted), counted, last_used, checked FROM blobs "
                "WHERE digest > ? AND committed ORDER BY digest LIMIT ?",
                (after, limit),
            ).fetchall()
        return [Counted(Digest.parse(digest), *rest) for digest, *rest in rows]

    # -- counting

    def put_fill(self, db: sqlite3.Connection, digest: Digest, size: int | None, counted: int, now: float) -> None:
        """Count a fill, within a transaction."""
        db.execute(_GROW, (str(digest), size, counted, now, disk.boot()))

    def synced(self, digest: Digest, count: int) -> None:
        """A loss of power cannot change the first `count` bytes of a fill."""
        with self.transaction(durable=True) as db:
            db.execute("UPDATE blobs SET synced = ? WHERE digest = ?", (count, str(digest)))

    def commit(self, digest: Digest, size: int, counted: int, now: float) -> None:
        """The file is under its final name.

        This transaction is made durable, and with it all before: otherwise a loss of power could
        forget the row of a file that stays.
        """
        with self.transaction(durable=True) as db:
            db.execute(_PUT, (str(digest), size, counted, True, now, now))

    def remove(self, digest: Digest, unlink: Callable[[], bool]) -> bool:
        """Remove a file and its row; the file first, for the sum must not be less than what is there."""
        with self.transaction() as db:
            there = unlink()
            db.execute("DELETE FROM blobs WHERE digest = ?", (str(digest),))
            return there

    def touch(self, uses: Mapping[Digest, float]) -> None:
        """Write down uses: digest -> seconds since the epoch."""
        if uses:
            with self.transaction() as db:
                self.note_uses(db, uses)

    def note_uses(self, db: sqlite3.Connection, uses: Mapping[Digest, float]) -> None:
        """As `touch`, within a transaction."""
        for digest, when in uses.items():
            db.execute("UPDATE blobs SET last_used = max(last_used, ?) WHERE digest = ?", (when, str(digest)))
            row = db.execute("SELECT committed, size FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
            if row is None or not row[0]:  # its writer died between the name and the row
                with suppress(FileNotFoundError):
                    counted = disk.on_disk(os.lstat(self._tree.blob(digest)))
                    db.execute(_PUT, (str(digest), None if row is None else row[1], counted, True, when, 0))

    # -- checking

    def claim_check(self, now: float, before: float) -> Digest | None:
        """The blob whose last check is the oldest and was before this time; it then counts as checked now."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT digest FROM blobs WHERE committed AND checked < ? ORDER BY checked LIMIT 1", (before,)
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE blobs SET checked = ? WHERE digest = ?", (now, row[0]))
            return Digest.parse(row[0])

    def checked(self, digest: Digest, now: float) -> None:
        """Its bytes were hashed just now, and right."""
        with self.transaction() as db:
            db.execute("UPDATE blobs SET checked = ? WHERE digest = ?", (now, str(digest)))

    # -- mending

    def tidy(self) -> None:
        """Remove empty and uncounted fills whose writer died.  There are never many fills."""
        with self.transaction() as db:
            for digest in self._tree.fills():
                row = db.execute("SELECT 1 FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
                if row is None:
                    files.drop_fill(self._tree, digest)

    def rebuild(self) -> bool:
        """Count all files again; False when another process is at it.  Takes long in a large cache."""
        with open(self._tree.index_lock, "ab") as guard:
            if not files.try_lock(guard.fileno(), fcntl.LOCK_EX):
                return False
            with self._lock, self._explained():
                if self._damaged is not None and self._damaged == database.identity(self._tree.index):
                    self._move_aside()
            with self.reading() as db:
                if db.execute("SELECT complete FROM total").fetchone()[0]:
                    return True
            for some in _batches(self._tree.committed(), 500):
                with self.transaction() as db:
                    for digest, found in some:
                        # Looked at again: it may have been evicted since.
                        if os.path.exists(self._tree.blob(digest)):
                            # Its length now is not what was verified, if somebody changed it.
                            db.execute(_PUT, (str(digest), None, disk.on_disk(found), True, found.st_mtime, 0))
            with self.transaction() as db:
                for digest in self._tree.fills():
                    length = files.drop_fill(self._tree, digest)
                    if length is not None:  # somebody's: only its writer knows the size
                        self.put_fill(db, digest, None, rounded(length), 0)
                db.execute("UPDATE total SET complete = 1")
            return True

    def _move_aside(self) -> None:
        self.close()
        database.move_aside(self._tree.index)
        self._damaged = None

    # -- the connection

    def _connected(self) -> sqlite3.Connection:
        """The connection, made anew when another process has replaced the file."""
        there = database.identity(self._tree.index)
        if there is not None and there == self._damaged:
            raise IndexDamaged(f"{self._tree.index} is damaged and being rebuilt")
        if self._db is not None and there == self._identity:
            return self._db
        self.close()
        self._identity = there
        db = database.open_database(self._tree.index, SCHEMA, _PATIENCE)
        # The log counts as part of the cache: keep it small.
        db.execute("PRAGMA wal_autocheckpoint = 256")
        db.execute("PRAGMA journal_size_limit = 1048576")
        self._identity = database.identity(self._tree.index)
        self._db = db
        return db

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for queries."""
        with self._lock, self._explained():
            yield self._connected()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """The connection, for changes that are made together or not at all."""
        with self._lock, self._explained():
            db = self._connected()
            if durable:
                db.execute("PRAGMA synchronous = FULL")
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            finally:
                if self._db is db:
                    with suppress(sqlite3.Error):
                        if db.in_transaction:
                            db.execute("ROLLBACK")
                        if durable:
                            db.execute("PRAGMA synchronous = NORMAL")

    def must_be_complete(self, db: sqlite3.Connection) -> None:
        """Raises IndexDamaged while not all blobs are counted: no budget could be kept."""
        if not db.execute("SELECT complete FROM total").fetchone()[0]:
            if not self._tree.is_empty():
                raise IndexDamaged(f"{self._tree.index} does not know all blobs yet")
            db.execute("UPDATE total SET complete = 1")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite raises, as a StorageError that names the file."""
        try:
            with disk.explained("update the cache index in", self._tree.directory):
                yield
        except database.NewerVersion as error:
            raise StorageError(str(error)) from error
        except sqlite3.Error as error:
            if not database.is_damage(error):
                kind = DiskFull if "full" in str(error) else StorageError
                raise kind(f"cannot use {self._tree.index}: {error}") from error
            self._damaged = self._identity
            self.close()
            _log.error("{path} is damaged ({error}): rebuilding it", path=self._tree.index, error=error)
            raise IndexDamaged(f"{self._tree.index} is damaged: {error}") from error


def _batches(
    found: Iterable[tuple[Digest, os.stat_result]], size: int
) -> Iterator[list[tuple[Digest, os.stat_result]]]:
    batch = []
    for one in found:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch

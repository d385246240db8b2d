"""What is in the cache, counted: an SQLite table shared by all processes.  Everything here blocks.

The law: *a blob has a row before its file grows, and keeps it until its file is gone.*  So the
sum of all rows is never less than what is on disk, whichever process dies at whatever moment,
and a budget kept over the rows is kept over the disk.  The other way round, a row whose file
has gone is dropped when eviction meets it, and a file without a row gets one when it is used.
Nothing is ever served because of a row: the files are the truth.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from twisted.logger import Logger

from docxy.names import Digest
from docxy.storage import files
from docxy.storage.interfaces import BlobStat, NoSpace, StorageError
from docxy.storage.paths import Tree

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    last_used REAL NOT NULL,
    checked REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON blobs (last_used);
CREATE INDEX IF NOT EXISTS by_check ON blobs (checked) WHERE committed;
CREATE TABLE IF NOT EXISTS total (bytes INTEGER NOT NULL, complete INTEGER NOT NULL);
INSERT INTO total SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON blobs
    BEGIN UPDATE total SET bytes = bytes + new.size; END;
CREATE TRIGGER IF NOT EXISTS resized AFTER UPDATE OF size ON blobs
    BEGIN UPDATE total SET bytes = bytes + new.size - old.size; END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON blobs
    BEGIN UPDATE total SET bytes = bytes - old.size; END;
"""
_PUT = """
INSERT INTO blobs (digest, size, committed, last_used, checked) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET size = excluded.size, committed = excluded.committed,
    last_used = max(last_used, excluded.last_used), checked = max(checked, excluded.checked)
"""

_PATIENCE = 30.0
"""Seconds to wait for another process's transaction; it may be removing large files."""

_log = Logger()


class IndexDamaged(StorageError):
    """The index cannot be read, or does not know all blobs yet; `Index.rebuild` mends it."""


class Index:
    """The table, its sum, and the budget that is kept over it.  May be used by many threads."""

    def __init__(self, tree: Tree, budget: int) -> None:
        self._tree = tree
        self._budget = budget
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._damaged: tuple[int, int] | None = None

    # -- life

    def open(self) -> None:
        """Raises IndexDamaged when `rebuild` is needed, StorageError."""
        with self._lock, self._explained():
            db = self._connected()
            if not db.execute("SELECT complete FROM total").fetchone()[0]:
                if not self._tree.is_empty():
                    raise IndexDamaged(f"{self._tree.index} does not know all blobs yet")
                db.execute("UPDATE total SET complete = 1")

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                with suppress(sqlite3.Error):
                    self._db.close()
                self._db = None

    # -- reading

    def used(self) -> int:
        """Bytes of all blobs, and of all that is reserved for fills."""
        with self._reading() as db:
            return int(db.execute("SELECT bytes FROM total").fetchone()[0])

    def announced(self, digest: Digest) -> int | None:
        """The size that is reserved for a blob, if any."""
        with self._reading() as db:
            row = db.execute("SELECT size FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
            return None if row is None else int(row[0])

    def last_used(self, digest: Digest) -> float | None:
        """Seconds since the epoch."""
        with self._reading() as db:
            row = db.execute("SELECT last_used FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
            return None if row is None else float(row[0])

    def page(self, after: str, limit: int) -> list[BlobStat]:
        """Committed blobs in the order of their digests, from the one that follows `after`."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT digest, size, last_used FROM blobs WHERE digest > ? AND committed ORDER BY digest LIMIT ?",
                (after, limit),
            ).fetchall()
        return [BlobStat(Digest.parse(digest), size, last_used) for digest, size, last_used in rows]

    # -- counting

    def reserve(self, digest: Digest, size: int, uses: Mapping[Digest, float], now: float) -> None:
        """Count a fill in, evicting what was used least recently until it fits.

        `uses` are the uses not yet written down.  Raises NoSpace, IndexDamaged, StorageError.
        """
        if size > self._budget:
            raise NoSpace(f"{digest} of {size} bytes is larger than the whole cache ({self._budget} bytes)")
        with self._transaction() as db:
            self._must_be_complete(db)
            self._touch(db, uses)
            row = db.execute("SELECT size FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
            short = self._make_room(db, size - (row[0] if row else 0), digest)
            if short <= 0:
                db.execute(_PUT, (str(digest), size, False, now, 0))
        if short > 0:
            raise NoSpace(f"no room for {digest} in {self._tree.directory}: too much of it is being read or written")

    def trim(self) -> None:
        """Evict until the budget is kept: it may have been larger the last time."""
        with self._transaction() as db:
            self._must_be_complete(db)
            self._make_room(db, 0, None)

    def _make_room(self, db: sqlite3.Connection, needed: int, keep: Digest | None) -> int:
        """Bytes still missing; not above 0 when all went well."""
        (used,) = db.execute("SELECT bytes FROM total").fetchone()
        short = int(used + needed - self._budget)
        for _ in range(3):  # what looked free may be in use a moment later
            if short <= 0:
                break
            victims = self._victims(db, short, keep)
            for name, size in victims:
                if files.evictable(self._tree, Digest.parse(name), remove=True):
                    db.execute("DELETE FROM blobs WHERE digest = ?", (name,))
                    short -= size
            if not victims:
                break
        return short

    def _victims(self, db: sqlite3.Connection, short: int, keep: Digest | None) -> list[tuple[str, int]]:
        """Enough blobs, least recently used first; none if they cannot be enough, so that none goes in vain."""
        victims = []
        for name, size in db.execute("SELECT digest, size FROM blobs WHERE size > 0 ORDER BY last_used"):
            if name != str(keep) and files.evictable(self._tree, Digest.parse(name), remove=False):
                victims.append((name, size))
                short -= size
                if short <= 0:
                    return victims
        return []

    def commit(self, digest: Digest, size: int, now: float) -> None:
        """The file is under its final name.

        This transaction is made durable, and with it all before: otherwise a loss of power could
        forget the row of a file that stays.
        """
        with self._transaction(durable=True) as db:
            db.execute(_PUT, (str(digest), size, True, now, now))

    def remove(self, digest: Digest, unlink: Callable[[], bool]) -> bool:
        """Remove a file and its row; the file first, for the sum must not be less than what is there."""
        with self._transaction() as db:
            there = unlink()
            db.execute("DELETE FROM blobs WHERE digest = ?", (str(digest),))
            return there

    def touch(self, uses: Mapping[Digest, float]) -> None:
        """Write down uses: digest -> seconds since the epoch."""
        if uses:
            with self._transaction() as db:
                self._touch(db, uses)

    def _touch(self, db: sqlite3.Connection, uses: Mapping[Digest, float]) -> None:
        for digest, when in uses.items():
            db.execute("UPDATE blobs SET last_used = max(last_used, ?) WHERE digest = ?", (when, str(digest)))
            committed = db.execute("SELECT committed FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
            if committed is None or not committed[0]:  # its writer died between the name and the row
                with suppress(FileNotFoundError):
                    size = os.stat(self._tree.blob(digest)).st_size
                    db.execute(_PUT, (str(digest), size, True, when, 0))

    # -- checking

    def claim_check(self, now: float, before: float) -> Digest | None:
        """The blob whose last check is the oldest and was before this time; it then counts as checked now."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT digest FROM blobs WHERE committed AND checked < ? ORDER BY checked LIMIT 1", (before,)
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE blobs SET checked = ? WHERE digest = ?", (now, row[0]))
            return Digest.parse(row[0])

    # -- mending

    def tidy(self) -> None:
        """Remove empty and uncounted fills whose writer died.  There are never many fills."""
        with self._transaction() as db:
            for digest in self._tree.fills():
                row = db.execute("SELECT 1 FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
                if row is None:
                    _drop_fill(self._tree, digest)

    def rebuild(self) -> bool:
        """Count all files anew; False when another process is at it.  Takes long in a large cache."""
        with open(self._tree.index_lock, "ab") as guard:
            if not files.try_lock(guard.fileno(), fcntl.LOCK_EX):
                return False
            with self._lock, self._explained():
                if self._damaged is not None and self._damaged == _identity(self._tree.index):
                    self._move_aside()
            with self._reading() as db:
                if db.execute("SELECT complete FROM total").fetchone()[0]:
                    return True
            for some in _batches(self._tree.committed(), 500):
                with self._transaction() as db:
                    for digest, found in some:
                        # Looked at again: it may have been evicted since.
                        if os.path.exists(self._tree.blob(digest)):
                            db.execute(_PUT, (str(digest), found.st_size, True, found.st_mtime, 0))
            with self._transaction() as db:
                for digest in self._tree.fills():
                    size = _drop_fill(self._tree, digest)
                    if size is not None:  # someone's: what it announced is known to its writer only
                        db.execute(_PUT, (str(digest), size, False, 0, 0))
                db.execute("UPDATE total SET complete = 1")
            return True

    def _move_aside(self) -> None:
        self.close()
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                os.rename(self._tree.index + suffix, f"{self._tree.index}.damaged{suffix}")
        self._damaged = None

    # -- the connection

    def _connected(self) -> sqlite3.Connection:
        """The connection, made anew when another process has replaced the file."""
        there = _identity(self._tree.index)
        if there is not None and there == self._damaged:
            raise IndexDamaged(f"{self._tree.index} is damaged and being rebuilt")
        if self._db is not None and there == self._identity:
            return self._db
        self.close()
        db = sqlite3.connect(self._tree.index, _PATIENCE, isolation_level=None, check_same_thread=False)
        self._db = db
        self._identity = _identity(self._tree.index)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"is of version {version}, not {_VERSION}")
        _write_ahead(db)
        db.execute("PRAGMA synchronous = NORMAL")
        if version != _VERSION:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        return db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            yield self._connected()

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
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

    def _must_be_complete(self, db: sqlite3.Connection) -> None:
        if not db.execute("SELECT complete FROM total").fetchone()[0]:
            raise IndexDamaged(f"{self._tree.index} does not know all blobs yet")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite raises, as a StorageError that names the file."""
        try:
            with files.explained("keep account in", self._tree.directory):
                yield
        except sqlite3.OperationalError as error:
            kind = NoSpace if "full" in str(error) else StorageError
            raise kind(f"cannot use {self._tree.index}: {error}") from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise StorageError(f"cannot use {self._tree.index}: {error}") from error
            # The plain class: not a database, malformed, or of another version.
            self._damaged = self._identity
            self.close()
            _log.error("{path} is damaged ({error}): rebuilding it", path=self._tree.index, error=error)
            raise IndexDamaged(f"{self._tree.index} is damaged: {error}") from error


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite does not wait by itself when others do so at this moment."""
    for _ in range(100):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.02)
    raise sqlite3.OperationalError("database is locked")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _drop_fill(tree: Tree, digest: Digest) -> int | None:
    """Remove a fill that nobody owns; the size so far of one that somebody does."""
    path = tree.incoming(digest)
    with suppress(FileNotFoundError), open(path, "rb") as file:
        found = os.fstat(file.fileno())
        if not files.try_lock(file.fileno(), fcntl.LOCK_EX):
            return found.st_size
        if files.names(path, found):
            os.unlink(path)
    return None


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

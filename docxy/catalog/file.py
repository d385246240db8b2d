"""The catalog's file.  Everything here blocks, and is called by one thread at a time.

The laws: waiting for another process's lock takes a moment (`PATIENCE`), never longer, for reads stand in line behind
it; a file that was removed, replaced or found damaged is begun anew by the next call, once for all processes.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from attrs import frozen
from twisted.logger import Logger

from docxy import database
from docxy.catalog.schema import SCHEMA
from docxy.catalog.secret import Secret

T = TypeVar("T")
Row = tuple[Any, ...]
Stamp = tuple[int, int]
"""Differs from an earlier one when anyone but us may have changed the file meanwhile."""

PATIENCE = 0.05
"""Seconds."""
_OPENING_PATIENCE = 30.0
"""Seconds: another process may be leading the file to a new layout."""


@frozen
class Statement:
    """A statement and its values."""

    sql: str
    values: Row


class CatalogFile:
    """An SQLite file that mends itself."""

    _log = Logger()

    def __init__(self, path: str, secret: Secret) -> None:
        self.path = path
        self._secret = secret
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._opened = 0
        self._is_closed = False

    def start(self) -> None:
        """Open the file, before anyone waits for it.  Raises NewerVersion, sqlite3.Error, OSError."""
        self._using(lambda _: None, _OPENING_PATIENCE)

    def close(self) -> None:
        """Nothing is asked of it any more."""
        self._is_closed = True
        self._drop()

    def read(self, sql: str, values: Row) -> tuple[Stamp, list[Row]]:
        """The rows of a query, and the stamp of what was read.  Raises as `start`."""

        def work(db: sqlite3.Connection) -> tuple[Stamp, list[Row]]:
            # The stamp first: what is committed after it shows in the next one.
            (version,) = db.execute("PRAGMA data_version").fetchone()
            return (self._opened, version), db.execute(sql, values).fetchall()

        return self._using(work)

    def write(self, statements: Sequence[Statement]) -> int:
        """Do all of it in one transaction, or nothing; the number of changed rows.  Raises as `start`."""

        def work(db: sqlite3.Connection) -> int:
            before = db.total_changes
            db.execute("BEGIN IMMEDIATE")
            try:
                for statement in statements:
                    db.execute(statement.sql, statement.values)
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
            return db.total_changes - before

        return self._using(work)

    def give_back(self, pages: int) -> int:
        """Return at most that many free pages to the file system; gives how many are still free.  Raises as `start`."""

        def work(db: sqlite3.Connection) -> int:
            db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            (mode,) = db.execute("PRAGMA auto_vacuum").fetchone()
            return int(free) if mode == 2 else 0

        return self._using(work)

    def _using(self, work: Callable[[sqlite3.Connection], T], patience: float = PATIENCE) -> T:
        try:
            return work(self._connected(patience))
        except sqlite3.Error as error:
            if not database.is_damage(error) or self._is_closed:
                raise
            self._mend(error)
        return work(self._connected(patience))

    def _connected(self, patience: float) -> sqlite3.Connection:
        if self._is_closed:
            raise sqlite3.ProgrammingError("the catalog is closed")
        if self._database is not None and database.identity(self.path) == self._identity:
            return self._database
        self._drop()
        functions = {"keyed": self._secret.keyed}
        self._identity = database.identity(self.path)
        self._database = database.open_database(self.path, SCHEMA, patience, functions)
        self._identity = database.identity(self.path)
        self._database.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
        self._opened += 1
        return self._database

    def _mend(self, error: sqlite3.Error) -> None:
        """Move the damaged file aside, unless another process just did."""
        seen = self._identity
        self._drop()
        with open(os.open(f"{self.path}.lock", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            if database.identity(self.path) != seen:
                return
            aside = database.move_aside(self.path)
        self._log.error(
            "the catalog {path} is damaged ({error}): it is now {aside}, and a new one is begun. Tags and what "
            "clients may read are asked for again; cached blobs stay",
            path=self.path,
            error=error,
            aside=aside,
        )

    def _drop(self) -> None:
        connection, self._database = self._database, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

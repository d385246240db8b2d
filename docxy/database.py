"""How docxy's SQLite files are opened, led to the layout of this version, and moved aside when damaged.

The laws: *a connection that is handed out has every table of its schema*, because tables and version are
written in one transaction; only the daemon's user can read a database, with any umask; nothing here
replaces a file of a newer version.  Everything here blocks: call it in a thread, or before serving.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from attrs import frozen

_MODE = 0o600
_COMPANIONS = ("", "-wal", "-shm")
_LOG_PAGES = 256
_SWITCHES = 100
_SWITCH_PAUSE = 0.02
"""Seconds."""


class NewerVersion(Exception):
    """The file was written by a newer docxy; the message says what to do."""


@frozen
class Schema:
    """The layouts of one database, oldest first."""

    steps: tuple[str, ...]
    """SQL, one statement after another, each beginning on a line of its own; step *n* leads from version *n*
    (`PRAGMA user_version`) to the next.  Once released, a step never changes."""

    @property
    def version(self) -> int:
        """The newest layout."""
        return len(self.steps)


def open_database(
    path: str, schema: Schema, patience: float, functions: Mapping[str, Callable[[str], str]] | None = None
) -> sqlite3.Connection:
    """A connection to a file of the newest layout, which is made or led there first.

    `patience`: seconds to wait for another process's lock; `functions`: SQL functions that the steps use.
    May be passed between threads, used by one at a time.  Raises NewerVersion, sqlite3.Error, OSError.
    """
    _protect(path)
    database = sqlite3.connect(path, patience, isolation_level=None, check_same_thread=False)
    try:
        for name, function in (functions or {}).items():
            database.create_function(name, 1, function, deterministic=True)
        if _version(database, path, schema) < schema.version:
            _migrate(database, path, schema)
        else:
            _write_ahead(database)
        database.execute("PRAGMA synchronous = NORMAL")
        # The log is counted as part of the cache: keep it small.
        database.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        database.execute(f"PRAGMA journal_size_limit = {_LOG_PAGES * 4096}")
        _protect(path)
    except BaseException:
        database.close()
        raise
    return database


def _version(database: sqlite3.Connection, path: str, schema: Schema) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > schema.version:
        raise NewerVersion(
            f"{path} was written by a newer docxy (its layout is {version}, this docxy knows {schema.version}): "
            "run that version again, or remove this file and let docxy begin a new one"
        )
    return int(version)


def _migrate(database: sqlite3.Connection, path: str, schema: Schema) -> None:
    is_new = database.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    # Free pages can be given back in slices; counts from the next VACUUM, or from the first table.
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _write_ahead(database)
    database.execute("BEGIN IMMEDIATE")
    try:
        # Asked again: another process may have done it meanwhile.
        for step in schema.steps[_version(database, path, schema) :]:
            for statement in _statements(step):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {schema.version}")
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    if not is_new:
        with suppress(sqlite3.Error):  # a file that stays larger than it has to be is still right
            database.execute("VACUUM")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite does not wait by itself when others do so at this moment."""
    for _ in range(_SWITCHES):
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(_SWITCH_PAUSE)
    raise sqlite3.OperationalError("database is locked")


def _protect(path: str) -> None:
    """Make the file if there is none, and keep everybody else from it; SQLite gives its companions the same mode."""
    try:
        # Only here: closing a descriptor of an open database would drop this process's locks of it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE))
    except FileExistsError:
        for suffix in _COMPANIONS:
            with suppress(FileNotFoundError, PermissionError):
                os.chmod(path + suffix, _MODE)


def identity(path: str) -> tuple[int, int] | None:
    """What changes when the file is replaced; None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is bad, so that waiting does not help: not a database, malformed, tables missing."""
    return type(error) is sqlite3.DatabaseError or (
        isinstance(error, sqlite3.OperationalError) and str(error).startswith(("no such table", "no such column"))
    )


def move_aside(path: str) -> str:
    """Rename a damaged file, so that a new one can be made; its new name.

    The caller holds a lock that all processes take for this.
    """
    aside = f"{path}.damaged"
    for suffix in reversed(_COMPANIONS):
        with suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
    return aside

"""What is known of upstreams: tags, which repository holds what, who may read it.

One SQLite file beside the blobs, shared by all processes; every row is small, every
statement is one short transaction.  The law: *a catalog that fails, forgets.*  Reading
from a broken one finds nothing, writing to it does nothing, the operator is told, and
pulls go on with the upstream's help.

    held       this repository of this upstream served this digest, as a blob or as a manifest
    tags       where a tag pointed when the upstream was last asked
    missing    what an upstream did not have, for a credential
    listings   pages of tags and of referrers
    verdicts   this credential (its SHA-256) could read this repository
    strangers  credentials (SHA-256) that anyone could have got
    public     repositories that strangers could read
    claims     who is asking an upstream something that one asker is enough for
    facts      anything with a name
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.logger import Logger

_SCHEMA = """
CREATE TABLE IF NOT EXISTS held (
    upstream TEXT, repository TEXT, digest TEXT, kind TEXT, media_type TEXT, size INTEGER, seen REAL,
    used REAL, PRIMARY KEY (upstream, repository, digest, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_used ON held (used);
CREATE TABLE IF NOT EXISTS tags (
    upstream TEXT, repository TEXT, tag TEXT, digest TEXT, media_type TEXT, size INTEGER,
    checked REAL, retry REAL, PRIMARY KEY (upstream, repository, tag)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_checked ON tags (checked);
CREATE TABLE IF NOT EXISTS missing (
    upstream TEXT, repository TEXT, reference TEXT, credential TEXT, message TEXT, until REAL,
    PRIMARY KEY (upstream, repository, reference, credential)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listings (
    upstream TEXT, repository TEXT, page TEXT, media_type TEXT, body BLOB, link TEXT, checked REAL,
    PRIMARY KEY (upstream, repository, page));
CREATE TABLE IF NOT EXISTS verdicts (
    upstream TEXT, repository TEXT, credential TEXT, at REAL,
    PRIMARY KEY (upstream, repository, credential)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS strangers (credential TEXT PRIMARY KEY, until REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS public (
    upstream TEXT, repository TEXT, at REAL, PRIMARY KEY (upstream, repository)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, until REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""

T = TypeVar("T")


class Catalog:
    """The file; one upstream's part of it is a `records.UpstreamCatalog`."""

    _log = Logger()

    def __init__(self, path: str, seconds: Callable[[], float]) -> None:
        """`path`: of the file, or `:memory:`; `seconds`: the time since the epoch.

        A file that cannot be used is replaced by memory, and the operator told.
        """
        self.seconds = seconds
        self._complained = -1e9
        try:
            self._database = _open(path)
        except sqlite3.DatabaseError as error:
            self._log.error(
                "the catalog {path} cannot be used ({error}); going on without what it knew", path=path, error=error
            )
            self._database = _open(":memory:")

    def close(self) -> None:
        """Nothing is asked of it any more."""
        self._database.close()

    def row(self, query: str, *values: object) -> Any:
        """The first row of a query; None when there is none or the catalog is broken."""
        return self._attempt(lambda: self._database.execute(query, values).fetchone(), None)

    def rows(self, query: str, *values: object) -> list[Any]:
        """All rows of a query; none when the catalog is broken."""
        return self._attempt(lambda: self._database.execute(query, values).fetchall(), [])

    def run(self, statement: str, *values: object) -> int:
        """Rows changed by a statement; 0 when the catalog is broken."""
        return self._attempt(lambda: self._database.execute(statement, values).rowcount, 0)

    def _attempt(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            if self.seconds() - self._complained >= 60:
                self._complained = self.seconds()
                self._log.error("the catalog cannot be used, pulls go on without it: {error}", error=error)
            return otherwise

    def claim(self, key: str, lifetime: float) -> bool:
        """Whether we are the one to ask now; `release` ends it, so does `lifetime` in seconds.

        Saves requests; nothing may depend on it for being right.
        """
        now = self.seconds()
        return (
            self.run(
                "INSERT INTO claims VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET until = excluded.until "
                "WHERE claims.until < ?",
                key,
                now + lifetime,
                now,
            )
            > 0
        )

    def claimed(self, key: str) -> bool:
        """Whether somebody is asking now."""
        return self.row("SELECT 1 FROM claims WHERE key = ? AND until >= ?", key, self.seconds()) is not None

    def release(self, key: str) -> None:
        """We are done asking."""
        self.run("DELETE FROM claims WHERE key = ?", key)

    def fact(self, name: str) -> str | None:
        """What was kept under a name."""
        row = self.row("SELECT value FROM facts WHERE name = ?", name)
        return None if row is None else str(row[0])

    def keep_fact(self, name: str, value: str) -> None:
        """Keep a value under a name, replacing what was there."""
        self.run("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    def settle_fact(self, name: str, value: str) -> str:
        """The value under a name: what is there already, else this one, for all processes alike."""
        settled = self.fact(name)
        if settled is not None:
            return settled
        self.run("INSERT OR IGNORE INTO facts VALUES (?, ?)", name, value)
        return self.fact(name) or value

    def stranger(self, credential: str, until: float) -> None:
        """Anyone could have got this credential; it lives until then."""
        self.run("INSERT OR REPLACE INTO strangers VALUES (?, ?)", credential, until)

    def is_stranger(self, credential: str) -> bool:
        """Whether anyone could have got this credential."""
        row = self.row("SELECT 1 FROM strangers WHERE credential = ? AND until >= ?", credential, self.seconds())
        return row is not None

    def purge(self, unseen: float, short: float) -> None:
        """Forget what is past its use; cheap, to be called now and then.

        `unseen`: seconds after which what nobody pulled is forgotten; `short`: the same for verdicts.
        """
        now = self.seconds()
        for table, column, before in (
            ("held", "used", now - unseen),
            ("tags", "checked", now - unseen),
            ("listings", "checked", now - unseen),
            ("public", "at", now - unseen),
            ("verdicts", "at", now - short),
            ("missing", "until", now),
            ("strangers", "until", now),
            ("claims", "until", now),
        ):
            self.run(f"DELETE FROM {table} WHERE {column} < ?", before)


def _open(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        with suppress(sqlite3.OperationalError):
            # Not to be had on some filesystems; without it everything is right, only slower.
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database

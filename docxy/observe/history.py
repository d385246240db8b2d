"""Pulls of the last days, and what they came to, in a small database of their own.

Everything but the constructor runs in a thread.  The laws: pulls older than `KEPT`, more than `MOST` of
them and more than their share of the cache are forgotten, the oldest first; a history that fails forgets,
says so once an hour, and no pull waits for it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from docxy.database import Schema, is_damage, move_aside, open_database
from docxy.observe.sums import TABLES, Sums, read, write
from docxy.threads import InThread

KEPT = 7 * 24 * 3600.0
"""Seconds."""
MOST = 50_000
SHARE = 1 / 16
"""Of the cache's budget."""
MOST_BYTES = 64 << 20
"""Of the file, however large the cache is."""
EVERY = 5.0
"""Seconds between two transactions."""
WAITING = 2_000
"""Pulls that wait to be written; more are dropped."""
_COMPLAINT = 3600.0
_PATIENCE = 2.0

T = TypeVar("T")

SCHEMA = Schema(
    (
        """\
CREATE TABLE pulls (
    id TEXT PRIMARY KEY, upstream TEXT NOT NULL, repository TEXT NOT NULL, at REAL NOT NULL, pull TEXT NOT NULL
);
CREATE INDEX pulls_at ON pulls (at);
CREATE INDEX pulls_of ON pulls (upstream, repository, at);
""",
        TABLES,
    )
)


class PullHistory:
    """Writes behind, reads in a thread."""

    _log = Logger()

    def __init__(self, path: str, budget: int, in_thread: InThread, clock: IReactorTime) -> None:
        """`budget`: bytes that the whole cache may take; `in_thread`: runs one job at a time, in order.

        `clock`: of the time since the epoch.
        """
        self._path = path
        self._most_bytes = min(MOST_BYTES, int(budget * SHARE))
        self._in_thread = in_thread
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self._waiting: list[dict[str, Any]] = []
        self._due: IDelayedCall | None = None
        self._complained = float("-inf")

    def keep(self, pull: dict[str, Any]) -> None:
        """Write a finished pull, as `docxy.observe.model.ReadModel.told` has it, in a moment."""
        if len(self._waiting) >= WAITING:
            return
        self._waiting.append(pull)
        if self._due is None:
            self._due = self._clock.callLater(EVERY, self._begin)

    def recent(self, most: int, repository: tuple[str, str] | None = None) -> Deferred[list[dict[str, Any]]]:
        """The newest pulls, of one repository or of all."""
        reading = self._in_thread(self._read, most, repository)
        reading.addErrback(self._failed)
        return reading.addCallback(lambda found: found or [])

    def keep_sums(self, sums: Sums) -> None:
        """Add what was counted since the last call."""
        if sums:
            self._in_thread(self._in_transaction, write, sums, self._clock.seconds()).addErrback(self._failed)

    def sums(self) -> Deferred[Sums]:
        """What was counted until now, before a restart too."""
        reading = self._in_thread(self._read_sums)
        reading.addErrback(self._failed)
        return reading.addCallback(lambda found: found or Sums({}, Counter()))

    def close(self) -> Deferred[None]:
        """Write what waits."""
        if self._due is not None:
            self._due.cancel()
        self._begin()
        return self._in_thread(self._close)

    def _begin(self) -> None:
        self._due = None
        pulls, self._waiting = self._waiting, []
        if pulls:
            self._in_thread(self._in_transaction, self._write, pulls, self._clock.seconds()).addErrback(self._failed)

    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            try:
                self._database = open_database(self._path, SCHEMA, _PATIENCE)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                aside = move_aside(self._path)
                self._log.error(
                    "the history of pulls {path} is damaged ({error}): it is now {aside}, and a new one begins",
                    path=self._path,
                    error=error,
                    aside=aside,
                )
                self._database = open_database(self._path, SCHEMA, _PATIENCE)
        return self._database

    def _in_transaction(self, work: Callable[[sqlite3.Connection, T, float], None], what: T, now: float) -> None:
        database = self._connected()
        database.execute("BEGIN IMMEDIATE")
        try:
            work(database, what, now)
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise

    def _write(self, database: sqlite3.Connection, pulls: Sequence[dict[str, Any]], now: float) -> None:
        database.executemany(
            "INSERT OR REPLACE INTO pulls VALUES (?, ?, ?, ?, ?)",
            [(pull["id"], pull["upstream"], pull["repository"], pull["started"], json.dumps(pull)) for pull in pulls],
        )
        database.execute("DELETE FROM pulls WHERE at < ? OR at > ?", (now - KEPT, now + KEPT))
        database.execute(
            "DELETE FROM pulls WHERE at < (SELECT at FROM pulls ORDER BY at DESC LIMIT 1 OFFSET ?)", (MOST,)
        )
        self._trim(database)

    def _trim(self, database: sqlite3.Connection) -> None:
        """Forget the oldest pulls until the rest is within its bytes; their pages are used again."""
        while (over := _used(database) - self._most_bytes) > 0:
            (rows,) = database.execute("SELECT count(*) FROM pulls").fetchone()
            some = max(1, rows * over // (over + self._most_bytes))
            oldest = "DELETE FROM pulls WHERE rowid IN (SELECT rowid FROM pulls ORDER BY at LIMIT ?)"
            if not database.execute(oldest, (some,)).rowcount:
                break

    def _read_sums(self) -> Sums | None:
        return None if self._is_missing() else read(self._connected())

    def _is_missing(self) -> bool:
        """Who only looks makes no file, in a directory that may not be there yet."""
        return self._database is None and not os.path.exists(self._path)

    def _read(self, most: int, repository: tuple[str, str] | None) -> list[dict[str, Any]]:
        if self._is_missing():
            return []
        where, values = ("", ()) if repository is None else ("WHERE upstream = ? AND repository = ?", repository)
        rows = self._connected().execute(f"SELECT pull FROM pulls {where} ORDER BY at DESC LIMIT ?", (*values, most))
        return [json.loads(row[0]) for row in rows]

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _failed(self, reason: Any) -> None:
        if self._clock.seconds() - self._complained >= _COMPLAINT:
            self._complained = self._clock.seconds()
            self._log.error(
                "the history of pulls in {path} cannot be used, and forgets: {why}",
                path=self._path,
                why=reason.getErrorMessage(),
            )
        self._in_thread(self._close)


def _used(database: sqlite3.Connection) -> int:
    """Bytes of the pages that hold something."""
    pages, free, size = (
        database.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)

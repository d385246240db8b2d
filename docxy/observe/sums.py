"""What the read model counted, kept over a restart: the traffic of each minute, and who spent the pull limits.

Everything here runs in the thread of the history, in whose database it is.  The laws: *what is written is what was
counted since the last writing, and adds to what is there*, so that a docxy that ends and the one that takes over may
both write; sums are kept for as long as they are shown, and have a bound.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping

from attrs import astuple, fields, frozen

from docxy.observe.ledger import WINDOW, Charge
from docxy.observe.traffic import HOURS, MINUTE, Share

MOST_CHARGES = 20_000
"""Rows, of one account, repository and minute each."""

TABLES = """\
CREATE TABLE minutes (
    minute INTEGER PRIMARY KEY, answers INTEGER NOT NULL, hits INTEGER NOT NULL, joined INTEGER NOT NULL,
    sent INTEGER NOT NULL, saved INTEGER NOT NULL, received INTEGER NOT NULL
);
CREATE TABLE charges (
    at REAL NOT NULL, upstream TEXT NOT NULL, account TEXT NOT NULL, repository TEXT NOT NULL, team TEXT NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (at, upstream, account, repository, team)
) WITHOUT ROWID;
"""
_NAMES = tuple(attribute.name for attribute in fields(Share))
_MINUTE = (
    f"INSERT INTO minutes (minute, {', '.join(_NAMES)}) VALUES (?{', ?' * len(_NAMES)}) "
    f"ON CONFLICT (minute) DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in _NAMES)}"
)
_CHARGE = "INSERT INTO charges VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"


@frozen
class Sums:
    """Of some time."""

    minutes: Mapping[int, Share]
    """By the minute since the epoch."""
    charges: Counter[Charge]
    """How many, by what they are alike in; the time of each is that of its minute's begin."""

    def __bool__(self) -> bool:
        return bool(self.minutes or self.charges)


def write(database: sqlite3.Connection, sums: Sums, now: float) -> None:
    """Add them to what is there, and forget what is too old; within a transaction of the caller's."""
    database.executemany(_MINUTE, [(minute, *astuple(share)) for minute, share in sums.minutes.items()])
    database.executemany(_CHARGE, [(*astuple(charge), count) for charge, count in sums.charges.items()])
    newest = now // MINUTE
    database.execute("DELETE FROM minutes WHERE minute <= ? OR minute > ?", (newest - HOURS * 60, newest))
    database.execute("DELETE FROM charges WHERE at < ? OR at > ?", (now - WINDOW, now))
    database.execute(
        "DELETE FROM charges WHERE at < (SELECT at FROM charges ORDER BY at DESC LIMIT 1 OFFSET ?)", (MOST_CHARGES,)
    )


def read(database: sqlite3.Connection) -> Sums:
    """All that are kept."""
    minutes = database.execute(f"SELECT minute, {', '.join(_NAMES)} FROM minutes")
    charges = database.execute("SELECT at, upstream, account, repository, team, count FROM charges")
    return Sums(
        {minute: Share(*counts) for minute, *counts in minutes},
        Counter({Charge(*told): count for *told, count in charges}),
    )

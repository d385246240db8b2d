"""When docxy first saw a manifest in a repository, and where tags pointed: in a file, or in memory.

The laws: *one change, one row*, for any number of processes that note it, in any order; the first sight
of a digest stands.  Both are dated by docxy's clock, never by what a publisher wrote.  Of what is
older than it has to be, the row that still tells where a tag points stays.  All of it has a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, evolve, field, frozen
from cachetools import LRUCache
from zope.interface import implementer

from docxy.catalog import merging
from docxy.catalog.behind import Behind, Broken, Write, statements
from docxy.catalog.file import Statement
from docxy.catalog.interfaces import AsOf, Change, IHistory, Sighting, TagRecord, is_recent
from docxy.catalog.rows import TRIM_EVERY, IRows, MemoryRows
from docxy.catalog.schema import FEWEST, HeldRow, SightingRow
from docxy.names import Digest

USE_NOTED = 6 * 3600.0
"""Seconds between two notes of a use."""
MOST = 100_000
"""Changes of one upstream that are kept."""
MOST_OF_ALL = 10 * MOST
"""Changes that are kept in all: clients may name registries without end."""
MOST_OF_TAG = 1_000
"""Changes of one tag that are kept."""
PURGED = 3600.0
"""Seconds between two looks for changes that are older than they have to be."""
_ROW_BYTES = 500
_GONE = ""

_Row = tuple[str, float, str, float | None]
"""Tag, since when, digest, when that was first seen."""


class IChanges(Protocol):
    """Changes of tags of all upstreams."""

    def add(self, upstream: str, repository: str, tag: str, at: float, digest: str) -> None:
        """Add a change, unless the one before it or the one behind it says the same."""

    def replace(
        self, upstream: str, repository: str, tag: str, gone: Sequence[float], new: Sequence[tuple[float, str]]
    ) -> None:
        """Remove the changes of these times, and add others: time and digest."""

    async def of(self, upstream: str, repository: str, tag: str | None, limit: int) -> list[_Row]:
        """The newest first."""

    async def at(self, upstream: str, repository: str, tag: str, at: float) -> tuple[_Row | None, float | None]:
        """The last change until then, and when the first one was."""

    async def in_use(self, upstream: str, used: float, checked: float, limit: int) -> list[tuple[str, str]]:
        """See `IHistory`."""

    async def flushed(self) -> None:
        """See `IHeld`."""


@implementer(IHistory)
@define
class History:
    """See `IHistory`."""

    _rows: IRows[SightingRow]
    _changes: IChanges
    _upstream: str
    _seconds: Callable[[], float]
    _last: float = field(init=False, default=0.0)

    async def seen(self, repository: str, digest: Digest) -> Sighting:
        key = self._key(repository, digest)
        row, now = await self._rows.get(key), self._seconds()
        if row is None or row.first > now:
            row = SightingRow(now, now, 0 if row is None else row.excused)
            self._rows.put(key, row)
        return self._used(key, row)

    async def sighting(self, repository: str, digest: Digest, latest: bool = False) -> Sighting | None:
        key = self._key(repository, digest)
        row = await self._rows.get(key, latest)
        return None if row is None else self._used(key, row)

    def _used(self, key: tuple[str, ...], row: SightingRow) -> Sighting:
        if not is_recent(row.used, self._seconds(), USE_NOTED):
            self._rows.put(key, evolve(row, used=self._seconds()))
        return Sighting(row.first, bool(row.excused))

    def lists(self, repository: str, sighting: Sighting, children: Sequence[Digest]) -> None:
        row = SightingRow(sighting.first, self._seconds(), int(sighting.excused))
        for child in children:
            self._rows.put(self._key(repository, child), row)

    async def flushed(self) -> None:
        await self._changes.flushed()

    def changed(self, repository: str, tag: str, digest: Digest | None) -> None:
        self._changes.add(self._upstream, repository, tag, self._now(), _GONE if digest is None else str(digest))

    async def learn(self, repository: str, tag: str, theirs: Sequence[Change], told: Change | None) -> None:
        now, ours = self._seconds(), [*reversed(await self.changes(repository, tag, MOST_OF_TAG))]
        merged = merging.merged(ours, theirs, told, now)[-MOST_OF_TAG:]
        stays, known = {each.at for each in merged}, {each.at for each in ours}
        gone = [each.at for each in ours if each.at not in stays]
        new = [(each.at, _GONE if each.digest is None else str(each.digest)) for each in merged if each.at not in known]
        if gone or new:
            self._changes.replace(self._upstream, repository, tag, gone, new)
        firsts = merging.first_sights(ours)
        for digest, first in merging.first_sights(theirs).items():
            if first < min(now, firsts.get(digest, now)):
                self._rows.put(self._key(repository, digest), SightingRow(first, now, 0))

    async def changes(self, repository: str, tag: str | None, limit: int) -> list[Change]:
        return [_change(row) for row in await self._changes.of(self._upstream, repository, tag, limit)]

    async def as_of(self, repository: str, tag: str, at: float) -> AsOf:
        row, began = await self._changes.at(self._upstream, repository, tag, at)
        return AsOf(None if row is None else _change(row), began)

    async def in_use(self, used: float, checked: float, limit: int) -> list[tuple[str, str]]:
        return await self._changes.in_use(self._upstream, used, checked, limit)

    def _key(self, repository: str, digest: Digest) -> tuple[str, ...]:
        return (self._upstream, repository, str(digest))

    def _now(self) -> float:
        """The time, never the same twice in a row: two changes must have an order."""
        now = self._seconds()
        self._last = self._last + 1e-6 if 0 <= self._last - now < 1 else now
        return self._last


def _change(row: _Row) -> Change:
    tag, at, digest, first = row
    return Change(tag, Digest.parse(digest) if digest else None, at, at if first is None else first)


_OF = "upstream = ?1 AND repository = ?2 AND tag = ?3"
_ADD = f"""
INSERT INTO history (upstream, repository, tag, at, digest) SELECT ?1, ?2, ?3, ?4, ?5
WHERE ?5 IS NOT (SELECT digest FROM history WHERE {_OF} AND at <= ?4 ORDER BY at DESC LIMIT 1)
AND ?5 IS NOT (SELECT digest FROM history WHERE {_OF} AND at > ?4 ORDER BY at LIMIT 1)
AND (?5 <> '' OR EXISTS (SELECT 1 FROM history WHERE {_OF}))
AND NOT EXISTS (SELECT 1 FROM history WHERE {_OF} AND at = ?4)
"""
_REMOVE = f"DELETE FROM history WHERE {_OF} AND at = ?4"
_INSERT = "INSERT OR IGNORE INTO history (upstream, repository, tag, at, digest) VALUES (?1, ?2, ?3, ?4, ?5)"
_SELECT = """
SELECT tag, at, history.digest, first FROM history LEFT JOIN sightings
ON sightings.upstream = history.upstream AND sightings.repository = history.repository
AND sightings.digest = history.digest
WHERE history.upstream = ? AND history.repository = ?
"""
_IN_USE = """
SELECT repository, tag FROM tags WHERE upstream = ?1 AND checked < ?3 AND instr(tag, ' ') = 0 AND EXISTS (
    SELECT 1 FROM history JOIN held ON held.upstream = history.upstream AND held.repository = history.repository
    AND held.digest = history.digest AND held.kind = 'manifest'
    WHERE history.upstream = tags.upstream AND history.repository = tags.repository AND history.tag = tags.tag
    AND held.used >= ?2)
ORDER BY checked LIMIT ?4
"""
_KEYS = "upstream, repository, tag, at"
_OLD = f"""
DELETE FROM history WHERE ({_KEYS}) IN (
    SELECT {_KEYS} FROM history AS old WHERE upstream = ?1 AND at < ?2 AND (
        EXISTS (SELECT 1 FROM history WHERE upstream = old.upstream AND repository = old.repository
            AND tag = old.tag AND at > old.at AND at <= ?2)
        OR NOT EXISTS (SELECT 1 FROM tags WHERE upstream = old.upstream AND repository = old.repository
            AND tag = old.tag)) LIMIT ?3)
"""
_MANY = f"""
DELETE FROM history WHERE ({_KEYS}) IN (
    SELECT {_KEYS} FROM (
        SELECT {_KEYS}, row_number() OVER (PARTITION BY repository, tag ORDER BY at DESC) AS number
        FROM history WHERE upstream = ?1) WHERE number > {{most_of_tag}} LIMIT ?2)
"""
_MOST = f"""
DELETE FROM history WHERE ({_KEYS}) IN (
    SELECT {_KEYS} FROM history WHERE upstream = ?1 ORDER BY at
    LIMIT max(0, min(?2, (SELECT count(*) FROM history WHERE upstream = ?1) - {{most}})))
"""
_ALL = f"""
DELETE FROM history WHERE ({_KEYS}) IN (
    SELECT {_KEYS} FROM history ORDER BY at LIMIT max(0, min(?1, (SELECT count(*) FROM history) - {{most}})))
"""


class FileChanges:
    """In the catalog's file."""

    def __init__(self, behind: Behind, share: float) -> None:
        """`share`: how much of `MOST` is kept, as the cache is so small; 1: all."""
        self._behind = behind
        self._share = share
        self._added = 0
        self._purged = float("-inf")

    def add(self, upstream: str, repository: str, tag: str, at: float, digest: str) -> None:
        values = (upstream, repository, tag, at, digest)
        key = ("history", upstream, repository, tag, repr(at))
        self._added += 1
        # Tags that never come again come faster than upkeep.
        trim = [(self._trim(), (upstream, 2 * TRIM_EVERY))] if self._added % TRIM_EVERY == 0 else []
        self._behind.write(key, Write(statements((_ADD, values), *trim), values, _ROW_BYTES))

    def replace(
        self, upstream: str, repository: str, tag: str, gone: Sequence[float], new: Sequence[tuple[float, str]]
    ) -> None:
        of = (upstream, repository, tag)
        removed = [(_REMOVE, (*of, at)) for at in gone]
        added = [(_INSERT, (*of, at, digest)) for at, digest in new]
        before, self._added = self._added, self._added + len(new)
        trim = [(self._trim(), (upstream, 2 * TRIM_EVERY))] if before // TRIM_EVERY < self._added // TRIM_EVERY else []
        key = ("history", *of, f"replaced {self._added}")
        written = statements(*removed, *added, *trim)
        self._behind.write(key, Write(written, of, _ROW_BYTES * (len(gone) + len(new))))

    def _trim(self) -> str:
        return _MOST.format(most=max(FEWEST, int(MOST * self._share)))

    async def _known(self) -> list[Any]:
        """The upstreams that have any, also those that docxy mirrored once."""
        return await self._read("SELECT DISTINCT upstream FROM history")

    async def of(self, upstream: str, repository: str, tag: str | None, limit: int) -> list[_Row]:
        if tag is None:
            return await self._read(f"{_SELECT} ORDER BY at DESC LIMIT ?", upstream, repository, limit)
        return await self._read(f"{_SELECT} AND tag = ? ORDER BY at DESC LIMIT ?", upstream, repository, tag, limit)

    async def at(self, upstream: str, repository: str, tag: str, at: float) -> tuple[_Row | None, float | None]:
        sql = f"{_SELECT} AND tag = ? AND at <= ? ORDER BY at DESC LIMIT 1"
        found = await self._read(sql, upstream, repository, tag, at)
        began = await self._read(f"SELECT min(at) FROM history WHERE {_OF}", upstream, repository, tag)
        return (found[0] if found else None), (began[0][0] if began else None)

    async def in_use(self, upstream: str, used: float, checked: float, limit: int) -> list[tuple[str, str]]:
        return await self._read(_IN_USE, upstream, used, checked, limit)

    async def flushed(self) -> None:
        await self._behind.flushed()

    async def purge(self, now: float, history: float, rows: int) -> int:
        """Forget rows beyond the bound, and now and then those that are too old, a slice at a time; how many went."""
        removed = 0
        for (upstream,) in await self._known():
            removed += await self._slices(self._trim(), upstream, rows)
        most = max(FEWEST, int(MOST_OF_ALL * self._share))
        removed += await self._slices(_ALL.format(most=most), rows)
        if not is_recent(self._purged, now, PURGED):
            self._purged = now
            for (upstream,) in await self._known():
                removed += await self._slices(_OLD, upstream, now - history, rows)
                removed += await self._slices(_MANY.format(most_of_tag=MOST_OF_TAG), upstream, rows)
        return removed

    async def _slices(self, sql: str, *values: object) -> int:
        removed = 0
        while some := await self._behind.run(Statement(sql, values)):
            removed += some
        return removed

    async def _read(self, sql: str, *values: object) -> list[Any]:
        await self._behind.flushed()
        try:
            return await self._behind.read(sql, values)
        except Broken:
            return []


@frozen
class MemoryChanges:
    """Of this process alone."""

    _sightings: MemoryRows[SightingRow]
    _held: MemoryRows[HeldRow]
    _tags: MemoryRows[TagRecord]
    _changes: LRUCache[tuple[str, ...], tuple[tuple[float, str], ...]] = field(
        init=False, factory=lambda: LRUCache(MOST, getsizeof=len)
    )
    """By upstream, repository and tag, the oldest first."""

    def add(self, upstream: str, repository: str, tag: str, at: float, digest: str) -> None:
        key = (upstream, repository, tag)
        before = self._changes.get(key, ())
        until = [each for each in before if each[0] <= at]
        behind = [each for each in before if each[0] > at]
        if digest in {each[1] for each in (*until[-1:], *behind[:1])} or (not digest and not before):
            return
        self._changes[key] = tuple([*until, (at, digest), *behind][-MOST_OF_TAG:])

    def replace(
        self, upstream: str, repository: str, tag: str, gone: Sequence[float], new: Sequence[tuple[float, str]]
    ) -> None:
        key = (upstream, repository, tag)
        stays = [each for each in self._changes.get(key, ()) if each[0] not in gone]
        self._changes[key] = tuple(sorted([*stays, *new])[-MOST_OF_TAG:])

    async def of(self, upstream: str, repository: str, tag: str | None, limit: int) -> list[_Row]:
        found = [
            self._row(key, change)
            for key, changes in self._changes.items()
            if key[:2] == (upstream, repository) and tag in (None, key[2])
            for change in changes
        ]
        return sorted(found, key=lambda row: -row[1])[:limit]

    async def at(self, upstream: str, repository: str, tag: str, at: float) -> tuple[_Row | None, float | None]:
        key = (upstream, repository, tag)
        changes = self._changes.get(key, ())
        until = [each for each in changes if each[0] <= at]
        return (self._row(key, until[-1]) if until else None), (changes[0][0] if changes else None)

    async def in_use(self, upstream: str, used: float, checked: float, limit: int) -> list[tuple[str, str]]:
        found = []
        for key, tag in self._tags.rows.items():
            if key[0] != upstream or tag.checked >= checked or " " in key[2]:
                continue
            rows = [self._held.rows.get((*key[:2], change[1], "manifest")) for change in self._changes.get(key, ())]
            if any(row is not None and row.used >= used for row in rows):
                found.append((tag.checked, key[1], key[2]))
        return [(repository, tag) for _, repository, tag in sorted(found)[:limit]]

    async def flushed(self) -> None:
        return

    def purge(self, before: float) -> None:
        """Forget what is older, but where tags still point."""
        for key, changes in list(self._changes.items()):
            kept = tuple(
                each
                for each, following in zip(changes, (*changes[1:], None), strict=True)
                if each[0] >= before or ((following is None or following[0] > before) and key in self._tags.rows)
            )
            if not kept:
                del self._changes[key]
            elif kept != changes:
                self._changes[key] = kept

    def _row(self, key: tuple[str, ...], change: tuple[float, str]) -> _Row:
        sighting = self._sightings.rows.get((*key[:2], change[1]))
        return key[2], change[0], change[1], None if sighting is None else sighting.first

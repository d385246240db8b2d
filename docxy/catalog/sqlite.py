"""The catalog in a file that processes share, its hot rows in memory.

The files, beside the blobs (`storage.paths`):

    catalog.sqlite, -wal, -shm    the tables (`schema`)
    catalog.sqlite.damaged…       one that could not be read any more
    catalog.sqlite.lock           held while a damaged one is moved aside
    catalog.claims                who asks what (`claims`): locks, no bytes
    secret                        what credentials are keyed with (`secret`)

The laws are those of `interfaces` and `behind`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from docxy.catalog.behind import Behind, Broken, Write, statements
from docxy.catalog.claims import SharedClaims
from docxy.catalog.file import CatalogFile, Statement
from docxy.catalog.history import FileChanges
from docxy.catalog.interfaces import ICatalog, Stays, TagRecord, UpstreamCatalog, no_tag
from docxy.catalog.known import Facts, Tokens
from docxy.catalog.rows import FileRows
from docxy.catalog.schema import HELD, LISTINGS, PUBLIC, SIGHTINGS, TABLES, TAGS, TOKENS, TRIM_PAGES, VERDICTS
from docxy.catalog.secret import load_secret
from docxy.catalog.survey import Survey
from docxy.catalog.upstreams import Upstreams
from docxy.names import Digest
from docxy.threads import InThread

_KEEP_TAG = "INSERT OR IGNORE INTO tags VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
SLICE = 500
"""Rows that one step of a purge removes at most, and pages of the file that one step gives back."""


@implementer(ICatalog)
class SqliteCatalog:
    """See `ICatalog`."""

    def __init__(
        self, directory: str, budget: int, in_thread: InThread, clock: IReactorTime, seconds: Callable[[], float]
    ) -> None:
        """Opens the file, which may block: make it before anyone waits.

        `budget`: bytes that the whole cache may take; `in_thread`: one thread, nobody else's; `seconds`: the time
        since the epoch.
        Raises NewerVersion, sqlite3.Error, OSError.
        """
        path = os.path.join(directory, "catalog.sqlite")
        self._seconds = seconds
        self.secret = load_secret(os.path.join(directory, "secret"))
        file = CatalogFile(path, self.secret)
        file.start()
        self._behind = behind = Behind(file, in_thread, clock)
        self._tables = tuple(table.within(budget) for table in TABLES)
        sightings = SIGHTINGS.within(budget)
        self._changes = FileChanges(behind, sightings.most / SIGHTINGS.most)
        self._upstreams = Upstreams(
            tags=FileRows(TAGS.within(budget), behind),
            held=FileRows(HELD.within(budget), behind),
            verdicts=FileRows(VERDICTS.within(budget), behind),
            public=FileRows(PUBLIC.within(budget), behind),
            listings=FileRows(LISTINGS.within(budget), behind, lambda key: ((TRIM_PAGES, (key[0], key[0])),)),
            sightings=FileRows(sightings, behind),
            changes=self._changes,
            scans=self,
            seconds=seconds,
        )
        self.claims = SharedClaims(os.path.join(directory, "catalog.claims"), clock, behind.flushed)
        _, facts = file.read("SELECT name, value FROM facts", ())
        self.facts = Facts({str(name): str(value) for name, value in facts}, self._keep_fact, self._read_fact)
        self.survey = Survey(behind)
        """For operators."""
        self.tokens = Tokens(FileRows(TOKENS.within(budget), behind), seconds)

    def _keep_fact(self, name: str, value: str) -> None:
        insert = "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)"
        self._behind.write(("facts", name), Write(statements((insert, (name, value))), value, len(value)))

    async def _read_fact(self, name: str) -> str | None:
        await self._behind.flushed()
        if self._behind.find(("facts", name)) is not None:  # ours could not be written yet
            return None
        rows = await self._behind.read("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def upstream(self, name: str) -> UpstreamCatalog:
        return self._upstreams.of(name)

    async def tags_of(self, upstream: str, repository: str, digest: Digest) -> list[str]:
        sql = "SELECT tag FROM tags WHERE upstream = ? AND repository = ? AND digest = ?"
        return [str(row[0]) for row in await self._scan(sql, upstream, repository, str(digest))]

    async def tags_in(self, upstream: str, repository: str, limit: int) -> list[tuple[str, TagRecord]]:
        rows = await self._scan(
            "SELECT tag, digest, media_type, size, checked, retry FROM tags WHERE upstream = ? AND repository = ? "
            "ORDER BY checked DESC, tag LIMIT ?",
            upstream,
            repository,
            limit,
        )
        return [(str(tag), TAGS.load(*row)) for tag, *row in rows]

    async def manifests_in(self, upstream: str, repository: str, limit: int) -> list[Digest]:
        rows = await self._scan(
            "SELECT digest FROM held WHERE upstream = ? AND repository = ? AND kind = 'manifest' "
            "ORDER BY seen DESC, digest DESC LIMIT ?",
            upstream,
            repository,
            limit,
        )
        return [Digest.parse(row[0]) for row in rows]

    async def repositories(self, upstream: str, after: str, limit: int, public_since: float | None) -> list[str]:
        rows = await self._scan(
            "SELECT DISTINCT repository FROM held WHERE upstream = ? AND repository > ? AND (? IS NULL OR EXISTS "
            "(SELECT 1 FROM public WHERE public.upstream = held.upstream AND public.repository = held.repository "
            "AND public.at >= ?)) ORDER BY repository LIMIT ?",
            upstream,
            after,
            public_since,
            public_since,
            limit,
        )
        return [str(row[0]) for row in rows]

    async def _scan(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        await self._behind.flushed()
        try:
            return await self._behind.read(sql, values)
        except Broken:
            return []

    async def flushed(self) -> None:
        await self._behind.flushed()

    async def spare(self, digests: Collection[str]) -> None:
        await self._behind.flushed()
        sql = "UPDATE held SET used = max(used, ?) WHERE digest IN (SELECT value FROM json_each(?))"
        if await self._behind.run(Statement(sql, (self._seconds(), json.dumps([*digests])))):
            self._behind.generation += 1

    async def purge(self, unseen: float, short: float, history: float, stays: Stays = no_tag) -> None:
        await self._behind.flushed()
        now = self._seconds()
        staying = await self._staying(now - unseen, stays)
        before = {VERDICTS.name: now - short, TOKENS.name: now}
        removed = 0
        for table in self._tables:
            removed += await self._slices(table.delete_before, before.get(table.name, now - unseen), SLICE)
            removed += await self._slices(table.delete_oldest, SLICE)
        for row in staying:
            await self._behind.run(Statement(_KEEP_TAG, row))
        removed += await self._changes.purge(now, history, SLICE)
        if removed:
            self._behind.generation += 1
        while await self._behind.give_back(SLICE):
            pass

    async def _staying(self, before: float, stays: Stays) -> list[tuple[Any, ...]]:
        """Rows of tags that a purge would forget, and is not to: what is oldest when there are too many, too."""
        if stays is no_tag:
            return []
        rows = await self._scan(
            "SELECT upstream, repository, tag, digest, media_type, size, checked, retry FROM tags "
            "WHERE checked < ? OR (SELECT count(*) FROM tags) > ?",
            before,
            next(table.most for table in self._tables if table.name == TAGS.name),
        )
        return [row for row in rows if stays(row[0], row[1], row[2].partition(" ")[0])]

    async def _slices(self, sql: str, *values: float) -> int:
        removed = 0
        while some := await self._behind.run(Statement(sql, values)):
            removed += some
        return removed

    async def close(self) -> None:
        await self._behind.close()
        self.claims.close()

"""The whole catalog, row by row, for operators: no single pull asks this.

The law: reading goes in pages, so that nothing waits long for the catalog's thread; what is forgotten here, every
process reads as forgotten within `behind.LAG`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from attrs import frozen

from docxy.catalog.behind import Behind
from docxy.catalog.file import Statement

PAGE = 2000
"""Rows."""


@frozen
class TagRow:
    """Where a tag pointed."""

    upstream: str
    repository: str
    name: str
    variant: str
    """What a narrow Accept selects of the tag (`docxy.pull.accept`); empty for what everybody gets."""
    digest: str
    media_type: str
    checked: float
    """When the upstream last said so; seconds since the epoch."""


@frozen
class ManifestRow:
    """A manifest that a repository served."""

    upstream: str
    repository: str
    digest: str
    seen: float
    """When the upstream last served it; seconds since the epoch."""


class Survey:
    """Of one catalog's file.  Every method raises Broken when it cannot be read or written."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind

    async def tags(self) -> AsyncIterator[TagRow]:
        """All tags, by registry, repository and name."""
        sql = (
            "SELECT upstream, repository, tag, digest, media_type, checked FROM tags "
            "WHERE (upstream, repository, tag) > (?, ?, ?) ORDER BY upstream, repository, tag LIMIT ?"
        )
        async for upstream, repository, tag, *rest in self._paged(sql, 3):
            name, _, variant = tag.partition(" ")
            yield TagRow(upstream, repository, name, variant, *rest)

    async def manifests(self) -> AsyncIterator[ManifestRow]:
        """All manifests, by registry, repository and digest."""
        sql = (
            "SELECT upstream, repository, digest, seen FROM held WHERE (upstream, repository, digest) > (?, ?, ?) "
            "AND kind = 'manifest' ORDER BY upstream, repository, digest LIMIT ?"
        )
        async for row in self._paged(sql, 3):
            yield ManifestRow(*row)

    async def _paged(self, sql: str, keys: int) -> AsyncIterator[Any]:
        """Rows whose first columns are the keys that a page goes on behind."""
        await self._behind.flushed()
        after: tuple[Any, ...] = ("",) * keys
        while True:
            rows = await self._behind.read(sql, (*after, PAGE))
            for row in rows:
                yield row
            if len(rows) < PAGE:
                return
            after = rows[-1][:keys]

    async def blobs_of(self, upstream: str, repository: str) -> set[str]:
        """The digests of all that a repository served."""
        await self._behind.flushed()
        rows = await self._behind.read(
            "SELECT digest FROM held WHERE upstream = ? AND repository = ?", (upstream, repository)
        )
        return {digest for (digest,) in rows}

    async def forget_tags(self, upstream: str, repository: str, tags: Sequence[str]) -> None:
        """Where these tags point, for every `Accept`."""
        await self._each(
            # A variant's name follows a space, which no tag has.
            "DELETE FROM tags WHERE upstream = ? AND repository = ? AND (tag = ? OR (tag >= ? AND tag < ?))",
            [(upstream, repository, tag, f"{tag} ", f"{tag}!") for tag in tags],
        )

    async def forget_held(self, upstream: str, repository: str, digests: Sequence[str]) -> None:
        """That a repository served these."""
        await self._each(
            "DELETE FROM held WHERE upstream = ? AND repository = ? AND digest = ?",
            [(upstream, repository, digest) for digest in digests],
        )

    async def forget_listings(self, upstream: str, repository: str) -> None:
        """The pages of tags and of referrers of a repository."""
        await self._each("DELETE FROM listings WHERE upstream = ? AND repository = ?", [(upstream, repository)])

    async def _each(self, sql: str, values: Sequence[tuple[str, ...]]) -> None:
        for start in range(0, len(values), PAGE):
            await self._behind.must_run([Statement(sql, each) for each in values[start : start + PAGE]])

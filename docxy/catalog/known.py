"""What is known of one upstream, over rows in a file or in memory: records become rows, and a use is noted.

The law: one process's memory and all processes' file answer by the same code; only rows differ.  What every request
asks is handed on as it is, without a coroutine around it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from attrs import evolve, frozen
from cachetools import LRUCache
from zope.interface import implementer

from docxy.catalog.behind import Broken
from docxy.catalog.interfaces import (
    HeldManifest,
    IFacts,
    IHeld,
    IListings,
    IMissing,
    ITags,
    ITokens,
    IVerdicts,
    ListingRecord,
    RelayedToken,
    TagRecord,
    is_recent,
)
from docxy.catalog.rows import IRows
from docxy.catalog.schema import HeldRow, TokenRow
from docxy.names import Digest

Seconds = Callable[[], float]

USE_NOTED = 6 * 3600.0
"""Seconds between two notes of a use: reading is cheap, writing less so."""
MAX_MISSING = 10_000
"""Misses of one upstream that a process remembers."""
MAX_MESSAGE = 1000
"""Characters of the upstream's words that are remembered."""
MAX_PAGE_NAME = 2000
"""Characters; a page with a longer name is not kept."""


@implementer(ITags)
@frozen
class Tags:
    """See `ITags`."""

    _rows: IRows[TagRecord]
    _scans: IScans
    _upstream: str
    _seconds: Seconds

    def get(self, repository: str, tag: str, latest: bool = False) -> Coroutine[Any, Any, TagRecord | None]:
        return self._rows.get((self._upstream, repository, tag), latest)

    def keep(self, repository: str, tag: str, digest: Digest, media_type: str, size: int) -> None:
        record = TagRecord(digest, media_type, size, self._seconds(), 0.0)
        self._rows.put((self._upstream, repository, tag), record)

    def postpone(self, repository: str, tag: str, record: TagRecord, until: float) -> None:
        self._rows.change((self._upstream, repository, tag), evolve(record, retry=until))

    def drop(self, repository: str, tag: str) -> None:
        self._rows.drop((self._upstream, repository, tag))

    async def newest(self, repository: str, limit: int) -> list[tuple[str, TagRecord]]:
        return await self._scans.tags_in(self._upstream, repository, limit)

    async def drop_all_of(self, repository: str, digest: Digest) -> None:
        for tag in await self._scans.tags_of(self._upstream, repository, digest):
            self.drop(repository, tag)


class IScans(Protocol):
    """Questions that no single row answers."""

    async def flushed(self) -> None:
        """See `IHeld`."""

    async def tags_of(self, upstream: str, repository: str, digest: Digest) -> list[str]:
        """The tags that point at a digest."""

    async def tags_in(self, upstream: str, repository: str, limit: int) -> list[tuple[str, TagRecord]]:
        """See `ITags.newest`."""

    async def manifests_in(self, upstream: str, repository: str, limit: int) -> list[Digest]:
        """See `IHeld.manifests`."""

    async def repositories(self, upstream: str, after: str, limit: int, public_since: float | None) -> list[str]:
        """See `IHeld`."""


@implementer(IHeld)
@frozen
class Held:
    """See `IHeld`."""

    _rows: IRows[HeldRow]
    _scans: IScans
    _upstream: str
    _seconds: Seconds

    def hold_blob(self, repository: str, digest: Digest) -> None:
        now = self._seconds()
        self._rows.put(self._key(repository, digest, "blob"), HeldRow("", 0, now, now))

    def hold_manifest(self, repository: str, digest: Digest, media_type: str, size: int) -> None:
        now = self._seconds()
        self._rows.put(self._key(repository, digest, "manifest"), HeldRow(media_type, size, now, now))

    async def blob(self, repository: str, digest: Digest, latest: bool = False) -> bool:
        key = self._key(repository, digest, "blob")
        return self._used(key, await self._rows.get(key, latest)) is not None

    async def manifest(self, repository: str, digest: Digest) -> HeldManifest | None:
        key = self._key(repository, digest, "manifest")
        return _manifest(self._used(key, await self._rows.get(key)))

    async def any_manifest(self, repository: str) -> Digest | None:
        return next(iter(await self._scans.manifests_in(self._upstream, repository, 1)), None)

    async def manifests(self, repository: str, limit: int) -> list[Digest]:
        return await self._scans.manifests_in(self._upstream, repository, limit)

    async def repositories(self, after: str, limit: int, public_since: float | None) -> list[str]:
        return await self._scans.repositories(self._upstream, after, limit, public_since)

    def drop(self, repository: str, digest: Digest) -> None:
        for kind in ("blob", "manifest"):
            self._rows.drop(self._key(repository, digest, kind))

    async def flushed(self) -> None:
        await self._scans.flushed()

    def _key(self, repository: str, digest: Digest, kind: str) -> tuple[str, ...]:
        return (self._upstream, repository, str(digest), kind)

    def _used(self, key: tuple[str, ...], row: HeldRow | None) -> HeldRow | None:
        if row is not None and not is_recent(row.used, self._seconds(), USE_NOTED):
            self._rows.change(key, evolve(row, used=self._seconds()))
        return row


def _manifest(row: HeldRow | None) -> HeldManifest | None:
    return None if row is None else HeldManifest(row.media_type, row.size, row.seen)


@implementer(IVerdicts)
@frozen
class Verdicts:
    """See `IVerdicts`."""

    _rows: IRows[float]
    _public: IRows[float]
    _upstream: str
    _seconds: Seconds

    def allowed_at(self, repository: str, credential: str, latest: bool = False) -> Coroutine[Any, Any, float | None]:
        return self._rows.get((self._upstream, repository, credential), latest)

    def allow(self, repository: str, credential: str) -> None:
        self._rows.put((self._upstream, repository, credential), self._seconds())

    def revoke(self, repository: str, credential: str) -> None:
        self._rows.drop((self._upstream, repository, credential))

    async def public_at(self, repository: str) -> float | None:
        return await self._public.get((self._upstream, repository))

    def publish(self, repository: str) -> None:
        self._public.put((self._upstream, repository), self._seconds())

    def unpublish(self, repository: str) -> None:
        self._public.drop((self._upstream, repository))


@implementer(IListings)
@frozen
class Listings:
    """See `IListings`."""

    _rows: IRows[ListingRecord]
    _upstream: str
    _seconds: Seconds

    async def get(self, repository: str, page: str) -> ListingRecord | None:
        return await self._rows.get((self._upstream, repository, page)) if len(page) <= MAX_PAGE_NAME else None

    def keep(self, repository: str, page: str, media_type: str, body: bytes, link: str | None) -> None:
        if len(page) <= MAX_PAGE_NAME:
            record = ListingRecord(media_type, body, link, self._seconds())
            self._rows.put((self._upstream, repository, page), record)

    def drop(self, repository: str, page: str) -> None:
        self._rows.drop((self._upstream, repository, page))


@implementer(IMissing)
class Missing:
    """See `IMissing`."""

    def __init__(self, seconds: Seconds) -> None:
        self._seconds = seconds
        self._misses: LRUCache[tuple[str, str, str], tuple[str, float, float]] = LRUCache(MAX_MISSING)

    def keep(self, repository: str, reference: str, credential: str, message: str, lifetime: float) -> None:
        if len(reference) <= MAX_PAGE_NAME:
            self._misses[(repository, reference, credential)] = (message[:MAX_MESSAGE], self._seconds(), lifetime)

    def message(self, repository: str, reference: str, credential: str) -> str | None:
        miss = self._misses.get((repository, reference, credential))
        if miss is None:
            return None
        message, at, lifetime = miss
        return message if is_recent(at, self._seconds(), lifetime) else None


@implementer(ITokens)
@frozen
class Tokens:
    """See `ITokens`."""

    _rows: IRows[TokenRow]
    _seconds: Seconds

    def keep(self, credential: str, token: RelayedToken, until: float) -> None:
        self._rows.put((credential,), TokenRow(token, until))

    async def get(self, credential: str) -> RelayedToken | None:
        row = await self._rows.get((credential,))
        return None if row is None or row.until < self._seconds() else row.token


@implementer(IFacts)
@frozen
class Facts:
    """See `IFacts`."""

    _facts: dict[str, str]
    _write: Callable[[str, str], object]
    _read: Callable[[str], Awaitable[str | None]]
    """Raises Broken."""

    def get(self, name: str) -> str | None:
        return self._facts.get(name)

    async def latest(self, name: str) -> str | None:
        with suppress(Broken):
            value = await self._read(name)
            if value is not None:
                self._facts[name] = value
        return self._facts.get(name)

    def keep(self, name: str, value: str) -> None:
        if self._facts.get(name) != value:
            self._facts[name] = value
            self._write(name, value)

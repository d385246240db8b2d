"""A catalog of one process, gone with it.

The law: it answers as the file does (one contract suite shows it), and keeps no more rows than the file does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from typing import Any

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from docxy.catalog.claims import LocalClaims
from docxy.catalog.history import MemoryChanges
from docxy.catalog.interfaces import ICatalog, Stays, TagRecord, UpstreamCatalog, no_tag
from docxy.catalog.known import Facts, Tokens
from docxy.catalog.rows import MemoryRows
from docxy.catalog.schema import HELD, LISTINGS, PUBLIC, SIGHTINGS, TAGS, TOKENS, VERDICTS
from docxy.catalog.secret import Secret
from docxy.catalog.upstreams import Upstreams
from docxy.names import Digest


@implementer(ICatalog)
class MemoryCatalog:
    """See `ICatalog`."""

    def __init__(self, clock: IReactorTime, seconds: Callable[[], float]) -> None:
        """`seconds`: the time since the epoch."""
        self._seconds = seconds
        self._held = MemoryRows(HELD)
        self._tags = MemoryRows(TAGS)
        self._listings = MemoryRows(LISTINGS)
        self._verdicts = MemoryRows(VERDICTS)
        self._public = MemoryRows(PUBLIC)
        self._tokens = MemoryRows(TOKENS)
        self._sightings = MemoryRows(SIGHTINGS)
        self._changes = MemoryChanges(self._sightings, self._held, self._tags)
        self._upstreams = Upstreams(
            tags=self._tags,
            held=self._held,
            verdicts=self._verdicts,
            public=self._public,
            listings=self._listings,
            sightings=self._sightings,
            changes=self._changes,
            scans=self,
            seconds=seconds,
        )
        self.secret = Secret(secrets.token_bytes(32))
        self.claims = LocalClaims(clock)
        self.facts = Facts({}, lambda name, value: None, _no_other)
        self.tokens = Tokens(self._tokens, seconds)

    def upstream(self, name: str) -> UpstreamCatalog:
        return self._upstreams.of(name)

    async def tags_of(self, upstream: str, repository: str, digest: Digest) -> list[str]:
        return [
            key[2] for key, tag in self._tags.rows.items() if key[:2] == (upstream, repository) and tag.digest == digest
        ]

    async def tags_in(self, upstream: str, repository: str, limit: int) -> list[tuple[str, TagRecord]]:
        found = [(key[2], tag) for key, tag in self._tags.rows.items() if key[:2] == (upstream, repository)]
        return sorted(found, key=lambda each: (-each[1].checked, each[0]))[:limit]

    async def manifests_in(self, upstream: str, repository: str, limit: int) -> list[Digest]:
        found = [
            (row.seen, key[2])
            for key, row in self._held.rows.items()
            if key[:2] == (upstream, repository) and key[3] == "manifest"
        ]
        return [Digest.parse(digest) for _, digest in sorted(found, reverse=True)[:limit]]

    async def repositories(self, upstream: str, after: str, limit: int, public_since: float | None) -> list[str]:
        public = self._public.rows
        names = {
            key[1]
            for key in self._held.rows
            if key[0] == upstream
            and key[1] > after
            and (public_since is None or public.get(key[:2], float("-inf")) >= public_since)
        }
        return sorted(names)[:limit]

    async def flushed(self) -> None:
        return

    async def spare(self, digests: Collection[str]) -> None:
        now = self._seconds()
        for key, row in [*self._held.rows.items()]:
            if key[2] in digests:
                self._held.rows[key] = evolve(row, used=max(row.used, now))

    async def purge(self, unseen: float, short: float, history: float, stays: Stays = no_tag) -> None:
        now = self._seconds()
        _forget(self._held, lambda row: row.used < now - unseen)
        staying = {key: tag for key, tag in self._tags.rows.items() if stays(key[0], key[1], key[2].partition(" ")[0])}
        _forget(self._tags, lambda tag: tag.checked < now - unseen)
        self._tags.rows.update(staying)
        _forget(self._listings, lambda page: page.checked < now - unseen)
        _forget(self._public, lambda at: at < now - unseen)
        _forget(self._verdicts, lambda at: at < now - short)
        _forget(self._tokens, lambda row: row.until < now)
        _forget(self._sightings, lambda row: row.used < now - unseen)
        self._changes.purge(now - history)

    async def close(self) -> None:
        return


def _forget(rows: MemoryRows[Any], is_old: Callable[[Any], bool]) -> None:
    for key in [key for key, row in rows.rows.items() if is_old(row)]:
        del rows.rows[key]


async def _no_other(name: str) -> str | None:
    """What another process kept: there is none."""
    return None

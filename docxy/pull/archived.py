"""Manifests and tags that other nodes put into the archive.

The law: *a record of a tag says what the registry said to some node, and when*.  It stands in for what this node
does not know, so that a new one asks by HEAD, and serves tags stale through an outage.  The registry is asked all the
same, in each client's name.  Nobody waits for a record to be written; what is not written now is written at the next
answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from attrs import frozen
from cachetools import LRUCache
from twisted.internet.defer import Deferred

from docxy.archive.calm import CalmArchive
from docxy.catalog.interfaces import TagRecord
from docxy.content import LARGEST_MANIFEST, parse_object
from docxy.names import Digest

WRITE_AFTER = 600.0
"""Seconds after which a record of a tag that did not move is written again."""
MOST_WRITING = 16
"""Records of one upstream that are on their way."""
MOST_KNOWN = 20_000
"""Tags whose last record is remembered."""


@frozen
class _Written:
    digest: Digest | None
    first: float
    at: float


class ArchivedManifests:
    """Of one upstream."""

    def __init__(self, upstream: str, archive: CalmArchive, seconds: Callable[[], float]) -> None:
        """`upstream`: its name; `seconds`: the time since the epoch."""
        self._upstream = upstream
        self._archive = archive
        self._seconds = seconds
        self._known: MutableMapping[tuple[str, str], _Written] = LRUCache(MOST_KNOWN)
        self._writing = 0

    async def tag(self, repository: str, name: str) -> TagRecord | None:
        """Where a tag led, by its name in the catalog; None where nobody knows."""
        data = await self._archive.record(self._key(repository, name))
        found = None if data is None else parse_object(data)
        return None if found is None else self._read(repository, name, found)

    def _read(self, repository: str, name: str, found: dict[str, Any]) -> TagRecord | None:
        digest, media_type, size = found.get("digest"), found.get("media_type"), found.get("size")
        first, last = found.get("first_seen"), found.get("last_seen")
        numbers = (size, first, last)
        if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers):
            return None
        parsed = Digest.maybe(digest) if isinstance(digest, str) else None
        if parsed is None or not isinstance(media_type, str) or not 0 < float(str(size)) <= LARGEST_MANIFEST:
            return None
        seen = min(float(str(last)), self._seconds())
        self._known[repository, name] = _Written(parsed, min(float(str(first)), seen), seen)
        return TagRecord(parsed, media_type, int(float(str(size))), seen, 0.0)

    async def body(self, digest: Digest) -> bytes | None:
        """A manifest's bytes, which hash to the digest; None: they cannot be had."""
        return await self._archive.small(digest, LARGEST_MANIFEST)

    def told(self, repository: str, name: str, digest: Digest, media_type: str, size: int) -> None:
        """The upstream just said where a tag leads."""
        now = self._seconds()
        known = self._known.get((repository, name))
        moved = known is None or known.digest != digest
        if known is not None and not moved and 0 <= now - known.at < WRITE_AFTER:
            return
        first = now if known is None or moved else known.first
        record = {
            "digest": str(digest),
            "media_type": media_type,
            "size": size,
            "first_seen": first,
            "last_seen": now,
        }
        self._write(repository, name, _Written(digest, first, now), record)

    def gone(self, repository: str, name: str) -> None:
        """The upstream has no such tag any more."""
        now = self._seconds()
        self._write(repository, name, _Written(None, now, now), {"digest": None, "last_seen": now})

    def _write(self, repository: str, name: str, written: _Written, record: dict[str, Any]) -> None:
        if self._writing >= MOST_WRITING or self._archive.failure is not None:
            return
        self._writing += 1
        self._known[repository, name] = written
        Deferred.fromCoroutine(self._put(repository, name, json.dumps(record).encode("ascii") + b"\n"))

    async def _put(self, repository: str, name: str, data: bytes) -> None:
        try:
            if await self._archive.attempt(self._archive.archive.put_record(self._key(repository, name), data)):
                self._known.pop((repository, name), None)
        finally:
            self._writing -= 1

    def _key(self, repository: str, name: str) -> str:
        # What a narrow Accept selects of a tag has a space in its name, and a registry's name may have a port.
        return f"tags/{quote(self._upstream)}/{quote(repository)}/{quote(name, safe='')}"

"""Manifests and tags that other nodes put into the archive.

The law: *a record of a tag says what the registry said to some node, and when*, now and before.  It stands in for what
this node does not know, so that a new one asks by HEAD, and serves tags stale through an outage.  The registry is
asked all the same, in each client's name.  Nobody waits for a record to be written; what is not written now is written
at the next answer.

Each node reads a record before it writes it, and both then have the history of both.  What is lost where two write at
once is written again at the next time, for each node keeps what it knows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote

from attrs import frozen
from cachetools import LRUCache
from twisted.internet.defer import CancelledError, Deferred, DeferredList

from docxy.archive.calm import CalmArchive
from docxy.catalog.interfaces import Change, IHistory, TagRecord
from docxy.catalog.merging import lasting
from docxy.content import LARGEST_MANIFEST, parse_object
from docxy.names import Digest

T = TypeVar("T")

WRITE_AFTER = 600.0
"""Seconds after which a record of a tag that did not move is written again."""
MOST_WRITING = 16
"""Records of one upstream that are on their way."""
MOST_KNOWN = 20_000
"""Tags whose last record is remembered."""


MOST_SHARED = 100
"""Changes of a tag in its record, the newest."""


@frozen
class _Written:
    digest: Digest | None
    at: float


class ArchivedManifests:
    """Of one upstream."""

    def __init__(
        self,
        upstream: str,
        archive: CalmArchive,
        history: IHistory,
        remembered: float,
        seconds: Callable[[], float],
    ) -> None:
        """`upstream`: its name; `remembered`: seconds of history that are kept; `seconds`: the time since the epoch."""
        self._upstream = upstream
        self._archive = archive
        self._history = history
        self._remembered = remembered
        self._seconds = seconds
        self._known: MutableMapping[tuple[str, str], _Written] = LRUCache(MOST_KNOWN)
        self._writing: set[Deferred[None]] = set()
        self._asking: set[Deferred[Any]] = set()
        """What these wait for, where it is the archive."""
        self._stopped = False

    async def tag(self, repository: str, name: str) -> TagRecord | None:
        """Where a tag led, by its name in the catalog, whose history is known from now on; None where nobody knows."""
        found = await self._record(repository, name)
        record = self._read(found)
        if record is not None:
            self._known[repository, name] = _Written(record.digest, record.checked)
        await self._learn(repository, name, found, None)
        return record

    async def _record(self, repository: str, name: str) -> dict[str, Any]:
        data = await self._archive.record(self._key(repository, name))
        return (None if data is None else parse_object(data)) or {}

    def _read(self, found: dict[str, Any]) -> TagRecord | None:
        digest, media_type, size = found.get("digest"), found.get("media_type"), found.get("size")
        first, last = found.get("first_seen"), found.get("last_seen")
        if not all(map(_is_number, (size, first, last))):
            return None
        parsed = Digest.maybe(digest) if isinstance(digest, str) else None
        if parsed is None or not isinstance(media_type, str) or not 0 < float(str(size)) <= LARGEST_MANIFEST:
            return None
        return TagRecord(parsed, media_type, int(float(str(size))), min(float(str(last)), self._seconds()), 0.0)

    async def _learn(self, repository: str, name: str, found: dict[str, Any], told: Change | None) -> None:
        """What a record says of the past becomes part of what this node knows."""
        theirs = [each for each in _history(name, found) if each.at <= self._seconds()]
        record = self._read(found)
        if record is not None and (not theirs or theirs[-1].digest != record.digest):
            # By a clock that is ahead, or cut off.
            at = max([record.checked, *(each.at + 1e-6 for each in theirs)])
            theirs.append(Change(name, record.digest, at, at))
        theirs = lasting(theirs, self._seconds() - self._remembered)
        if theirs:
            await self._history.learn(repository, name, theirs, told)

    async def body(self, digest: Digest) -> bytes | None:
        """A manifest's bytes, which hash to the digest; None: they cannot be had."""
        return await self._archive.small(digest, LARGEST_MANIFEST)

    def told(self, repository: str, name: str, digest: Digest, media_type: str, size: int) -> None:
        """The upstream just said where a tag leads."""
        now = self._seconds()
        known = self._known.get((repository, name))
        if known is not None and known.digest == digest and 0 <= now - known.at < WRITE_AFTER:
            return
        self._write(repository, name, _Written(digest, now), {"media_type": media_type, "size": size})

    def gone(self, repository: str, name: str) -> None:
        """The upstream has no such tag any more."""
        self._write(repository, name, _Written(None, self._seconds()), {})

    def _write(self, repository: str, name: str, written: _Written, facts: dict[str, Any]) -> None:
        if len(self._writing) >= MOST_WRITING or self._archive.failure is not None or self._stopped:
            return
        self._known[repository, name] = written
        writing = Deferred.fromCoroutine(self._put(repository, name, written, facts))
        if not writing.called:
            self._writing.add(writing)
            writing.addBoth(lambda _: self._writing.discard(writing))

    async def _put(self, repository: str, name: str, written: _Written, facts: dict[str, Any]) -> None:
        with suppress(CancelledError):
            if await self._is_put(repository, name, written, facts):
                return
        self._known.pop((repository, name), None)

    async def _is_put(self, repository: str, name: str, written: _Written, facts: dict[str, Any]) -> bool:
        digest, now = written.digest, written.at
        found = await self._asked(self._record(repository, name))
        if self._archive.failure is not None or self._stopped:
            return False
        await self._learn(repository, name, found, Change(name, digest, now, now))
        changes = await self._history.changes(repository, name, MOST_SHARED)
        record = {
            "digest": None if digest is None else str(digest),
            **facts,
            "first_seen": changes[0].at if changes and changes[0].digest == digest else now,
            "last_seen": now,
            "history": [
                [each.at, None if each.digest is None else str(each.digest), each.first] for each in reversed(changes)
            ],
        }
        data = json.dumps(record).encode("ascii") + b"\n"
        if self._stopped:
            return False
        putting = self._archive.archive.put_record(self._key(repository, name), data)
        return await self._asked(self._archive.attempt(putting)) is None

    async def _asked(self, work: Coroutine[Any, Any, T]) -> T:
        asking = Deferred.fromCoroutine(work)
        self._asking.add(asking)
        try:
            return await asking
        finally:
            self._asking.discard(asking)

    async def stop(self) -> None:
        """Write no more, and use the catalog no more."""
        self._stopped = True
        for each in list(self._asking):
            each.cancel()
        await DeferredList(list(self._writing))

    def _key(self, repository: str, name: str) -> str:
        # What a narrow Accept selects of a tag has a space in its name, and a registry's name may have a port.
        return f"tags/{quote(self._upstream)}/{quote(repository)}/{quote(name, safe='')}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _history(name: str, found: dict[str, Any]) -> list[Change]:
    """The changes that a record tells, the oldest first; none where it is not docxy's."""
    rows = found.get("history")
    changes = []
    for row in rows[-MOST_SHARED:] if isinstance(rows, list) else ():
        if not isinstance(row, list) or len(row) != 3:
            return []
        at, digest, first = row
        parsed = Digest.maybe(digest) if isinstance(digest, str) else None
        if not _is_number(at) or not _is_number(first) or (parsed is None and digest is not None):
            return []
        changes.append(Change(name, parsed, float(at), float(first)))
    return sorted(changes, key=lambda each: each.at)

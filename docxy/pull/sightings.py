"""What one upstream's answers add to its history.

The law: only what the upstream itself just said is noted; an index and what it names have
one history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from cachetools import LRUCache

from docxy.catalog.interfaces import IHistory, Sighting, TagRecord
from docxy.content import Manifest, index_manifests
from docxy.names import INDEX_TYPES, Digest
from docxy.observe.alerts import Event, EventType

_INDEXES = 1_000
"""How many are remembered, so that each is read once."""


class Sightings:
    """Of one upstream."""

    def __init__(
        self,
        upstream: str,
        history: IHistory,
        happened: Callable[[Mapping[str, Any]], object],
        seconds: Callable[[], float],
    ) -> None:
        """`upstream`: its name; `happened`: told of tags that moved; `seconds`: the time since the epoch."""
        self._upstream = upstream
        self._happened = happened
        self._seconds = seconds
        self._history = history
        self._listed: MutableMapping[tuple[str, Digest, Sighting], bool] = LRUCache(_INDEXES)

    async def manifest(self, repository: str, manifest: Manifest) -> Sighting:
        """The upstream has this manifest; since when docxy knows it."""
        sighting = await self._history.seen(repository, manifest.digest)
        self.index(repository, manifest, sighting)
        return sighting

    def index(self, repository: str, manifest: Manifest, sighting: Sighting) -> None:
        """What an index names is as old as the index; nothing for other manifests, and for one without its bytes."""
        key = (repository, manifest.digest, sighting)
        if manifest.media_type in INDEX_TYPES and manifest.body is not None and key not in self._listed:
            self._listed[key] = True
            self._history.lists(repository, sighting, index_manifests(manifest))

    def tag(self, repository: str, name: str, before: TagRecord | None, digest: Digest | None) -> None:
        """The upstream says where a tag leads, by its name in the catalog; None: nowhere any more.

        `before`: what was known of it.
        """
        if before is not None and before.digest == digest:
            return
        self._history.changed(repository, name, digest)
        if before is not None and " " not in name:  # else it is what a narrow Accept selects
            told = {"digest": None if digest is None else str(digest), "previous": str(before.digest)}
            kind = EventType.TAG_VANISHED if digest is None else EventType.TAG_MOVED
            subject = f"{self._upstream}/{repository}:{name}"
            self._happened(Event(kind, subject, self._seconds(), told).to_json())

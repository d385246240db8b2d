"""Telling the store what the history of tags names, so that it can be had as it was.

The law: what a tag led to is remembered for as long as its history, from the last pull by that tag; and with it what it
names, as far as its bytes pass.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from attrs import define, field
from cachetools import LRUCache

from docxy.catalog.interfaces import is_recent
from docxy.content import Manifest, index_manifests, listed
from docxy.names import Digest
from docxy.storage.interfaces import IBlobStore

AGAIN = 600.0
"""Seconds within which the same is not told again."""
_KNOWN = 5_000
"""Manifests of which it is known when they were told of."""


@define
class Remembering:
    """For one upstream."""

    _store: IBlobStore
    _history: Callable[[], float]
    """Seconds, as the operator wants it now."""
    _seconds: Callable[[], float]
    """The time since the epoch."""
    _told: MutableMapping[tuple[Digest, bool, bool], float] = field(init=False, factory=lambda: LRUCache(_KNOWN))

    def served(self, manifest: Manifest, by_tag: bool) -> None:
        """A client got this manifest, by a tag or by its digest."""
        now = self._seconds()
        key = (manifest.digest, by_tag, manifest.body is not None)
        if is_recent(self._told.get(key, float("-inf")), now, AGAIN):
            return
        parts = [*index_manifests(manifest), *(each.digest for each in listed(manifest))]
        if by_tag:
            self._store.remember(manifest.digest, now + self._history(), parts)
        elif parts:
            self._store.belongs(manifest.digest, parts)
        self._told[key] = now

"""The part of each upstream in a catalog, the same over rows in a file and in memory.

The law: there is one of each upstream as long as somebody has it: clients may name many, and two of one upstream
would not know of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from attrs import field, frozen

from docxy.catalog.history import History, IChanges
from docxy.catalog.interfaces import TagRecord, UpstreamCatalog
from docxy.catalog.known import Held, IScans, Listings, Missing, Tags, Verdicts
from docxy.catalog.rows import IRows
from docxy.catalog.schema import HeldRow, SightingRow


@frozen
class Upstreams:
    """Makes each upstream's part from the tables, which hold the rows of all upstreams."""

    tags: IRows[TagRecord]
    held: IRows[HeldRow]
    verdicts: IRows[Any]
    public: IRows[Any]
    listings: IRows[Any]
    sightings: IRows[SightingRow]
    changes: IChanges
    scans: IScans
    seconds: Callable[[], float]
    """The time since the epoch."""
    _made: WeakValueDictionary[str, UpstreamCatalog] = field(init=False, factory=WeakValueDictionary)

    def of(self, name: str) -> UpstreamCatalog:
        """The one of this upstream."""
        known = self._made.get(name)
        if known is None:
            known = self._made[name] = UpstreamCatalog(
                name,
                Tags(self.tags, self.scans, name, self.seconds),
                Held(self.held, self.scans, name, self.seconds),
                Verdicts(self.verdicts, self.public, name, self.seconds),
                Listings(self.listings, name, self.seconds),
                Missing(self.seconds),
                History(self.sightings, self.changes, name, self.seconds),
            )
        return known

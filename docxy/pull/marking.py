"""Which blobs were used, told to the archive, so that `docxy gc --archive` keeps them.

The law: *each process tells the archive of a use once a day, many in one record, and nobody waits for it.*  What
is in the cache, its index dates; of clients that were sent to the archive, each process knows its own.  A day is UTC's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from secrets import token_hex

from docxy.archive.calm import CalmArchive
from docxy.archive.links import Links
from docxy.names import Digest
from docxy.storage.ledger import Ledger

SEEN = "seen"
"""Records are `seen/<date>/<name>`: a digest a line."""
PAGE = 5_000
"""Digests in a record, which is then a third of what an archive reads."""
MOST_TOLD = 100_000
"""Blobs of a day that are remembered as told; with more, some are told again."""
LATE = 60.0
"""Seconds by which a process may write down a use after a later one was read: more than it takes by far."""
_DAY = 86400.0


class Marking:
    """Of one process."""

    def __init__(
        self, archive: CalmArchive, ledger: Ledger | None, links: Links | None, seconds: Callable[[], float]
    ) -> None:
        """`ledger`: None where another process looks into the index; `seconds`: the time since the epoch."""
        self._archive = archive
        self._ledger = ledger
        self._links = links
        self._seconds = seconds
        self._name = token_hex(8)
        self._count = 0
        self._day = ""
        self._told: set[Digest] = set()
        self._after = seconds() - _DAY
        """The use until which the index was read."""

    async def work(self) -> None:
        """Tell what was used since the last time, or until the archive fails.  Raises StorageError."""
        if self._archive.failure is not None:
            return
        day = datetime.fromtimestamp(self._seconds(), timezone.utc).date().isoformat()
        if day != self._day:
            self._day = day
            self._told.clear()
        if self._links is not None:
            given = self._links.given(PAGE)
            if not await self._tell(given):
                return
            self._links.told(given)
        after = self._after - LATE
        while self._ledger is not None:
            page = await self._ledger.used_since(after, PAGE)
            if not page or not await self._tell([digest for digest, _ in page]):
                return
            self._after = after = page[-1][1]

    async def _tell(self, digests: Sequence[Digest]) -> bool:
        """Whether the archive knows of these uses."""
        new = [digest for digest in digests if digest not in self._told]
        if not new:
            return True
        data = "".join(f"{digest}\n" for digest in new).encode("ascii")
        self._count += 1
        record = f"{SEEN}/{self._day}/{self._name}-{self._count}"
        if await self._archive.attempt(self._archive.archive.put_record(record, data)) is not None:
            return False
        if len(self._told) + len(new) > MOST_TOLD:
            self._told.clear()
        self._told.update(new)
        return True

"""Where clients get blobs themselves, one answer of the store for all who ask.

The law: *a blob costs the store one question a minute, however many clients want it*.  What the store has it may lose
at any time, so an answer is believed for `BELIEVED_FOR` and no longer; a URL outlives that by minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from cachetools import TTLCache
from twisted.internet.interfaces import IReactorTime

from docxy.archive.calm import CalmArchive
from docxy.archive.interfaces import Link
from docxy.names import Digest
from docxy.single_flight import SingleFlight

BELIEVED_FOR = 60.0
"""Seconds."""
ABSENT_FOR = 5.0
"""Seconds for which a blob that is not there, or cannot be asked for, is not asked for."""
MOST = 10_000
"""Blobs of which either is remembered."""


class Links:
    """Of one archive."""

    def __init__(self, archive: CalmArchive, clock: IReactorTime) -> None:
        self._archive = archive
        self._known: TTLCache[Digest, Link] = TTLCache(MOST, BELIEVED_FOR, timer=clock.seconds)
        self._absent: TTLCache[Digest, None] = TTLCache(MOST, ABSENT_FOR, timer=clock.seconds)
        self._given: dict[Digest, None] = {}
        """Blobs that clients were sent for, and nobody was told of."""
        self._asking: SingleFlight[Digest, Link | None] = SingleFlight()

    async def get(self, digest: Digest) -> Link | None:
        """Where clients can get a blob; None: nowhere, as far as can be known."""
        known = self._known.get(digest)
        if known is None and digest not in self._absent:
            known = await self._asking.do(digest, lambda: self._ask(digest))
        if known is not None and len(self._given) < MOST:
            self._given[digest] = None
        return known

    def given(self, most: int) -> list[Digest]:
        """Some of the blobs that clients were sent for and nobody was told of."""
        return list(islice(self._given, most))

    def told(self, digests: Iterable[Digest]) -> None:
        """Somebody was told of these."""
        for digest in digests:
            self._given.pop(digest, None)

    async def stop(self) -> None:
        """Ask nothing any more, and wait until what runs has ended."""
        await self._asking.stop()

    async def _ask(self, digest: Digest) -> Link | None:
        found = await self._archive.link(digest)
        if found is None:
            self._absent[digest] = None
        else:
            self._known[digest] = found
        return found

"""An archive as pulls ask it: bounded, and left alone while it fails.

The law: *no client waits for the archive longer than `ANSWER_WITHIN`, and a failure is a miss.*  After a failure
no pull asks the archive for a pause, which doubles with each failure in a row; then one request tries it.  The log
says once that the archive fails, and once that it answers again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from attrs import evolve, frozen
from cachetools import TTLCache
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from docxy.archive.interfaces import ArchiveError, Found, IArchive, Link
from docxy.bodies import IBody
from docxy.errors import RegistryError
from docxy.names import Digest

T = TypeVar("T")

ANSWER_WITHIN = 3.0
"""Seconds for the first answer."""
_SHORTEST, _LONGEST = 5.0, 300.0
"""Seconds for which an archive that failed is left alone."""
_WRONG, _WRONG_FOR = 10_000, 3600.0
"""Blobs that were wrong there, and seconds for which they are not asked for."""


@implementer(IBody)
@frozen
class _Counted:
    """A body whose bytes are counted."""

    body: IBody
    moved: Counter[str]

    async def read(self) -> bytes:
        data = await self.body.read()
        self.moved["read"] += len(data)
        return data

    def close(self) -> None:
        self.body.close()


class CalmArchive:
    """Asks an archive, and keeps count."""

    _log = Logger()

    def __init__(self, archive: IArchive, clock: IReactorTime) -> None:
        self.archive = archive
        self.counts: Counter[tuple[str, str]] = Counter()
        """How often what was asked, and what came of it: `read` with `hit`, `miss`, `failed` or `wrong`, `put` with
        `done`, `there` or `failed`, and so on."""
        self.moved: Counter[str] = Counter()
        """Bytes that were `put` and `read`."""
        self.failure: str | None = None
        """Why the archive is left alone; None: it answers."""
        self._clock = clock
        self._due = 0.0
        self._pause = _SHORTEST
        self._asking = False
        self._wrong: TTLCache[Digest, None] = TTLCache(_WRONG, _WRONG_FOR, timer=clock.seconds)

    async def open(self, digest: Digest, first: int) -> Found | None:
        """As `IArchive.open`, but raises nothing; None also where it cannot be known."""
        if digest in self._wrong:
            return None
        found = await self._ask("read", self.archive.open(digest, first))
        return None if found is None else evolve(found, body=_Counted(found.body, self.moved))

    async def link(self, digest: Digest) -> Link | None:
        """As `IArchive.link`, but raises nothing; None also where it cannot be known."""
        if digest in self._wrong:
            return None
        return await self._ask("link", self.archive.link(digest))

    async def small(self, digest: Digest, most: int) -> bytes | None:
        """All of a small blob, which hashes to the digest; None where it cannot be had, or has more bytes than this."""
        if digest in self._wrong:
            return None
        data = await self._ask("read", self._small(digest, most))
        if data is None or Digest.of(data, digest.algorithm) == digest:
            return data
        await self.wrong(digest)
        return None

    async def _small(self, digest: Digest, most: int) -> bytes | None:
        found = await self.archive.open(digest, 0)
        if found is None:
            return None
        pieces: list[bytes] = []
        try:
            while found.size <= most and (data := await found.body.read()):
                pieces.append(data)
                self.moved["read"] += len(data)
        except RegistryError as error:
            raise ArchiveError(f"{self.archive.name}: {error}") from error
        finally:
            found.body.close()
        return b"".join(pieces) if found.size <= most else None

    async def record(self, name: str) -> bytes | None:
        """As `IArchive.record`, but raises nothing; None also where it cannot be known."""
        return await self._ask("record", self.archive.record(name))

    async def _ask(self, what: str, work: Coroutine[Any, Any, T | None]) -> T | None:
        if self.failure is not None and (self._asking or self._clock.seconds() < self._due):
            work.close()
            return None
        self._asking = True
        try:
            found = await Deferred.fromCoroutine(work).addTimeout(ANSWER_WITHIN, self._clock)
        except TimeoutError:
            self.failed(f"{self.archive.name} did not answer within {ANSWER_WITHIN:g} s")
        except ArchiveError as error:
            self.failed(str(error))
        else:
            self.counts[what, "miss" if found is None else "hit"] += 1
            self.answered()
            return found
        finally:
            self._asking = False
        self.counts[what, "failed"] += 1
        return None

    async def wrong(self, digest: Digest) -> None:
        """The archive's bytes are not those of the digest: it is not asked for them, and they are removed there."""
        self.counts["read", "wrong"] += 1
        self._wrong[digest] = None
        self._log.error(
            "{digest} is wrong in {name}: it is removed there, and fetched from its registry",
            digest=digest,
            name=self.archive.name,
        )
        await self.attempt(self.archive.drop(digest))

    async def attempt(self, work: Awaitable[object]) -> str | None:
        """Work that nobody waits for; why it failed, None when it did not."""
        try:
            await work
        except ArchiveError as error:
            self.failed(str(error))
            return str(error)
        self.answered()
        return None

    def failed(self, why: str) -> None:
        """Leave it alone for a while."""
        if self.failure is None:
            self._log.error("degraded: {why}; pulls go on without the archive", why=why)
        else:
            self._pause = min(_LONGEST, 2 * self._pause)
        self.failure = why
        self._due = self._clock.seconds() + self._pause

    def answered(self) -> None:
        """It works."""
        if self.failure is not None:
            self._log.info("{name} answers again", name=self.archive.name)
        self.failure = None
        self._pause = _SHORTEST

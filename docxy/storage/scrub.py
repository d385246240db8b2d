"""Finding bits that flipped on the disk: every committed blob is hashed again, now and then.

The law: the scrubber is the last in line.  It reads one blob at a time, the one whose last check
is the oldest, and rests longer than it works.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import StorageError

_REST = 9.0
"""Times as long as it worked: a tenth of one thread and of the disk."""
_SHORTEST = 0.01
_LONGEST = 3600.0
"""Seconds to wait at least and at most."""


@define(eq=False)
class Scrubber:
    """Checks every blob once within each `interval` seconds, between `start` and `stop`; never, when it is 0."""

    _store: FilesystemStore
    _clock: IReactorTime
    _interval: float
    _running: Deferred[None] | None = field(init=False, default=None)
    _resumed: float = field(init=False, default=0.0)

    _log = Logger()

    def start(self) -> None:
        """Check from now on."""
        if self._interval > 0:
            self._running = Deferred.fromCoroutine(self._run()).addErrback(self._ended)

    async def stop(self) -> None:
        """Returns when no check runs."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await running

    def _ended(self, reason: Failure) -> None:
        if reason.check(CancelledError) is None:
            self._log.failure("the blobs on disk are no longer checked", reason)

    async def _run(self) -> None:
        while True:
            try:
                found = await self.scrub_once()
            except StorageError as error:
                self._log.error("cannot check the blobs on disk: {error}", error=error)
                found = False
            if not found:
                await self._sleep(min(self._interval, _LONGEST))

    async def scrub_once(self) -> bool:
        """Check the blob that is due, if one is; whether one was.  Raises StorageError."""
        digest = await self._store.next_check(self._clock.seconds() - self._interval)
        if digest is None:
            return False
        self._resumed = self._clock.seconds()
        await self._store.verify(digest, self._rest)
        await self._rest()
        return True

    async def _rest(self) -> None:
        worked = self._clock.seconds() - self._resumed
        await self._sleep(max(_SHORTEST, min(worked * _REST, _LONGEST)))
        self._resumed = self._clock.seconds()

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self._clock, seconds, lambda: None)

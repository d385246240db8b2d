"""Filling what a client is about to ask for.

The law: only what a platform's manifest lists, in its order, a few at a time, in the name
of the client that got the manifest; what fails is left for the client's own request.  At the stop
none is left, running or in the queue.
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import TTLCache
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.content import Manifest, listed
from docxy.errors import RegistryError
from docxy.names import Digest
from docxy.pull.blobs.cache import BlobCache
from docxy.pull.caller import Caller

AT_ONCE = 4
"""Blobs of one upstream that are prefetched at the same time."""
AGAIN = 60.0
"""Seconds after which a second pull of a manifest prefetches again: its blobs may be evicted by then."""
MAX_SEEN = 10_000
"""Manifests that are remembered for that long."""
MAX_QUEUED = 1_000
"""Blobs of one upstream that are prefetched or wait for it; more are left for the clients' own requests."""


class Prefetch:
    """Starts fills for one upstream."""

    _log = Logger()

    def __init__(self, blobs: BlobCache, clock: IReactorTime, refuses: Callable[[Manifest], bool]) -> None:
        """`refuses`: whether a manifest is not to be served, so that nothing of it is worth fetching."""
        self._refuses = refuses
        self._blobs = blobs
        self._seen_to: TTLCache[tuple[str, Digest, str], None] = TTLCache(MAX_SEEN, AGAIN, timer=clock.seconds)
        self._free = DeferredSemaphore(AT_ONCE)
        self._running: dict[Deferred[None], None] = {}
        """The oldest first; also those that wait for their turn."""

    def start(self, repository: str, manifest: Manifest, caller: Caller) -> None:
        """Fill what the manifest lists, soon, unless that was seen to a moment ago; returns at once."""
        key = (repository, manifest.digest, caller.credential)
        if key in self._seen_to or self._refuses(manifest):
            return
        self._seen_to[key] = None
        for descriptor in listed(manifest):
            if len(self._running) >= MAX_QUEUED:
                return
            running = Deferred.fromCoroutine(self._fill(repository, descriptor.digest, caller))
            self._running[running] = None
            running.addErrback(self._failed).addCallback(self._ended, running)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a prefetch failed", failure)

    def _ended(self, _: None, running: Deferred[None]) -> None:
        del self._running[running]

    async def stop(self) -> None:
        """End all of it, those in the queue first: the end of one before them would begin the next."""
        for running in reversed([*self._running]):
            running.cancel()

    async def _fill(self, repository: str, digest: Digest, caller: Caller) -> None:
        await self._free.acquire()
        try:
            end = await self._blobs.prefetch(repository, digest, caller)
            if end is not None:
                await end
        except RegistryError as error:
            self._log.info("{digest} was not prefetched: {error}", digest=digest, error=error)
        finally:
            self._free.release()

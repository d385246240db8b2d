"""Filling what a client is about to ask for.

The law: only what a platform's manifest lists, in its order, a few at a time, in the name
of the client that got the manifest; what fails is left for the client's own request.
"""

from __future__ import annotations

import json

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.errors import RegistryError
from docxy.names import MANIFEST_TYPES, Descriptor, Digest
from docxy.pull.blobs import BlobCache
from docxy.upstream.remote import Manifest

AT_ONCE = 4
"""Blobs of one upstream that are prefetched at the same time."""
AGAIN = 60.0
"""Seconds after which a manifest that is asked for again is looked at again: its blobs may be evicted by then."""
MAX_LISTED = 1000


def listed(manifest: Manifest) -> list[Descriptor]:
    """Config and layers of a platform's manifest, in order; nothing for an index.

    Layers that are somewhere else (foreign ones, with `urls`) and malformed ones are left out.
    """
    if manifest.media_type not in MANIFEST_TYPES or manifest.body is None:
        return []
    parsed = json.loads(manifest.body)
    layers = parsed.get("layers")
    out: list[Descriptor] = []
    for entry in [parsed.get("config"), *(layers if isinstance(layers, list) else [])][:MAX_LISTED]:
        try:
            if not entry.get("urls"):
                out.append(Descriptor(str(entry["mediaType"]), Digest.parse(entry["digest"]), int(entry["size"])))
        except (RegistryError, AttributeError, LookupError, TypeError, ValueError):
            continue
    return out


class Prefetch:
    """Starts fills for one upstream."""

    _log = Logger()

    def __init__(self, blobs: BlobCache, clock: IReactorTime) -> None:
        self._blobs = blobs
        self._clock = clock
        self._seen_to: dict[tuple[str, Digest, str], float] = {}
        self._free = DeferredSemaphore(AT_ONCE)

    def start(self, repository: str, manifest: Manifest, authorization: str | None, credential: str) -> None:
        """Fill what the manifest lists, soon, unless that was seen to a moment ago; returns at once."""
        key = (repository, manifest.digest, credential)
        now = self._clock.seconds()
        if self._seen_to.get(key, now) > now:
            return
        self._seen_to = {seen: until for seen, until in self._seen_to.items() if until > now}
        self._seen_to[key] = now + AGAIN
        for descriptor in listed(manifest):
            running = Deferred.fromCoroutine(self._fill(repository, descriptor.digest, authorization, credential))
            running.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a prefetch failed", failure)

    async def _fill(self, repository: str, digest: Digest, authorization: str | None, credential: str) -> None:
        await self._free.acquire()
        try:
            end = await self._blobs.prefetch(repository, digest, authorization, credential)
            if end is not None:
                await end
        except RegistryError as error:
            self._log.info("{digest} was not prefetched: {error}", digest=digest, error=error)
        finally:
            self._free.release()

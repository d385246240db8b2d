"""Blobs that clients get from the archive themselves.

The law: *whom docxy would not serve it does not send there either*: who may read the repository is decided before
anyone comes here, and that the repository has the blob is the upstream's to say, as ever.  Who cannot be sent there is
served as without any of this.
"""

from __future__ import annotations

from attrs import frozen

from docxy.archive.interfaces import Link
from docxy.archive.links import Links
from docxy.catalog.interfaces import IHeld
from docxy.errors import TooManyRequests, UpstreamError
from docxy.names import Digest
from docxy.pull.blobs.sizes import Sizes
from docxy.pull.caller import Caller
from docxy.storage.interfaces import IBlobStore, StorageError
from docxy.upstream.remote import Remote

FROM = 64 * 1024
"""Bytes: what is smaller costs less than another connection of the client's."""


@frozen
class Elsewhere:
    """Of one upstream."""

    links: Links
    always: bool
    """Whether clients are sent for what is in the cache, too."""
    remote: Remote
    store: IBlobStore
    held: IHeld
    sizes: Sizes

    async def link(self, repository: str, digest: Digest, caller: Caller) -> Link | None:
        """Where this client gets the blob; None: from docxy.  Raises what the upstream says of the blob."""
        listed = self.sizes.get(repository, digest)
        if (
            caller.cached_only
            or (listed is not None and listed < FROM)
            or not (self.always or await self._cold(digest))
        ):
            return None
        found = await self.links.get(digest)
        if found is None or found.size < FROM or listed not in (None, found.size):
            return None
        if not await self.held.blob(repository, digest):
            try:
                told = await self.remote.blob_size(repository, digest, caller.authorization)
            except (UpstreamError, TooManyRequests):
                return None
            if listed is None and told not in (None, 0, found.size):
                return None
            self.held.hold_blob(repository, digest)
        return found

    async def _cold(self, digest: Digest) -> bool:
        try:
            return await self.store.stat(digest) is None
        except StorageError:
            return True

"""A pull through the cache.

The law: this module only leads each question to who answers it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from attrs import frozen
from zope.interface import implementer

from docxy.errors import ManifestUnknown, NameUnknown, Unauthorized
from docxy.names import Digest, Reference
from docxy.pull.access import IAccess
from docxy.pull.blobs import BlobCache
from docxy.pull.interfaces import IPull, PulledBlob, PulledListing, PulledManifest
from docxy.pull.listings import ListingCache
from docxy.pull.login import ILogin
from docxy.pull.manifests import Client, ManifestCache
from docxy.pull.prefetch import Prefetch
from docxy.pull.status import MISS, CacheStatus
from docxy.ranges import Range
from docxy.upstream.remote import Listing, Remote

T = TypeVar("T")


@implementer(IPull)
@frozen
class CachedPull:
    """One upstream, cached."""

    unanswered = MISS

    remote: Remote
    login: ILogin
    access: IAccess
    manifests: ManifestCache
    blobs: BlobCache
    listings: ListingCache
    prefetch: Prefetch | None

    async def ping(self, authorization: str | None) -> None:
        await self.login.ping(authorization)

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        return await self.login.token(parameters, authorization, post)

    async def manifest(
        self, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> PulledManifest:
        client = Client(authorization, accept, head=False)
        pulled = await self._challenged(self.manifests.get(repository, reference, client))
        if self.prefetch is not None and not self.access.cached_only(repository, authorization):
            credential = self.access.credential(authorization)
            self.prefetch.start(repository, pulled.manifest, authorization, credential)
        return pulled

    async def head_manifest(
        self, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> PulledManifest:
        client = Client(authorization, accept, head=True)
        return await self._challenged(self.manifests.get(repository, reference, client))

    async def blob(self, repository: str, digest: Digest, asked: Range | None, authorization: str | None) -> PulledBlob:
        cached_only = await self._challenged(self._allow(repository, digest, authorization))
        credential = self.access.credential(authorization)
        return await self.blobs.blob(repository, digest, asked, authorization, credential, cached_only)

    async def blob_size(
        self, repository: str, digest: Digest, authorization: str | None
    ) -> tuple[int | None, CacheStatus]:
        cached_only = await self._challenged(self._allow(repository, digest, authorization))
        credential = self.access.credential(authorization)
        return await self.blobs.size(repository, digest, authorization, credential, cached_only)

    async def tags(self, repository: str, query: str, authorization: str | None) -> PulledListing:
        async def ask() -> Listing:
            return await self.remote.tags(repository, query, authorization)

        page = f"tags/list?{query}"
        return await self._challenged(self.listings.get(repository, page, authorization, NameUnknown, ask))

    def repositories(self, after: str, limit: int) -> list[str]:
        return self.access.known(after, limit)

    async def referrers(self, repository: str, digest: Digest, query: str, authorization: str | None) -> PulledListing:
        async def ask() -> Listing:
            return await self.remote.referrers(repository, digest, query, authorization)

        page = f"referrers/{digest}?{query}"
        return await self._challenged(self.listings.get(repository, page, authorization, ManifestUnknown, ask))

    async def _allow(self, repository: str, digest: Digest, authorization: str | None) -> bool:
        """Returns when the client may read the repository: whether only from the cache."""
        cached_only = self.access.cached_only(repository, authorization)
        await self.access.allow(repository, None, authorization, digest)
        return cached_only

    async def _challenged(self, work: Awaitable[T]) -> T:
        """A pass that does not do is refused as no credential is: with the challenge that leads to another."""
        try:
            return await work
        except Unauthorized as error:
            if not error.headers:
                await self.login.ping(None)
            raise

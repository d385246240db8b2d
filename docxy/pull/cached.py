"""A pull through the cache.

The law: this module only leads each question to who answers it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from attrs import frozen
from zope.interface import implementer

from docxy.archive.interfaces import Link
from docxy.catalog.interfaces import IHistory
from docxy.content import Listing
from docxy.errors import ManifestUnknown, NameUnknown, Unauthorized, UpstreamError
from docxy.names import Digest, Reference, Tag
from docxy.pull.as_of import Dated
from docxy.pull.blobs.cache import BlobCache
from docxy.pull.blobs.elsewhere import Elsewhere
from docxy.pull.cache_status import MISS, CacheStatus
from docxy.pull.caller import Caller
from docxy.pull.cooldown import Cooled
from docxy.pull.interfaces import CachedTag, IPull, PulledBlob, PulledListing, PulledManifest, TagChange
from docxy.pull.inventory import UpstreamInventory
from docxy.pull.listings import ListingCache
from docxy.pull.manifests import ManifestCache
from docxy.pull.prefetch import Prefetch
from docxy.pull.remembering import Remembering
from docxy.pull.rights.login import ILogin
from docxy.pull.rights.verdicts import IRights
from docxy.ranges import Range
from docxy.upstream.remote import Remote

T = TypeVar("T")


@implementer(IPull)
@frozen
class CachedPull:
    """One upstream, cached."""

    unanswered = MISS

    remote: Remote
    login: ILogin
    rights: IRights
    manifests: ManifestCache
    dated: Dated
    cooled: Cooled
    blobs: BlobCache
    away: Elsewhere | None
    """None: clients get every blob from docxy."""
    listings: ListingCache
    prefetch: Prefetch | None
    inventory: UpstreamInventory
    history: IHistory
    remembering: Remembering

    async def ping(self, authorization: str | None) -> None:
        await self.login.ping(authorization)

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        return await self.login.token(parameters, authorization, post)

    async def caller(self, repository: str, authorization: str | None, accept: Sequence[str] = ()) -> Caller:
        try:
            return await self.rights.caller(repository, authorization, accept)
        except Unauthorized as error:
            raise await self._challenging(error) from None

    async def manifest(self, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        pulled = await self._challenged(caller, self.dated.get(repository, reference, caller, head=False))
        self.blobs.sizes.learn(repository, pulled.manifest)
        self.remembering.served(pulled.manifest, isinstance(reference, Tag))
        if self.prefetch is not None and not caller.cached_only:
            self.prefetch.start(repository, pulled.manifest, caller)
        return pulled

    async def head_manifest(self, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        pulled = await self._challenged(caller, self.dated.get(repository, reference, caller, head=True))
        self.remembering.served(pulled.manifest, isinstance(reference, Tag))
        return pulled

    async def blob(self, repository: str, digest: Digest, asked: Range | None, caller: Caller) -> PulledBlob:
        await self._check_blob(repository, digest, caller)
        return await self._challenged(caller, self.blobs.blob(repository, digest, asked, caller))

    @property
    def redirects(self) -> bool:
        return self.away is not None

    async def elsewhere(self, repository: str, digest: Digest, caller: Caller) -> Link | None:
        if self.away is None:
            return None
        await self._check_blob(repository, digest, caller)
        return await self._challenged(caller, self.away.link(repository, digest, caller))

    async def blob_size(self, repository: str, digest: Digest, caller: Caller) -> tuple[int | None, CacheStatus]:
        await self._check_blob(repository, digest, caller)
        return await self._challenged(caller, self.blobs.size(repository, digest, caller))

    async def _check_blob(self, repository: str, digest: Digest, caller: Caller) -> None:
        """Raises RegistryError for a blob that this client may not have, or nobody may have yet."""
        await self._challenged(caller, self.rights.allow(repository, caller, blob=digest))
        await self.cooled.check_blob(repository, digest)

    async def tags(self, repository: str, query: str, caller: Caller) -> PulledListing:
        async def ask() -> Listing:
            return await self.remote.tags(repository, query, caller.authorization)

        page = f"tags/list?{query}"
        return await self._challenged(caller, self.listings.get(repository, page, caller, NameUnknown, ask))

    async def repositories(self, after: str, limit: int) -> list[str]:
        return await self.rights.known(after, limit)

    async def cached(self, repository: str, limit: int) -> list[CachedTag]:
        return await self.inventory.tags(repository, limit)

    async def changes(self, repository: str, tag: str | None, limit: int) -> list[TagChange]:
        found = await self.history.changes(repository, tag, limit)
        # What a narrow Accept selects of a tag has a space in its name.
        return [
            TagChange(each.tag, None if each.digest is None else str(each.digest), each.at, each.first)
            for each in found
            if " " not in each.tag
        ]

    async def nameable(self, repositories: Sequence[str]) -> list[str]:
        return await self.rights.nameable(repositories)

    async def referrers(self, repository: str, digest: Digest, query: str, caller: Caller) -> PulledListing:
        async def ask() -> Listing:
            return await self.remote.referrers(repository, digest, query, caller.authorization)

        page = f"referrers/{digest}?{query}"
        return await self._challenged(caller, self.listings.get(repository, page, caller, ManifestUnknown, ask))

    async def _challenged(self, caller: Caller, work: Awaitable[T]) -> T:
        """Work's result; a client without a token is challenged where the upstream cannot do it itself."""
        try:
            return await work
        except Unauthorized as error:
            raise await self._challenging(error) from None
        except UpstreamError:
            # With a token, or the pass that stands in for one, what is cached can still be read.
            if caller.authorization is None:
                await self.login.ping(None)
            raise

    async def _challenging(self, error: Unauthorized) -> Unauthorized:
        """This refusal; raises one with the upstream's challenge where it has none, as for a client without a token."""
        if not error.headers:
            await self.login.ping(None)
        return error

"""A pull behind the gates: of every upstream, with a cache and without.

The law: *nothing of an image goes out that was not asked at the gates*, before the pull is asked, for what its name
says, and after it, for what it turned out to be.  It stands around every pull, so that no kind of hit, miss,
range or HEAD has a way of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import evolve, frozen
from zope.interface import implementer

from docxy.archive.interfaces import Link
from docxy.bodies import BytesBody
from docxy.content import LARGEST_MANIFEST
from docxy.errors import FrozenGone, ManifestUnknown, RegistryError
from docxy.names import Digest, Reference, Tag
from docxy.orders.standing import Standing
from docxy.pull.cache_status import FROZEN, CacheStatus
from docxy.pull.caller import Caller
from docxy.pull.gates.cut import cuttable
from docxy.pull.gates.gates import Delivery, Gates
from docxy.pull.gates.others import others_of
from docxy.pull.interfaces import CachedTag, IPull, PulledBlob, PulledListing, PulledManifest, TagChange
from docxy.ranges import Range

USUAL = "sha256"
"""The algorithm of nearly all digests."""
Ask = Callable[[str, Reference, Caller], Awaitable[PulledManifest]]


@implementer(IPull)
@frozen
class GatedPull:
    """One upstream's pull."""

    name: str
    """The upstream's."""
    pull: Any
    """IPull: what serves."""
    gates: Gates

    @property
    def unanswered(self) -> CacheStatus:
        status: CacheStatus = self.pull.unanswered
        return status

    async def ping(self, authorization: str | None) -> None:
        await self.pull.ping(authorization)

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        answer: dict[str, object] = await self.pull.token(parameters, authorization, post)
        return answer

    async def caller(self, repository: str, authorization: str | None, accept: Sequence[str] = ()) -> Caller:
        caller: Caller = await self.pull.caller(repository, authorization, accept)
        return caller

    async def manifest(self, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        return await self._manifest(self.pull.manifest, repository, reference, caller)

    async def head_manifest(self, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        return await self._manifest(self.pull.head_manifest, repository, reference, caller)

    async def _manifest(self, ask: Ask, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        await self.gates.refuse(self.name, repository, reference)
        digest = self.gates.frozen(self.name, repository, reference) if isinstance(reference, Tag) else None
        if digest is None:
            pulled = await ask(repository, reference, caller)
        else:
            pulled = await self._frozen(ask, repository, reference, digest, caller)
        # It may have been recalled meanwhile, and what a tag leads to is known only now.
        await self.gates.refuse(self.name, repository, reference)
        if not await self.gates.refuse_manifest(self.name, repository, pulled.manifest):
            whole = await self.pull.manifest(repository, pulled.manifest.digest, caller)
            await self.gates.refuse_manifest(self.name, repository, whole.manifest)
        return pulled

    async def _frozen(
        self, ask: Ask, repository: str, tag: Reference, digest: Digest, caller: Caller
    ) -> PulledManifest:
        """What the operator froze a tag at, which the upstream serves by its digest wherever the tag is now."""
        try:
            pulled = await ask(repository, digest, caller)
        except ManifestUnknown as error:
            raise FrozenGone(
                f"{self.name}/{repository}:{tag} is frozen at {digest} by this mirror's operator, and that is neither "
                f"cached nor on the upstream any more",
                headers=error.headers,
            ) from None
        return evolve(pulled, status=evolve(pulled.status, detail=pulled.status.detail or FROZEN))

    async def blob(self, repository: str, digest: Digest, asked: Range | None, caller: Caller) -> PulledBlob:
        await self._refuse_blob(repository, digest, caller)
        pulled: PulledBlob = await self.pull.blob(repository, digest, asked, caller)
        if isinstance(pulled.body, BytesBody):  # all of it goes out at once
            await self.gates.refuse(self.name, repository, digest)
            return pulled
        body = cuttable(pulled.body, self.gates.ended)
        self.gates.follows(body, Delivery(self.name, repository, digest))
        try:
            # An order that came while it was opened, before it could be cut.
            await self.gates.refuse(self.name, repository, digest)
        except BaseException:
            body.close()
            raise
        return evolve(pulled, body=body)

    @property
    def redirects(self) -> bool:
        return bool(self.pull.redirects)

    async def elsewhere(self, repository: str, digest: Digest, caller: Caller) -> Link | None:
        await self._refuse_blob(repository, digest, caller)
        link: Link | None = await self.pull.elsewhere(repository, digest, caller)
        if link is not None:
            await self.gates.refuse(self.name, repository, digest)
        return link

    async def _refuse_blob(self, repository: str, digest: Digest, caller: Caller) -> None:
        """Raises Recalled for a blob that is recalled by its digest, or by another algorithm's.

        Where only the bytes can tell, they are read before any goes out; of those that are asked for by the usual
        algorithm, no more than a manifest may have: to read each layer twice would be worse than what it is against.
        """
        await self.gates.refuse(self.name, repository, digest)
        if not self.gates.is_doubtful(digest):
            return
        others = self.gates.others(digest)
        if others is None:
            pulled: PulledBlob = await self.pull.blob(repository, digest, None, caller)
            if digest.algorithm == USUAL and (pulled.span is None or pulled.span.size > LARGEST_MANIFEST):
                pulled.body.close()
                return
            others = await others_of(digest, pulled.body)
        self.gates.refuse_others(digest, others)

    async def blob_size(self, repository: str, digest: Digest, caller: Caller) -> tuple[int | None, CacheStatus]:
        await self._refuse_blob(repository, digest, caller)
        size: tuple[int | None, CacheStatus] = await self.pull.blob_size(repository, digest, caller)
        await self.gates.refuse(self.name, repository, digest)
        return size

    async def tags(self, repository: str, query: str, caller: Caller) -> PulledListing:
        self.gates.refuse_name(self.name, repository, None)
        listing: PulledListing = await self.pull.tags(repository, query, caller)
        return listing

    async def referrers(self, repository: str, digest: Digest, query: str, caller: Caller) -> PulledListing:
        await self.gates.refuse(self.name, repository, digest)
        listing: PulledListing = await self.pull.referrers(repository, digest, query, caller)
        return listing

    async def repositories(self, after: str, limit: int) -> list[str]:
        names: list[str] = await self.pull.repositories(after, limit)
        return names

    async def cached(self, repository: str, limit: int) -> list[CachedTag]:
        tags: list[CachedTag] = await self.pull.cached(repository, limit)
        try:
            stands = self.gates.standing
        except RegistryError:
            return tags
        return [evolve(tag, marks=_marks(stands, self.name, repository, tag)) for tag in tags]

    async def changes(self, repository: str, tag: str | None, limit: int) -> list[TagChange]:
        changes: list[TagChange] = await self.pull.changes(repository, tag, limit)
        return changes

    async def nameable(self, repositories: Sequence[str]) -> list[str]:
        names: list[str] = await self.pull.nameable(repositories)
        return names


def _marks(stands: Standing, upstream: str, repository: str, tag: CachedTag) -> tuple[str, ...]:
    return tuple(mark.what for mark in stands.marks(upstream, repository, tag.name, [Digest.parse(tag.digest)]))

"""What docxy knows of manifests without asking anybody: which ones a repository has, and their bytes."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from attrs import frozen
from zope.interface import Interface, implementer

from docxy.catalog.interfaces import ICatalog
from docxy.content import LARGEST_MANIFEST, children, named
from docxy.errors import DigestInvalid
from docxy.names import Digest, is_repository
from docxy.settings.image_names import ImageName
from docxy.storage.interfaces import IBlobStore, StorageError
from docxy.storage.memory_cache import MemoryCache

MOST = 1_000
"""Manifests of one repository that are looked at, those that the upstream served last."""

DEPTH = 4
"""Indexes within indexes that are looked into."""
MOST_NAMES = 100_000
"""Repositories, and tags of one, that are looked through for those that a glob covers."""


class IContents(Interface):
    """What is known of manifests."""

    async def manifests(upstream: str, repository: str) -> Sequence[Digest]:
        """Manifests that the upstream served under this repository."""

    async def body(digest: str) -> bytes | None:
        """The bytes of what may be a manifest; None where they are not cached, or are too many."""

    async def tagged(image: ImageName) -> set[Digest]:
        """Where the tags that an image's name covers led when the upstream was last asked."""


@implementer(IContents)
@frozen
class CachedContents:
    """Of a cache."""

    catalog: ICatalog
    store: IBlobStore
    recent: MemoryCache

    async def manifests(self, upstream: str, repository: str) -> Sequence[Digest]:
        return await self.catalog.upstream(upstream).held.manifests(repository, MOST)

    async def body(self, digest: str) -> bytes | None:
        try:
            what = Digest.parse(digest)
            stat = await self.store.stat(what)
        except (DigestInvalid, StorageError):
            return None
        return None if stat is None or stat.size > LARGEST_MANIFEST else await self.recent.load(what)

    async def tagged(self, image: ImageName) -> set[Digest]:
        known = self.catalog.upstream(image.upstream)
        names = [image.repository]
        if not is_repository(image.repository):  # a glob
            names = [name for name in await known.held.repositories("", MOST_NAMES, None) if image.is_of(name)]
        found = set()
        for name in names:
            for tag, record in await known.tags.newest(name, MOST_NAMES):
                # What a narrow Accept selects of a tag is kept under the tag, a space, and the choice.
                if image.covers(image.upstream, name, tag.partition(" ")[0]):
                    found.add(record.digest)
        return found


@implementer(IContents)
class NoContents:
    """Of a pure proxy, which keeps nothing."""

    async def manifests(self, upstream: str, repository: str) -> Sequence[Digest]:
        return ()

    async def body(self, digest: str) -> bytes | None:
        return None

    async def tagged(self, image: ImageName) -> set[Digest]:
        return set()


Names = tuple[frozenset[str], frozenset[str]]
"""What a manifest names, and what of that are manifests."""


async def belonging_to(
    contents: IContents, root: str, known: MutableMapping[str, Names] | None = None
) -> frozenset[str]:
    """The digests of all that a manifest names, and that its children name, as far as they are cached.

    `known`: what manifests name that were read before: to read one is a use of it, which nobody made.
    """
    found: set[str] = set()
    level = {root}
    for _ in range(DEPTH):
        below: set[str] = set()
        for digest in level:
            names = None if known is None else known.get(digest)
            if names is None:
                body = await contents.body(digest)
                if body is None:
                    continue
                try:
                    names = frozenset(named(body)), frozenset(children(body))
                except ValueError:  # a layer is recalled, or a config
                    continue
                if known is not None and len(names[0]) <= MOST:
                    known[digest] = names
            found |= names[0]
            below |= names[1]
        level = below - {root}
    return frozenset(found - {root})

"""What is cached of a repository: its tags, their platforms, and how much of each is here.

The laws: nothing is asked of the upstream, and what the cache cannot tell is left out; a question looks at a bounded
number of manifests and layers, however many there are.
"""

from __future__ import annotations

from attrs import define, evolve, field

from docxy.catalog.interfaces import UpstreamCatalog
from docxy.content import Manifest, listed, parse_object, platforms
from docxy.names import INDEX_TYPES, Descriptor, Digest
from docxy.pull.interfaces import CachedImage, CachedLayer, CachedTag
from docxy.storage.interfaces import IBlobStore, StorageError
from docxy.storage.memory_cache import MemoryCache

DETAILED = 20
"""Tags that come with their platforms and layers, the newest ones."""
MOST_PLATFORMS = 16
"""Platforms of one tag."""
MOST_MANIFESTS = 100
MOST_LAYERS = 500
"""Manifests and different layers that one question looks at."""
_LARGEST_CONFIG = 1 << 20
"""Bytes."""


class UpstreamInventory:
    """Of one upstream."""

    def __init__(self, store: IBlobStore, recent: MemoryCache, known: UpstreamCatalog) -> None:
        self._store = store
        self._recent = recent
        self._tags = known.tags
        self._held = known.held

    async def tags(self, repository: str, limit: int) -> list[CachedTag]:
        """See `IPull.cached`; what a narrow Accept selects of a tag is left out."""
        found = await self._tags.newest(repository, limit)
        tags = [CachedTag(name, str(tag.digest), tag.media_type, tag.checked) for name, tag in found if " " not in name]
        look = _Look(self._store, self._recent)
        detailed = [evolve(tag, images=await self._images(repository, tag, look)) for tag in tags[:DETAILED]]
        return [*detailed, *tags[DETAILED:]]

    async def _images(self, repository: str, tag: CachedTag, look: _Look) -> tuple[CachedImage, ...]:
        """The platforms of a tag whose manifests are here."""
        digest = Digest.parse(tag.digest)
        if tag.media_type not in INDEX_TYPES:
            found = await self._image(repository, digest, "", look)
            return () if found is None else (found,)
        index = await self._manifest(repository, digest, look)
        children = [] if index is None else list(platforms(index).items())[:MOST_PLATFORMS]
        images = [await self._image(repository, Digest.maybe(child), platform, look) for child, platform in children]
        return tuple(image for image in images if image is not None)

    async def _image(self, repository: str, digest: Digest | None, platform: str, look: _Look) -> CachedImage | None:
        manifest = None if digest is None else await self._manifest(repository, digest, look)
        if manifest is None:
            return None
        blobs = listed(manifest)
        layers = tuple([await look.layer(blob) for blob in blobs])
        if not platform and blobs:
            platform = await look.platform(blobs[0])
        return CachedImage(str(manifest.digest), platform, layers)

    async def _manifest(self, repository: str, digest: Digest, look: _Look) -> Manifest | None:
        """One that this repository has."""
        held = await self._held.manifest(repository, digest)
        body = None if held is None else await look.body(digest)
        return None if held is None or body is None else Manifest(held.media_type, digest, len(body), body)


@define
class _Look:
    """One question's look at the store; it sees every layer once."""

    _store: IBlobStore
    _recent: MemoryCache
    _manifests: int = MOST_MANIFESTS
    _layers: dict[Digest, bool] = field(factory=dict)

    async def body(self, digest: Digest) -> bytes | None:
        """A manifest's, while there is room."""
        if self._manifests == 0:
            return None
        self._manifests -= 1
        return await self._recent.load(digest)

    async def layer(self, blob: Descriptor) -> CachedLayer:
        """Whether it is here; one too many counts as one that is not."""
        found = self._layers.get(blob.digest)
        if found is None and len(self._layers) < MOST_LAYERS:
            try:
                found = await self._store.stat(blob.digest) is not None
            except StorageError:
                found = False
            self._layers[blob.digest] = found
        return CachedLayer(str(blob.digest), blob.size, bool(found))

    async def platform(self, config: Descriptor) -> str:
        """As the config of an image says; empty where it is not here, or of something else."""
        if config.size > _LARGEST_CONFIG or not self._layers.get(config.digest):
            return ""
        body = await self.body(config.digest)
        parsed = None if body is None else parse_object(body)
        if parsed is None:
            return ""
        names = [parsed.get(key) for key in ("os", "architecture", "variant")]
        said = [name for name in names if isinstance(name, str) and 0 < len(name) <= 32]
        return "/".join(said) if len(said) >= 2 else ""

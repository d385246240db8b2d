"""Manifests and tags as this cache has them: what the catalog knows, and the bytes in memory or in the store.

The law: nothing is asked of the upstream here, and nothing is kept that was not hashed.
"""

from __future__ import annotations

from attrs import evolve
from twisted.logger import Logger

from docxy.catalog.interfaces import HeldManifest, UpstreamCatalog
from docxy.content import Manifest
from docxy.names import Descriptor, Digest, Tag
from docxy.pull.caller import Caller
from docxy.pull.kept_tag import KeptTag, variant_of
from docxy.pull.witness import listing
from docxy.storage.interfaces import DigestMismatch, IBlobStore, IBlobWriter, StorageError
from docxy.storage.memory_cache import MemoryCache


class KeptManifests:
    """Those of one upstream."""

    _log = Logger()

    def __init__(self, store: IBlobStore, recent: MemoryCache, known: UpstreamCatalog) -> None:
        self._store = store
        self._recent = recent
        self._tags = known.tags
        self._held = known.held

    async def tag(self, repository: str, tag: Tag, caller: Caller, head: bool, latest: bool = False) -> KeptTag:
        """What serves this client; `head`: without the manifest's bytes; `latest`: see `catalog.interfaces`."""
        usual = await self._tags.get(repository, tag.name, latest)
        if caller.accept.takes_all or (usual is not None and caller.accept.takes(usual.media_type)):
            kept = KeptTag(tag.name, (), usual)
        else:
            kept = variant_of(tag, caller)
            if kept.name is not None:
                kept = evolve(kept, record=await self._tags.get(repository, kept.name, latest))
        record = kept.record
        if record is None:
            return kept
        held = await self._held.manifest(repository, record.digest)
        if head:
            # The bytes are the better witness: what a HEAD told of their length nobody has checked.
            size = record.size if held is None else held.size
            return evolve(kept, manifest=Manifest(record.media_type, record.digest, size, None))
        return evolve(kept, manifest=await self.manifest(held, record.digest, head))

    async def manifest(self, held: HeldManifest | None, digest: Digest, head: bool) -> Manifest | None:
        """A manifest that its repository holds, for a `head` without its bytes; None where they cannot be read."""
        if held is None:
            return None
        if head:
            return Manifest(held.media_type, digest, held.size, None)
        body = await self._recent.load(digest)
        return None if body is None else Manifest(held.media_type, digest, len(body), body)

    async def listing(self, repository: str, digest: Digest) -> Descriptor | None:
        """See `docxy.pull.witness`."""
        return await listing(self._held, self._recent, repository, digest)

    async def keep(self, repository: str, manifest: Manifest) -> None:
        """The upstream served this manifest under this repository; without its bytes nothing is kept.

        A store that fails is logged: memory has the bytes, and the repository holds the manifest.
        """
        if manifest.body is None:
            # What a HEAD tells is not verified by anything, and what is held is held for ever.
            return
        try:
            joined = await self._store.join(manifest.digest)
            joined.reader.close()
            if joined.writer is not None:
                await _fill(joined.writer, manifest.body)
        except DigestMismatch:  # an interrupted fill had left wrong bytes; they are gone now
            pass
        except StorageError as error:
            self._log.error("{digest} is not cached: {error}", digest=manifest.digest, error=error)
        self._recent.keep(manifest.digest, manifest.body)
        self._held.hold_manifest(repository, manifest.digest, manifest.media_type, manifest.size)


async def _fill(writer: IBlobWriter, body: bytes) -> None:
    try:
        await writer.announce(len(body))
        await writer.write(body[writer.offset :])
        await writer.commit()
    except BaseException:
        await writer.cancel()
        raise

"""Images from an archive into the cache, as if they had been pulled.

The laws: *nothing is shown before all of it is here*: first the bytes, each hashed to its digest, then what says which
repository holds them, then the tags.  What an archive brings is held, not vouched for: where each client's rights are
the registry's to decide, it still decides them.  It only adds, by the store's own protocol of many processes, so it
may work beside a docxy that serves.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from io import BytesIO
from typing import IO

from attrs import define, field, frozen

from docxy.catalog.interfaces import ICatalog
from docxy.content import Manifest, complete
from docxy.names import INDEX_TYPES, Descriptor, Digest, Tag
from docxy.steward.archive import OpenedArchive
from docxy.steward.layout import ArchivedImage
from docxy.steward.lines import Failed, Line, done, item, progress
from docxy.storage.interfaces import DigestMismatch, IBlobStore, NoSpace, State, StorageError

_PIECE = 1 << 20
_DEEPEST = 4
_MOST_MANIFESTS = 2000
LARGEST_MANIFEST = 8 * 1024 * 1024
"""Bytes, as everywhere in docxy."""
MOST_LACKING = 20
"""Digests that are told."""


@frozen
class Place:
    """Where an image goes."""

    upstream: str
    repository: str
    tag: Tag | None

    @property
    def name(self) -> str:
        """In full."""
        return f"{self.upstream}/{self.repository}{'' if self.tag is None else f':{self.tag}'}"


@define
class _Parts:
    """What one image consists of."""

    manifests: dict[Digest, Manifest] = field(factory=dict)
    blobs: dict[Digest, Descriptor] = field(factory=dict)
    lacking: list[Digest] = field(factory=list)


class Import:
    """One archive on its way into one cache."""

    def __init__(self, store: IBlobStore, catalog: ICatalog, archive: OpenedArchive, budget: int) -> None:
        """`budget`: bytes that the cache may take."""
        self._store = store
        self._catalog = catalog
        self._archive = archive
        self._budget = budget

    async def run(self, images: Sequence[tuple[ArchivedImage, Sequence[Place]]]) -> AsyncGenerator[Line, None]:
        """Raises Failed, ArchiveError.  An image that lacks something is said to, and is not shown."""
        found = [(image, places, await self._parts(image)) for image, places in images]
        wanted: dict[Digest, tuple[ArchivedImage, int]] = {}
        for image, _, parts in found:
            sizes = {digest: manifest.size for digest, manifest in parts.manifests.items()}
            sizes |= {digest: blob.size for digest, blob in parts.blobs.items()}
            for digest, size in sizes.items():
                if digest not in wanted and await self._store.stat(digest) is None:
                    if self._size(image, digest) is None:
                        parts.lacking.append(digest)
                    else:
                        wanted[digest] = image, size
        total = sum(size for _, size in wanted.values())
        if total > self._budget:
            raise Failed(
                f"{self._archive.path} has {total} new bytes, and the cache may take {self._budget}: give it more"
            )
        written = 0
        for digest, (image, size) in wanted.items():
            if (there := self._size(image, digest)) != size:
                raise Failed(f"{self._archive.path}: {digest} has {there} bytes, its manifest says {size}")
            async for count in self._write(image, digest, size):
                yield progress(written + count, total, "import", "B")
            written += size
        incomplete = 0
        for image, places, parts in found:
            # What another process fetched meanwhile may have ended without success.
            for digest in (*parts.manifests, *parts.blobs):
                if digest not in parts.lacking and await self._store.stat(digest) is None:
                    parts.lacking.append(digest)
            if not parts.lacking:
                self._show(places, image, parts)
            incomplete += bool(parts.lacking)
            yield item(
                names=[place.name for place in places],
                digest=str(image.root.digest),
                lacking=[str(digest) for digest in parts.lacking[:MOST_LACKING]],
                lacking_count=len(parts.lacking),
            )
        await self._catalog.flushed()
        yield done(count=len(found), incomplete=incomplete, new_blobs=len(wanted), new_bytes=total)

    def _show(self, places: Sequence[Place], image: ArchivedImage, parts: _Parts) -> None:
        for place in places:
            known = self._catalog.upstream(place.upstream)
            for digest in parts.blobs:
                known.held.hold_blob(place.repository, digest)
            for digest, manifest in parts.manifests.items():
                known.held.hold_manifest(place.repository, digest, manifest.media_type, manifest.size)
            if place.tag is not None:
                root = parts.manifests[image.root.digest]
                known.tags.keep(place.repository, place.tag.name, root.digest, root.media_type, root.size)

    async def _parts(self, image: ArchivedImage) -> _Parts:
        """Raises Failed for what is no image."""
        parts = _Parts()
        todo = [(image.root, _DEEPEST)]
        while todo:
            descriptor, depth = todo.pop()
            if descriptor.digest in parts.manifests or descriptor.digest in parts.lacking:
                continue
            body = await self._document(image, descriptor.digest)
            if body is None:
                parts.lacking.append(descriptor.digest)
                continue
            manifest = Manifest(descriptor.media_type, descriptor.digest, len(body), body)
            below = complete(manifest)
            if below is None or not depth or len(parts.manifests) >= _MOST_MANIFESTS:
                raise Failed(
                    f"{self._archive.path}: {descriptor.digest} is no manifest of an image that can be carried"
                )
            parts.manifests[descriptor.digest] = manifest
            if descriptor.media_type in INDEX_TYPES:
                todo += [(each, depth - 1) for each in reversed(below)]
            else:
                parts.blobs.update((each.digest, each) for each in below)
        return parts

    async def _document(self, image: ArchivedImage, digest: Digest) -> bytes | None:
        """A manifest, from the archive or the cache; None where neither has it."""
        if digest in image.made:
            return image.made[digest]
        name = self._archive.blob(digest)
        if name is not None:
            body = self._archive.document(name)
            if Digest.of(body, digest.algorithm) != digest:
                raise Failed(f"{self._archive.path}: {name} is damaged: its bytes are not {digest}")
            return body
        reader = await self._store.open(digest)
        if reader is None:
            return None
        try:
            size = reader.size
            if reader.state is not State.VERIFIED or size is None or size > LARGEST_MANIFEST:
                return None
            pieces: list[bytes] = []
            while piece := await reader.read(sum(map(len, pieces)), size):
                pieces.append(piece)
        finally:
            reader.close()
        body = b"".join(pieces)
        return body if Digest.of(body, digest.algorithm) == digest else None

    def _size(self, image: ArchivedImage, digest: Digest) -> int | None:
        """Bytes of it in the archive; None where it is not there."""
        if digest in image.made:
            return len(image.made[digest])
        name = image.files.get(digest) or self._archive.blob(digest)
        return None if name is None else self._archive.sizes[name]

    async def _write(self, image: ArchivedImage, digest: Digest, size: int) -> AsyncGenerator[int, None]:
        """One blob into the store; yields how many bytes of it are there."""
        if digest in image.made:
            async for count in self._fill(BytesIO(image.made[digest]), digest, size):
                yield count
            return
        name = image.files.get(digest) or self._archive.blob(digest)
        assert name is not None
        with self._archive.open(name) as file:
            async for count in self._fill(file, digest, size):
                yield count

    async def _fill(self, file: IO[bytes], digest: Digest, size: int) -> AsyncGenerator[int, None]:
        try:
            joined = await self._store.join(digest)
            joined.reader.close()
            writer = joined.writer
            if writer is None:
                # It came meanwhile, or docxy fetches it at this moment; which of both is looked at in the end.
                return
            try:
                # What an interrupted fetch left is not trusted: wrong bytes there would fail this archive.
                if writer.offset:
                    await writer.discard()
                await writer.announce(size)
                count = 0
                while data := file.read(_PIECE):
                    await writer.write(data)
                    count += len(data)
                    yield count
                await writer.commit()
            except BaseException:
                await writer.cancel()
                raise
        except DigestMismatch:
            raise Failed(f"{self._archive.path} is damaged: it has other bytes than those of {digest}") from None
        except NoSpace as error:
            raise Failed(f"the cache has no room: {error}") from None
        except StorageError as error:
            raise Failed(str(error)) from None

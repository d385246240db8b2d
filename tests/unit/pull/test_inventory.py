"""What the page of an image says of the cache: tags, platforms, layers, and how much of each is here."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence

from docxy.names import OCI_MANIFEST, Digest
from docxy.pull import inventory
from docxy.pull.interfaces import CachedTag
from docxy.storage.memory_cache import MemoryCache
from tests.fakes.content import OCI_CONFIG
from tests.unit.pull.harness import NAME, REPOSITORY, MirrorCase, drain


class InventoryTests(MirrorCase):
    async def cached(self, limit: int = 100) -> list[CachedTag]:
        known = inventory.UpstreamInventory(self.store, MemoryCache(self.store), self.catalog.upstream(NAME))
        return await known.tags(REPOSITORY, limit)

    async def pull(self, *digests: Digest) -> None:
        for digest in digests:
            self.assertEqual((await self.mirror.blob(digest)).status, 200)
            await drain(self.mirror, digest)

    def add(self, tag: str | None, layers: Sequence[bytes]) -> tuple[Digest, list[Digest]]:
        image = self.upstream.add_image(REPOSITORY, tag, layers=layers)
        return image, self.upstream.layers(REPOSITORY, image)

    async def test_one(self) -> None:
        """A layer is here or it is not; of both the page tells bytes."""
        image, (config, first, second) = self.add("latest", [b"a" * 1000, b"b" * 3000])
        await self.mirror.manifest("latest")
        await self.pull(config, first)
        (tag,) = await self.cached()
        (found,) = tag.images
        self.assertEqual(found.digest, str(image))
        self.assertEqual([layer.cached for layer in found.layers], [True, True, False])
        self.assertEqual((found.size - found.cached, found.layers[2].digest), (3000, str(second)))

    async def test_platforms(self) -> None:
        """Of an index, the platforms are told whose manifests are here."""
        here, (config, layer) = self.add(None, [b"here"])
        there, _ = self.add(None, [b"there"])
        self.upstream.add_index(REPOSITORY, "multi", {"amd64": here, "s390x": there})
        await self.mirror.manifest("multi")
        (tag,) = await self.cached()
        self.assertEqual(tag.images, ())
        await self.mirror.manifest(here)
        await self.pull(layer)
        (tag,) = await self.cached()
        self.assertEqual([image.platform for image in tag.images], ["linux/amd64"])
        page = await self.mirror.ask(f"/status/image?name={NAME}/{REPOSITORY}")
        text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page.body.decode())))
        self.assertIn(f"{len(b'here')} B in the cache", text)
        self.assertRegex(text, rf"{str(layer)[:19]} 4 B cached")
        self.assertRegex(text, rf"{str(config)[:19]} \d+ B not cached")

    async def test_platform_of_one(self) -> None:
        """An image without an index has the platform that its config names, once that is here; nonsense is none."""
        for config, platform in (
            ({"os": "linux", "architecture": "arm64", "variant": "v8"}, "linux/arm64/v8"),
            ({"os": ["linux"], "architecture": {}}, ""),
        ):
            body = json.dumps(config).encode()
            digest = self.upstream.add_blob(REPOSITORY, body)
            described = {"mediaType": OCI_CONFIG, "digest": str(digest), "size": len(body)}
            manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []}
            self.upstream.add_manifest(REPOSITORY, "latest", json.dumps(manifest).encode())
            self.seconds.advance(61)
            await self.mirror.manifest("latest")
            (tag,) = await self.cached()
            self.assertEqual([image.platform for image in tag.images], [""])
            await self.pull(digest)
            (tag,) = await self.cached()
            self.assertEqual([image.platform for image in tag.images], [platform])

    async def test_bounds(self) -> None:
        """However many tags and layers there are, a bounded number is looked at; the others are named."""
        self.patch(inventory, "DETAILED", 3)
        self.patch(inventory, "MOST_LAYERS", 4)
        for n in range(5):
            _, blobs = self.add(f"t{n}", [b"%d" % n])
            await self.mirror.manifest(f"t{n}")
            await self.pull(*blobs)
        tags = await self.cached()
        self.assertEqual(len(tags), 5)
        self.assertEqual([bool(tag.images) for tag in tags], [True] * 3 + [False] * 2)
        looked = [layer.cached for tag in tags for image in tag.images for layer in image.layers]
        self.assertEqual(looked.count(True), 4)
        self.upstream.requests.clear()
        await self.cached()
        self.saw()

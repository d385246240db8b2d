"""Models, pulled as Ollama's client does: a narrow Accept, a GET that is left at its head, many ranges at once."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from docxy.names import DOCKER_MANIFEST
from docxy.settings.model import AuthMode
from docxy.settings.presets import preset
from docxy.storage.large import Large
from docxy.storage.memory import MemoryStore
from tests.fakes import Cdn, Fault, Pattern
from tests.harness.client import Streamed
from tests.unit.pull.harness import Mirror, MirrorCase, drain, reactor
from tests.unit.storage.fixtures import KIB, blob, keep

MODEL = Pattern(24 << 20)
PARTS = 16
NAME = "library/tiny"
HOST = "models.mirror.test"
SLACK = 1.02
"""Of the blob's bytes, so many may come from the upstream."""
CONFIG = b'{"model_format":"gguf","model_family":"llama"}'


class Models(MirrorCase):
    """A registry of models behind a mirror, under a host of its own as Ollama's names need it."""

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.strict_accept = True
        self.upstream.cdn = Cdn()
        self.model = self.upstream.add_blob(NAME, MODEL)
        config = self.upstream.add_blob(NAME, CONFIG)
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": str(config),
                "size": len(CONFIG),
            },
            "layers": [
                {"mediaType": "application/vnd.ollama.image.model", "digest": str(self.model), "size": MODEL.size}
            ],
        }
        self.upstream.add_manifest(NAME, "latest", json.dumps(manifest).encode(), DOCKER_MANIFEST)
        self.client = {"Host": HOST}

    def start(self, **changed: Any) -> Mirror:
        models = evolve(
            preset("registry.ollama.ai"),
            url=self.upstream.url,
            hosts=frozenset({HOST}),
            realm_hosts=frozenset({"localhost"}),
            private=True,
        )
        return super().start(others=(models,), **changed)

    async def manifest(self, name: str = NAME) -> dict[str, Any]:
        answer = await self.mirror.ask(f"/v2/{name}/manifests/latest", {**self.client, "Accept": DOCKER_MANIFEST})
        self.assertEqual((answer.status, answer.header("Content-Type")), (200, DOCKER_MANIFEST))
        return answer.json

    async def begun(self, digest: str) -> list[Streamed | Deferred[Streamed]]:
        """Its size by HEAD; a GET for where the bytes are, left at its head; then all parts, asked for at once."""
        path = f"/v2/{NAME}/blobs/{digest}"
        head = await self.mirror.ask(path, {**self.client}, "HEAD")
        self.assertEqual((head.status, head.header("Content-Length")), (200, str(MODEL.size)))
        where = await self.mirror.stream(path, {**self.client}, keep=False)
        self.assertEqual(where.status, 200)
        where.client.vanish()
        size = MODEL.size // PARTS
        asked = [f"bytes={first}-{first + size - 1}" for first in range(0, MODEL.size, size)]
        return [Deferred.fromCoroutine(self.mirror.stream(path, {**self.client, "Range": each})) for each in asked]

    async def ended(self, parts: list[Any]) -> None:
        """All parts are whole, and together they are the model."""
        streams = await gatherResults(parts)
        hasher = self.model.hasher()
        for stream in streams:
            await stream.client.ended
            self.assertEqual((stream.status, stream.client.whole), (206, True))
            hasher.update(stream.client.body)
        self.assertTrue(self.model.matches(hasher))

    async def pulled(self) -> None:
        for layer in (await self.manifest())["layers"]:
            await self.ended(await self.begun(layer["digest"]))

    async def test_pull(self) -> None:
        """Sixteen ranges at once are one fill: the upstream sends the blob once, and nothing for the next client."""
        await self.pulled()
        await drain(self.mirror, self.model)
        self.assertLessEqual(self.upstream.blob_bytes_sent, SLACK * MODEL.size)
        self.assertIsNotNone(await self.store.stat(self.model))
        self.upstream.requests.clear()
        await self.pulled()
        self.assertEqual(self.upstream.blob_bytes_sent, 0)

    async def test_several_clients(self) -> None:
        """Four clients with their sixty-four ranges cost no more than one."""
        digest = (await self.manifest())["layers"][0]["digest"]
        for parts in await gatherResults([Deferred.fromCoroutine(self.begun(digest)) for _ in range(4)]):
            await self.ended(parts)
        await drain(self.mirror, self.model)
        self.assertLessEqual(self.upstream.blob_bytes_sent, SLACK * MODEL.size)

    async def test_no_room(self) -> None:
        """A model beyond its share of a cache full of images comes whole all the same, and no image goes for it."""
        store = MemoryStore(MODEL.size, reactor, Large(1 << 20, 0.5))
        for seed in range(23):
            await keep(store, *blob(1000 * KIB, seed))
        self.mirror = self.start(store=store)
        await self.pulled()
        await drain(self.mirror, self.model)
        self.assertIsNone(await store.stat(self.model))
        for seed in range(23):
            self.assertIsNotNone(await store.stat(blob(1000 * KIB, seed)[0]))

    async def test_cut(self) -> None:
        """An upstream that breaks off goes on where it was: each range comes whole, and no byte twice."""
        rule = self.upstream.on("cdn", Fault(cut_after=MODEL.size // 2), method="GET")
        await self.pulled()
        self.assertEqual(rule.struck_count, 1)
        await drain(self.mirror, self.model)
        self.assertLessEqual(self.upstream.blob_bytes_sent, SLACK * MODEL.size)

    async def test_name(self) -> None:
        """A model that is named alone is in `library/`, as its registry has it."""
        self.assertEqual(await self.manifest("tiny"), await self.manifest())

    async def test_prefix(self) -> None:
        """By prefix it is the same model, for other clients than Ollama's."""
        path = "/v2/registry.ollama.ai/tiny/manifests/latest"
        self.assertEqual((await self.mirror.ask(path, {"Accept": DOCKER_MANIFEST})).status, 200)

    async def test_other_accept(self) -> None:
        """Who takes only OCI's manifests gets none of Docker's, whether or not it is cached."""
        await self.manifest()
        answer = await self.mirror.ask(
            f"/v2/{NAME}/manifests/latest",
            {**self.client, "Accept": "application/vnd.oci.image.manifest.v1+json"},
        )
        self.assertEqual(answer.status, 404)


class Prefetched(Models):
    """The same where docxy begins with the layers as soon as the manifest is asked for."""

    prefetch = True


class Transparent(Models):
    """The same where clients are challenged as by the registry itself: models that all may read need no token."""

    auth = AuthMode.TRANSPARENT

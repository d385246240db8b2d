"""The cooldown, whatever an image is: dates of its publisher, Docker's first schema, a manifest asked for as a blob."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json

from docxy.names import OCI_MANIFEST, Digest
from docxy.settings.cooldown import OnNew
from tests.fakes.content import OCI_CONFIG, Bytes
from tests.unit.pull.cooldown import THREE_DAYS, CooldownCase
from tests.unit.pull.gating import GateCase
from tests.unit.pull.harness import NAME, REPOSITORY, MirrorCase

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
ACCEPTS = (SCHEMA_1, "application/vnd.docker.distribution.manifest.v1+json", OCI_MANIFEST)


def add_first_schema(case: MirrorCase, tag: str, layer: Digest) -> Digest:
    """An image of Docker's first schema, as old as its publisher says."""
    history = {"id": "0" * 64, "created": "2015-01-01T00:00:00Z", "config": {"Cmd": ["sh"]}}
    manifest = {
        "schemaVersion": 1,
        "name": REPOSITORY,
        "tag": tag,
        "architecture": "amd64",
        "fsLayers": [{"blobSum": str(layer)}],
        "history": [{"v1Compatibility": json.dumps(history)}],
        "signatures": [{"header": {"alg": "ES256"}, "signature": "x", "protected": "y"}],
    }
    return case.upstream.add_manifest(REPOSITORY, tag, json.dumps(manifest).encode(), SCHEMA_1)


class Forms(CooldownCase):
    async def test_created(self) -> None:
        """What an image says of its own age counts for nothing: neither an old date nor one to come."""
        for tag, created in (("old", "2001-01-01T00:00:00Z"), ("new", "2099-01-01T00:00:00Z")):
            config = json.dumps({"architecture": "amd64", "os": "linux", "created": created}).encode()
            described = {
                "mediaType": OCI_CONFIG,
                "digest": str(self.upstream.add_blob(REPOSITORY, config)),
                "size": len(config),
            }
            manifest = {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": described,
                "layers": [],
                "annotations": {"org.opencontainers.image.created": created},
            }
            self.upstream.add_manifest(REPOSITORY, tag, json.dumps(manifest).encode())
            for method in ("GET", "HEAD"):
                self.is_denied(await self.mirror.manifest(tag, method=method))
        self.seconds.advance(THREE_DAYS)
        for tag in ("old", "new"):
            self.assertEqual((await self.mirror.manifest(tag)).status, 200)

    async def test_first_schema(self) -> None:
        """An image of Docker's first schema is held back by tag and digest, by GET and HEAD, until it is old enough."""
        image = add_first_schema(self, "latest", self.upstream.add_blob(REPOSITORY, b"layer"))
        for reference in ("latest", image):
            for method in ("GET", "HEAD"):
                self.is_denied(await self.mirror.manifest(reference, method=method, accept=ACCEPTS))
        self.seconds.advance(THREE_DAYS)
        for reference in ("latest", image):
            for method in ("GET", "HEAD"):
                self.is_of(await self.mirror.manifest(reference, method=method, accept=ACCEPTS), image)
        add_first_schema(self, "latest", self.upstream.add_blob(REPOSITORY, b"newer"))
        self.seconds.advance(61)
        for method in ("GET", "HEAD"):
            self.is_of(await self.mirror.manifest("latest", method=method, accept=ACCEPTS), image, "cooldown")

    async def test_as_blob(self) -> None:
        """A young manifest is not to be had as a blob, by GET, HEAD and range; layers and an old manifest are."""
        image = self.move(b"layer")
        held = self.upstream.repositories[REPOSITORY]
        held.blobs[str(image)] = Bytes(held.manifests[str(image)].body)
        config, layer = self.upstream.layers(REPOSITORY, image)
        self.is_denied(await self.mirror.manifest("latest"))
        for told in ({}, {"method": "HEAD"}, {"asked": "bytes=0-9"}):
            self.is_denied(await self.mirror.blob(image, **told))
        for blob in (config, layer):
            self.assertEqual((await self.mirror.blob(blob)).status, 200)
        other = self.start(on_new=OnNew.SERVE)
        self.assertEqual((await other.blob(image)).status, 200)
        self.is_denied(await self.mirror.blob(image))
        self.seconds.advance(THREE_DAYS)
        for told in ({}, {"method": "HEAD"}, {"asked": "bytes=0-9"}):
            self.assertIn((await self.mirror.blob(image, **told)).status, (200, 206))


class Signed(MirrorCase):
    async def test_digest_of_its_payload(self) -> None:
        """Where a registry's digest is that of what was signed, as Docker's were, the bytes have another: no answer."""
        layer = self.upstream.add_blob(REPOSITORY, b"layer")
        held = self.upstream.repositories[REPOSITORY]
        body = held.manifests[str(add_first_schema(self, "latest", layer))].body
        payload = Digest.of(b"what was signed")
        self.upstream.add_manifest(REPOSITORY, str(payload), body, SCHEMA_1)
        held.tags["latest"] = str(payload)
        for reference in ("latest", payload):
            answer = await self.mirror.manifest(reference, accept=ACCEPTS)
            self.assertEqual(answer.status, 502)
            self.assertIn(f"not {payload}", answer.json["errors"][0]["message"])


class Recalled(GateCase):
    async def test_first_schema(self) -> None:
        """An image of Docker's first schema is recalled by its digest, by its layer's and by its name."""
        layer = self.upstream.add_blob(REPOSITORY, b"layer of the first schema")
        for about in ("digest", "layer", "name"):
            image = add_first_schema(self, about, layer)
            for reference in (about, image):
                answer = await self.mirror.manifest(reference, accept=ACCEPTS)
                self.assertEqual((answer.status, answer.header("Content-Type")), (200, SCHEMA_1))
            if about == "digest":
                self.recall(image)
            elif about == "layer":
                self.recall(layer)
            else:
                self.recall(image=f"{NAME}/{REPOSITORY}:{about}")
            for reference in (about,) if about == "name" else (about, image):
                for method in ("GET", "HEAD"):
                    answer = await self.mirror.manifest(reference, method=method, accept=ACCEPTS)
                    self.refused(answer, head=method == "HEAD")
            if about != "name":
                self.refused(await self.mirror.blob(layer))
            for kind in [*self.orders.look().orders.values()]:
                self.orders.lift(kind.kind, kind.about)

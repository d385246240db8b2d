"""What is no container image: a Homebrew bottle and a WASM module, asked for as their clients ask."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import base64
import json
import os
from typing import Any

import bcrypt

from docxy.names import OCI_INDEX, OCI_MANIFEST, Digest
from docxy.settings.model import AccessSettings, AuthMode
from tests.fakes import Auth
from tests.fakes.auth import Grant
from tests.unit.pull.harness import NAME, Mirror, MirrorCase, drain

BREW = "homebrew/core/jq"
BOTTLE = b"a bottle's tar.gz " * 20_000
WASM = "team/module"
MODULE = b"\0asm\1\0\0\0" + b"a module " * 20_000
ANONYMOUS = "Bearer QQ=="
"""What Homebrew sends where nobody logged in; ghcr.io takes it for anonymous."""


LOGIN = f"Basic {base64.b64encode(b'ann:secret').decode()}"


class Bottle(MirrorCase):
    """An index with annotations, then the bottle by its digest alone: no manifest of a platform is asked for."""

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.strict_accept = True
        self.upstream.auth = Auth("bearer", realm="foreign")
        self.upstream.auth.tokens["QQ=="] = Grant(None, None, float("inf"))
        self.bottle = self.upstream.add_blob(BREW, BOTTLE)
        image = self.upstream.add_image(BREW, None, [BOTTLE], architecture="arm64")
        entry = {
            "mediaType": OCI_MANIFEST,
            "digest": str(image),
            "size": len(self.upstream.repositories[BREW].manifests[str(image)].body),
            "platform": {"architecture": "arm64", "os": "darwin", "os.version": "macOS 14.2"},
            "annotations": {
                "org.opencontainers.image.ref.name": "1.7.1.arm64_sonoma",
                "sh.brew.bottle.digest": self.bottle.hex,
                "sh.brew.tab": '{"homebrew_version":"4.2.0"}',
            },
        }
        self.index = json.dumps(
            {
                "schemaVersion": 2,
                "manifests": [entry],
                "annotations": {"com.github.package.type": "homebrew_bottle"},
            }
        ).encode()
        self.upstream.add_manifest(BREW, "1.7.1", self.index, OCI_INDEX)

    def headers(self, **more: str) -> dict[str, Any]:
        return {"Authorization": ANONYMOUS, **more}

    async def poured(self) -> None:
        """The index, the bottle's head, the bottle; then what is left of it after a break."""
        path = f"/{NAME}/v2/{BREW}"
        index = await self.mirror.ask(f"{path}/manifests/1.7.1", self.headers(Accept=OCI_INDEX))
        self.assertEqual((index.status, index.header("Content-Type"), index.body), (200, OCI_INDEX, self.index))
        blob = f"{path}/blobs/sha256:{index.json['manifests'][0]['annotations']['sh.brew.bottle.digest']}"
        head = await self.mirror.ask(blob, self.headers(), "HEAD")
        self.assertEqual((head.status, head.header("Content-Length")), (200, str(len(BOTTLE))))
        whole = await self.mirror.ask(blob, self.headers())
        self.assertEqual((whole.status, Digest.of(whole.body)), (200, self.bottle))
        rest = await self.mirror.ask(blob, self.headers(Range="bytes=1000-"))
        self.assertEqual((rest.status, rest.body), (206, BOTTLE[1000:]))

    async def test_pours(self) -> None:
        """Cold, then from the cache: the upstream sends the bottle once, and is not shown Homebrew's token."""
        await self.poured()
        await drain(self.mirror, self.bottle)
        self.assertLessEqual(self.upstream.blob_bytes_sent, len(BOTTLE) + 1, "and a byte that tells the size")
        sent = {each.headers.get("authorization") for each in self.upstream.requests}
        self.assertEqual(ANONYMOUS in sent, self.auth is AuthMode.TRANSPARENT)
        self.upstream.requests.clear()
        await self.poured()
        self.assertEqual(self.upstream.count("blob", "GET"), 0)

    async def test_upstream_off(self) -> None:
        """What was poured once is poured when the registry is gone, past the time that its tag is believed."""
        await self.poured()
        await drain(self.mirror, self.bottle)
        await self.upstream.stop()
        self.seconds.advance(self.tag_ttl + 1)
        await self.poured()


class TransparentBottle(Bottle):
    """The same where each client's token goes to the registry."""

    auth = AuthMode.TRANSPARENT


class GatedBottle(Bottle):
    """The same where docxy has accounts: Homebrew is given one, and sends it as Basic at once."""

    def start(self, **changed: Any) -> Mirror:
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
        return super().start(access=AccessSettings(path), **changed)

    def headers(self, **more: str) -> dict[str, Any]:
        return {"Authorization": LOGIN, **more}

    async def test_no_account(self) -> None:
        """What ghcr.io takes for anonymous opens nothing here, and the registry sees neither it nor the login."""
        await self.poured()
        path = f"/{NAME}/v2/{BREW}/blobs/{self.bottle}"
        self.assertEqual((await self.mirror.ask(path, {"Authorization": ANONYMOUS})).status, 401)
        sent = {each.headers.get("authorization") for each in self.upstream.requests}
        self.assertEqual(sent & {ANONYMOUS, LOGIN}, set())


class Wasm(MirrorCase):
    """A module as an artifact of its own types, and as an image for wasip1/wasm."""

    prefetch = True

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.strict_accept = True
        self.module = self.upstream.add_blob(WASM, MODULE)
        config = b'{"created":"2026-01-01T00:00:00Z","architecture":"wasm","os":"wasip1","layerDigests":[]}'
        self.config = self.upstream.add_blob(WASM, config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.wasm.config.v0+json",
                "digest": str(self.config),
                "size": len(config),
            },
            "layers": [{"mediaType": "application/wasm", "digest": str(self.module), "size": len(MODULE)}],
        }
        self.manifest = self.upstream.add_manifest(WASM, "1.0", json.dumps(manifest).encode())
        entry = {
            **self.upstream.repositories[WASM].manifests[str(self.manifest)].descriptor(),
            "platform": {"architecture": "wasm", "os": "wasip1"},
        }
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
        self.upstream.add_manifest(WASM, "image", json.dumps(index).encode(), OCI_INDEX)

    async def pulled(self, reference: str) -> None:
        """As a runtime does: the manifest, by its index where there is one, then config and module."""
        answer = await self.mirror.manifest(reference, repository=WASM)
        self.assertEqual(answer.status, 200)
        if "manifests" in answer.json:
            answer = await self.mirror.manifest(answer.json["manifests"][0]["digest"], repository=WASM)
        layer = answer.json["layers"][0]
        self.assertEqual((layer["mediaType"], answer.header("Content-Type")), ("application/wasm", OCI_MANIFEST))
        self.assertEqual((await self.mirror.blob(answer.json["config"]["digest"], repository=WASM)).status, 200)
        self.assertEqual((await self.mirror.blob(layer["digest"], repository=WASM)).body, MODULE)

    async def test_pull(self) -> None:
        """The module comes whole, once from the registry, and from the cache when that is gone."""
        for reference in ("1.0", "image"):
            await self.pulled(reference)
        await drain(self.mirror, self.module)
        self.assertEqual(sum(str(self.module) in each.path for each in self.upstream.select("blob", "GET")), 1)
        await self.upstream.stop()
        self.seconds.advance(self.tag_ttl + 1)
        for reference in ("1.0", "image"):
            await self.pulled(reference)

"""Registries that are not Docker Hub: what they do otherwise, seen by a client of docxy."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docxy.content import EMPTY_INDEX
from docxy.names import OCI_INDEX, OCI_MANIFEST, Digest
from docxy.settings.model import Credential, Upstream
from tests.fakes import Auth, Cdn, Fault, Pattern
from tests.fakes import Upstream as Registry
from tests.unit.pull.harness import REPOSITORY, MirrorCase, drain
from tests.unit.pull.several import SeveralCase

BLOB = Pattern(100_000)


class Heads(MirrorCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.image: Digest = self.upstream.add_image(REPOSITORY)

    async def test_refused(self) -> None:
        """Where HEAD of a manifest is refused, in whatever way, a GET decides: for clients, and for cached tags."""
        for status in (400, 403, 404, 405, 501):
            mirror = self.start(catalog=self.make_catalog())
            rule = self.upstream.on("manifest", Fault(status=status), times=None, method="HEAD")
            answer = await mirror.manifest("latest", method="HEAD")
            self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(self.image)), status)
            moved = self.upstream.add_image(REPOSITORY, layers=[Pattern(10, str(status))])
            self.seconds.advance(70)
            answer = await mirror.manifest("latest")
            self.assertEqual(answer.header("Docker-Content-Digest"), str(moved), status)
            self.assertNotIn("stale-", answer.cache_status)
            rule.cancel()
            self.image = moved

    async def test_missing(self) -> None:
        """What is missing by GET too is missing; a registry that answers HEAD is not asked twice."""
        self.assertEqual((await self.mirror.manifest("missing", method="HEAD")).status, 404)
        self.saw(HEAD_manifest=1, GET_manifest=1)
        await self.mirror.manifest("latest", method="HEAD")
        self.upstream.requests.clear()
        self.seconds.advance(11)
        self.assertEqual((await self.mirror.manifest("missing", method="HEAD")).status, 404)
        self.saw(HEAD_manifest=1)

    async def test_page_to_log_in(self) -> None:
        """A page that answers a HEAD with 200 is no manifest, whatever it says of its length and digest."""
        digest = str(Digest.of(b"page"))
        page = Fault(body=b"page", headers={"Content-Type": "text/html", "Docker-Content-Digest": digest})
        self.upstream.on("manifest", page, method="HEAD")
        answer = await self.mirror.manifest("latest", method="HEAD")
        self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(self.image)))


class Accounts(SeveralCase):
    """docxy's own account at a registry that does not take it any more."""

    async def setUp(self) -> None:
        await super().setUp()
        self.image = self.upstream.add_image(REPOSITORY)
        self.file = Path(self.mktemp())
        self.file.write_text("right\n")
        self.first = Upstream(
            "fake.test",
            self.upstream.url,
            private=True,
            credentials=(Credential("docxy", "right", str(self.file.resolve())),),
        )

    async def test_refused(self) -> None:
        """A cached tag is served stale and the operator told once; a right password works at once."""
        for auth in (Auth("bearer", realm="port"), Auth("basic")):
            self.upstream.auth = auth
            auth.accounts, auth.private = {"docxy": "right"}, {REPOSITORY}
            self.file.write_text("right\n")
            docxy = self.serve(self.first, catalog=self.make_catalog())
            self.assertEqual((await docxy.manifest("latest")).status, 200)
            auth.accounts = {"docxy": "changed"}
            auth.revoke()
            for _ in range(3):
                self.seconds.advance(70)
                answer = await docxy.manifest("latest")
                self.assertEqual(answer.status, 200, auth.scheme)
                self.assertIn("detail=stale-upstream-failed", answer.cache_status)
            uncached = await docxy.manifest("other")
            self.assertEqual((uncached.status, uncached.code), (403, "DENIED"))
            self.file.write_text("changed\n")
            self.seconds.advance(70)
            self.assertEqual((await docxy.manifest("latest")).cache_status, "docxy; fwd=stale; ttl=60")
            # What an account that is let in does not find is gone.
            del self.upstream.repositories[REPOSITORY].tags["latest"]
            self.seconds.advance(70)
            self.assertEqual((await docxy.manifest("latest")).status, 404)
            self.upstream.repositories[REPOSITORY].tags["latest"] = str(self.image)
            await docxy.stop()

    async def test_next_account(self) -> None:
        """Of several accounts the refused one gives way to the others."""
        self.upstream.auth = Auth("bearer", realm="port", accounts={"second": "b"}, private={REPOSITORY})
        docxy = self.serve(
            Upstream(
                "fake.test",
                self.upstream.url,
                private=True,
                credentials=(Credential("first", "a"), Credential("second", "b")),
            )
        )
        for tag in ("latest", str(self.image)):
            self.assertEqual((await docxy.manifest(tag)).status, 200)


class Encodings(MirrorCase):
    async def test_as_they_are(self) -> None:
        """Whatever Content-Encoding is claimed, the bytes are passed on as they came, without the claim."""
        for number, encoding in enumerate(("gzip", "x-gzip", "aws-chunked", "utf-8", "identity", "none")):
            image = self.upstream.add_image(REPOSITORY, f"t{number}", layers=[Pattern(5000, encoding)])
            self.upstream.on(None, Fault(headers={"Content-Encoding": encoding}), times=None)
            answer = await self.mirror.manifest(f"t{number}")
            self.assertEqual((answer.status, str(Digest.of(answer.body))), (200, str(image)), encoding)
            layer = self.upstream.layers(REPOSITORY, image)[0]
            blob = await self.mirror.blob(layer)
            self.assertEqual((blob.status, str(Digest.of(blob.body))), (200, str(layer)), encoding)
            self.assertIsNone(blob.header("Content-Encoding"))
            self.assertEqual((await self.mirror.ask(f"/v2/{REPOSITORY}/tags/list?n={number}")).status, 200, encoding)
            self.upstream.rules.clear()


class Referrers(MirrorCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.image: Digest = self.upstream.add_image(REPOSITORY)

    async def referrers(self, digest: object) -> Any:
        return await self.mirror.ask(f"/v2/{REPOSITORY}/referrers/{digest}")

    async def test_no_api(self) -> None:
        """However a registry says that it has no such API, there are no referrers: 200 and an empty index."""
        html = b"<html>not here</html>"
        for number, fault in enumerate(
            (
                *(Fault(status=status) for status in (400, 404, 405, 406, 501)),
                Fault(body=html, headers={"Content-Type": "text/html"}),
                Fault(body=b'{"message":"not here"}', headers={"Content-Type": "application/json"}),
            )
        ):
            self.upstream.on("referrers", fault)
            answer = await self.referrers(Digest.of(str(number).encode()))
            self.assertEqual((answer.status, answer.body), (200, EMPTY_INDEX), fault)
            self.assertEqual(answer.header("Content-Type"), OCI_INDEX)

    async def test_every_digest(self) -> None:
        """The answer for a digest without a fallback tag is of the same kind as for one with it."""
        self.upstream.referrers = False
        listed = self.upstream.add_referrer(REPOSITORY, self.image)
        index = self.upstream.add_index(REPOSITORY, f"sha256-{self.image.hex}", {"signature": listed})
        self.assertEqual(str(Digest.of((await self.referrers(self.image)).body)), str(index))
        answer = await self.referrers(Digest.of(b"other"))
        self.assertEqual((answer.status, answer.json["manifests"]), (200, []))

    async def test_kept(self) -> None:
        """An empty index is kept as any, and served stale while the upstream is off."""
        self.upstream.referrers = False
        await self.referrers(self.image)
        self.assertIn("hit", (await self.referrers(self.image)).cache_status)
        self.seconds.advance(70)
        await self.upstream.stop()
        answer = await self.referrers(self.image)
        self.assertEqual((answer.status, answer.body), (200, EMPTY_INDEX))
        self.assertIn("stale", answer.cache_status)

    async def test_no_list(self) -> None:
        """Under the fallback tag a manifest, or the subject itself as at GitLab, is no list of referrers."""
        self.upstream.referrers = False
        self.upstream.add_image(REPOSITORY, f"sha256-{self.image.hex}")
        self.assertEqual((await self.referrers(self.image)).body, EMPTY_INDEX)
        index = self.upstream.add_index(REPOSITORY, "multi", {"linux/amd64": self.image})
        self.upstream.repositories[REPOSITORY].tags[f"sha256-{index.hex}"] = str(index)
        self.assertEqual((await self.referrers(index)).body, EMPTY_INDEX)

    async def test_api_of_another_type(self) -> None:
        """An index sent as application/json is one."""
        self.upstream.add_referrer(REPOSITORY, self.image)
        self.upstream.on("referrers", Fault.wrong_type("application/json"))
        answer = await self.referrers(self.image)
        self.assertEqual((answer.header("Content-Type"), len(answer.json["manifests"])), (OCI_INDEX, 1))


class Listings(MirrorCase):
    async def test_types(self) -> None:
        """A list of tags is one by what is in it, whatever type it is sent with, and large ones pass."""
        self.upstream.add_image(REPOSITORY)
        for number, media_type in enumerate(("text/plain", "application/octet-stream", None)):
            self.upstream.on("tags", Fault(headers={"Content-Type": media_type}))
            answer = await self.mirror.ask(f"/v2/{REPOSITORY}/tags/list?n={number + 5}")
            self.assertEqual((answer.status, answer.header("Content-Type")), (200, "application/json"))
        body = json.dumps({"name": REPOSITORY, "tags": ["t" * 100] * 100_000}).encode()
        self.upstream.on("tags", Fault(body=body))
        answer = await self.mirror.ask(f"/v2/{REPOSITORY}/tags/list?n=100000")
        self.assertEqual((answer.status, answer.body == body), (200, True))

    async def test_too_large_for_the_registry(self) -> None:
        """A 413, as Quay's for a manifest of a large image, is about that request: it passes, others go on."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.on("manifest", Fault(status=413))
        refused = await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/latest")
        self.assertEqual(refused.status // 100, 4)
        self.assertEqual((await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/latest")).status, 200)


class Manifests(MirrorCase):
    async def test_without_schema_version(self) -> None:
        """ORAS' artifact manifests have no schemaVersion."""
        media_type = "application/vnd.cncf.oras.artifact.manifest.v1+json"
        body = json.dumps({"mediaType": media_type, "artifactType": "x/y", "blobs": []}).encode()
        self.upstream.add_image(REPOSITORY)
        self.upstream.on(
            "manifest", Fault(body=body, headers={"Content-Type": media_type, "Docker-Content-Digest": None})
        )
        answer = await self.mirror.manifest(Digest.of(body), accept=(media_type,))
        self.assertEqual((answer.status, answer.body, answer.header("Content-Type")), (200, body, media_type))

    async def test_index_and_manifest_at_once(self) -> None:
        """A document that is an index to one client and a manifest to another reaches none (CVE-2021-41190)."""
        self.upstream.add_image(REPOSITORY)
        body = json.dumps({"schemaVersion": 2, "manifests": [{"x": 1}], "layers": [{"x": 1}]}).encode()
        for media_type in (OCI_INDEX, OCI_MANIFEST):
            fault = Fault(body=body, headers={"Content-Type": media_type, "Docker-Content-Digest": None})
            self.upstream.on("manifest", fault, times=None)
            for reference in ("latest", Digest.of(body)):
                self.assertEqual((await self.mirror.manifest(reference)).status, 502)
            self.upstream.rules.clear()

    async def test_sizes(self) -> None:
        """A size that is no number of bytes breaks nothing: the manifest is the client's to judge."""
        mirror = self.start(prefetch=True, catalog=self.make_catalog())
        self.upstream.add_image(REPOSITORY)
        for size in ("1e999", "-5", "true", "99999999999999999999999", '"x"'):
            entry = f'{{"mediaType":"x/y","digest":"sha256:{"ab" * 32}","size":{size}}}'
            body = f'{{"schemaVersion":2,"config":{entry},"layers":[{entry}]}}'.encode()
            fault = Fault(body=body, headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": None})
            self.upstream.on("manifest", fault)
            answer = await mirror.manifest(Digest.of(body))
            self.assertEqual((answer.status, answer.body), (200, body), size)

    async def test_control_characters(self) -> None:
        """Control characters in headers that are passed on are dropped."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.on("manifest", Fault(headers={"Warning": '299 - "a\x01\x1b[31mb\x7f\tc"'}))
        self.assertEqual((await self.mirror.manifest("latest")).header("Warning"), '299 - "a[31mb\tc"')


class Again(MirrorCase):
    """One lost answer is docxy's to ask for again, not the client's."""

    async def setUp(self) -> None:
        await super().setUp()
        self.image: Digest = self.upstream.add_image(REPOSITORY, layers=[BLOB])

    async def test_once(self) -> None:
        """A reset, a 500, a 502, a body that breaks off: asked again once, for manifests, tags and layers."""
        faults = (Fault(drop=True, reset=True), Fault(drop=True), Fault(status=500), Fault(status=502))
        for fault in (*faults, Fault(cut_after=10)):
            for kind, path in (
                ("manifest", f"/v2/{REPOSITORY}/manifests/latest"),
                ("tags", f"/v2/{REPOSITORY}/tags/list"),
                ("referrers", f"/v2/{REPOSITORY}/referrers/{self.image}"),
            ):
                mirror = self.start(catalog=self.make_catalog())
                self.upstream.on(kind, fault)
                self.assertEqual((await mirror.ask(path)).status, 200, (kind, fault))
                await mirror.stop()
        for fault in faults:
            mirror = self.start(catalog=self.make_catalog(), store=self.make_store())
            self.upstream.on("blob", fault)
            self.assertEqual((await mirror.blob(BLOB.digest)).status, 200, fault)
            await drain(mirror, BLOB.digest)
            await mirror.stop()

    async def test_not_for_ever(self) -> None:
        """What happens twice is an answer; what is no accident is not asked for again."""
        for fault, count in (
            (Fault(drop=True), 2),
            (Fault(status=500), 2),
            (Fault(status=503), 1),
            (Fault(status=404), 1),
            (Fault(status=403), 1),
        ):
            self.upstream.requests.clear()
            rule = self.upstream.on("tags", fault, times=None)
            self.assertGreaterEqual((await self.mirror.ask(f"/v2/{REPOSITORY}/tags/list?n={count}")).status, 400)
            self.assertEqual(self.upstream.count("tags"), count, fault)
            rule.cancel()
            self.seconds.advance(400)

    async def test_token(self) -> None:
        """A token service that stumbles once is asked again."""
        self.upstream.auth = Auth("bearer", realm="port")
        for fault in (Fault(drop=True, reset=True), Fault(status=500), Fault(status=502)):
            self.upstream.auth.revoke()
            self.upstream.on("token", fault)
            mirror = self.start(catalog=self.make_catalog())
            self.assertEqual((await mirror.manifest("latest")).status, 200, fault)
            await mirror.stop()


class Realms(MirrorCase):
    async def test_relative(self) -> None:
        """A realm without a host is one of the registry that named it; a token service may answer 201."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.auth = Auth("bearer")
        for number, realm in enumerate(("/token", "//127.0.0.1:" + self.upstream.url.rpartition(":")[2] + "/token")):
            self.upstream.on("manifest", Fault(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'}))
            body = json.dumps({"token": self.upstream.auth.add_token(None, None, self.upstream.now() + 60)}).encode()
            self.upstream.on("token", Fault(status=201, body=body))
            mirror = self.start(catalog=self.make_catalog(), store=self.make_store())
            self.assertEqual((await mirror.manifest("latest")).status, 200, realm)
            self.assertEqual(self.upstream.count("token"), number + 1)
            await mirror.stop()


class Sizes(MirrorCase):
    async def test_unknown(self) -> None:
        """A registry that sends a blob's first byte without its size has the blob."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(headers={"Content-Range": "bytes 0-0/*"}), times=None)
        answer = await self.mirror.blob(digest, method="HEAD")
        self.assertEqual((answer.status, answer.header("Content-Length")), (200, None))


class Storage(MirrorCase):
    async def test_limited(self) -> None:
        """A 429 of the storage behind a redirect is about one blob: others are fetched."""
        self.upstream.cdn = Cdn()
        first = self.upstream.add_blob(REPOSITORY, Pattern(1000, "1"))
        second = self.upstream.add_blob(REPOSITORY, Pattern(1000, "2"))
        self.upstream.on("cdn", Fault.too_many_requests("60"), times=None, path=str(first))
        self.assertEqual((await self.mirror.blob(first)).status, 429)
        self.assertEqual((await self.mirror.blob(second)).status, 200)


class Failover(SeveralCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.second: Registry = await self.another()
        self.image = self.upstream.add_image(REPOSITORY)
        self.second.add_image(REPOSITORY)

    async def test_manifest(self) -> None:
        """A manifest that breaks off, or is another one, comes from the next endpoint."""
        for fault in (
            Fault(cut_after=20),
            Fault(flip=30),
            Fault(body=b"{}"),
            Fault.html_page(),
            Fault.huge(),
            Fault.digest_header(f"sha256:{'0' * 64}"),
        ):
            docxy = self.serve(
                Upstream("fake.test", self.upstream.url, endpoints=(self.second.url,), private=True),
                catalog=self.make_catalog(),
                store=self.make_store(),
            )
            for reference in ("latest", str(self.image)):
                self.upstream.on("manifest", fault)
                answer = await docxy.manifest(reference)
                self.assertEqual((answer.status, str(Digest.of(answer.body))), (200, str(self.image)), fault)
            self.upstream.rules.clear()
            await docxy.stop()

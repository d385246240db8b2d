"""Private images: the bytes are shared, the right to them is not."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import hashlib
from typing import Literal

from twisted.python.filepath import FilePath

from docxy.names import Digest
from docxy.pull.rights.verdicts import FRESH
from docxy.settings.model import AuthMode
from tests.fakes import Auth, Fault, Pattern
from tests.unit.pull.harness import MirrorCase, bearer, drain, reactor

PRIVATE, PUBLIC = "ann/secret", "library/open"
LAYER = Pattern(200_000)


class Attacks(MirrorCase):
    """Ann's private image is cached; a client with an anonymous token wants it."""

    auth = AuthMode.TRANSPARENT
    denied: Literal[401, 403, 404] = 401

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts={"ann": "pw"}, private={PRIVATE}, denied_status=self.denied)
        self.image = self.upstream.add_image(PRIVATE, layers=[LAYER])
        self.layer = LAYER.digest
        self.upstream.add_image(PUBLIC, layers=[b"open"])
        self.ann = self.token_of("ann")
        await self.pull(self.ann)
        token = await self.mirror.token(f"{PRIVATE}:pull&scope=repository:{PUBLIC}")
        self.anonymous = str(token.json["token"])
        self.assertEqual((await self.mirror.manifest("latest", self.anonymous, PUBLIC)).status, 200)
        self.upstream.requests.clear()

    def token_of(self, account: str) -> str:
        reached = frozenset({PRIVATE, PUBLIC})
        return self.upstream.auth.add_token(account, reached, reactor.seconds() + 300)

    async def pull(self, token: str | None) -> None:
        """All of the image, as its owner."""
        self.assertEqual((await self.mirror.manifest("latest", token, PRIVATE)).status, 200)
        for digest in self.upstream.layers(PRIVATE, self.image):
            self.assertEqual((await self.mirror.blob(digest, token, PRIVATE)).status, 200)
            await drain(self.mirror, digest)

    async def test_manifest(self) -> None:
        """Manifest by tag and by digest, by GET and HEAD: refused as the upstream does, again and again."""
        for token in (self.anonymous, None):
            for reference in ("latest", self.image):
                for method in ("GET", "HEAD", "GET"):
                    answer = await self.mirror.manifest(reference, token, PRIVATE, method)
                    self.assertIn(answer.status, (401, self.denied))
                    self.assertNotIn(str(self.layer).encode(), answer.body)
        asked = [each for each in self.upstream.select("manifest") if each.method == "GET"]
        self.assertFalse([each for each in asked if each.status == 200])

    async def test_blob(self) -> None:
        """Blobs, whole, in part and by HEAD: refused; none is fetched for it."""
        for token in (self.anonymous, None):
            for method, asked in (("GET", None), ("GET", "bytes=0-9"), ("HEAD", None)):
                answer = await self.mirror.blob(self.layer, token, PRIVATE, asked, method)
                self.assertIn(answer.status, (401, self.denied))
        self.assertEqual(self.upstream.blob_bytes_sent, 0)

    async def test_condition(self) -> None:
        """If-None-Match tells nobody that the bytes are here."""
        headers: dict[str, str | list[str]] = {"If-None-Match": f'"{self.layer}"', **bearer(self.anonymous)}
        for repository in (PRIVATE, PUBLIC):
            answer = await self.mirror.ask(f"/v2/{repository}/blobs/{self.layer}", headers)
            self.assertIn(answer.status, (401, 404, self.denied))

    async def test_under_a_public_name(self) -> None:
        """A private layer's or manifest's digest under a public repository's name is not there."""
        for method, asked in (("GET", None), ("GET", "bytes=0-9"), ("HEAD", None)):
            answer = await self.mirror.blob(self.layer, self.anonymous, PUBLIC, asked, method)
            self.assertEqual(answer.status, 404)
        self.assertEqual((await self.mirror.blob(self.layer, self.anonymous, PUBLIC)).code, "BLOB_UNKNOWN")
        self.assertEqual((await self.mirror.manifest(self.image, self.anonymous, PUBLIC)).code, "MANIFEST_UNKNOWN")

    async def test_while_it_fills(self) -> None:
        """Nor while its fill is under way, which goes on undisturbed."""
        blob = Pattern(300_000)
        digest = self.upstream.add_blob(PRIVATE, blob)
        rule = self.upstream.on("blob", Fault(stall_after=1000), method="GET")
        owner = await self.mirror.stream(f"/v2/{PRIVATE}/blobs/{digest}", bearer(self.ann))
        await owner.client.reached(1000)
        self.assertEqual((await self.mirror.blob(digest, self.anonymous, PUBLIC)).status, 404)
        self.assertIn((await self.mirror.blob(digest, self.anonymous, PRIVATE)).status, (401, self.denied))
        rule.release()
        await owner.client.ended
        self.assertEqual(owner.client.digest, str(digest))

    async def test_listings(self) -> None:
        """Tags and referrers of a private repository are as private."""
        for page in ("tags/list", f"referrers/{self.image}"):
            path = f"/v2/{PRIVATE}/{page}"
            self.assertEqual((await self.mirror.ask(path, bearer(self.ann))).status, 200)
            self.assertIn((await self.mirror.ask(path, bearer(self.anonymous))).status, (401, 404, self.denied))
            self.assertEqual((await self.mirror.ask(path, bearer(self.ann))).cache_status, "docxy; hit; ttl=60")

    async def test_stale(self) -> None:
        """With the upstream off, its owner goes on, an anonymous client does not."""
        await self.upstream.stop()
        self.seconds.advance(70)
        await self.pull(self.ann)
        for reference in ("latest", self.image):
            self.assertGreaterEqual((await self.mirror.manifest(reference, self.anonymous, PRIVATE)).status, 400)
        self.assertGreaterEqual((await self.mirror.blob(self.layer, self.anonymous, PRIVATE)).status, 400)
        self.assertGreaterEqual((await self.mirror.blob(self.layer, self.anonymous, PUBLIC)).status, 400)

    async def test_no_harm(self) -> None:
        """What an anonymous client tries takes nothing from what is kept for the owner, even when the tag is stale."""
        self.seconds.advance(70)
        for _ in range(3):
            await self.mirror.manifest("latest", self.anonymous, PRIVATE)
            await self.mirror.manifest(self.image, self.anonymous, PRIVATE)
            await self.mirror.blob(self.layer, self.anonymous, PRIVATE)
            await self.mirror.ask(f"/v2/{PRIVATE}/tags/list", bearer(self.anonymous))
        await self.upstream.stop()
        await self.pull(self.ann)


class Attacks403(Attacks):
    """The same where the upstream denies."""

    denied = 403


class Attacks404(Attacks):
    """The same where the upstream says that there is nothing."""

    denied = 404


class Verdicts(MirrorCase):
    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts={"ann": "pw"}, private={PRIVATE})
        self.image = self.upstream.add_image(PRIVATE, layers=[LAYER])
        self.upstream.add_image(PUBLIC)
        self.first, self.second = (
            self.upstream.auth.add_token("ann", frozenset({PRIVATE, PUBLIC}), reactor.seconds() + 300) for _ in range(2)
        )
        await self.mirror.manifest(self.image, self.first, PRIVATE)
        await self.mirror.blob(LAYER.digest, self.first, PRIVATE)
        await drain(self.mirror, LAYER.digest)
        self.upstream.requests.clear()

    async def some(self, token: str) -> set[int]:
        return {
            (await self.mirror.blob(LAYER.digest, token, PRIVATE)).status,
            (await self.mirror.manifest(self.image, token, PRIVATE)).status,
            (await self.mirror.blob(LAYER.digest, token, PRIVATE, "bytes=5-9")).status - 6,
            (await self.mirror.blob(LAYER.digest, token, PRIVATE, method="HEAD")).status,
        }

    async def test_asked_once(self) -> None:
        """A token is asked about once for each repository by one HEAD, and again when the verdict is old."""
        self.assertEqual(await self.some(self.second), {200})
        self.saw(HEAD_manifest=1)
        self.seconds.advance(FRESH - 1)
        self.assertEqual(await self.some(self.second), {200})
        self.saw()
        self.seconds.advance(2)
        self.assertEqual(await self.some(self.second), {200})
        self.saw(HEAD_manifest=1)

    async def test_revoked(self) -> None:
        """A revoked token is refused once its verdict is old, and at once where the upstream is asked anyway."""
        self.assertEqual(await self.some(self.second), {200})
        self.upstream.auth.revoke()
        self.seconds.advance(FRESH + 1)
        self.assertEqual(await self.some(self.second), {401, 395})
        self.seconds.advance(-10)
        self.assertEqual(await self.some(self.second), {401, 395})

    async def test_per_repository(self) -> None:
        """A verdict for one repository says nothing of another."""
        token = self.upstream.auth.add_token(None, frozenset({PRIVATE, PUBLIC}), reactor.seconds() + 300)
        self.assertEqual((await self.mirror.manifest("latest", token, PUBLIC)).status, 200)
        self.assertEqual((await self.mirror.manifest(self.image, token, PRIVATE)).status, 401)

    async def test_no_secret_kept(self) -> None:
        """The catalog knows no token, nor a hash that a token could be tried out with."""
        directory = FilePath(self.mktemp())
        catalog = self.open_catalog(directory.path)
        self.mirror = self.start(catalog=catalog)
        await self.some(self.second)
        await catalog.flushed()
        kept = b"".join(each.getContent() for each in directory.children())
        self.assertIn(catalog.secret.credential(f"Bearer {self.second}").encode(), kept)
        for token in (self.first, self.second):
            self.assertNotIn(token.encode(), kept)
            self.assertNotIn(hashlib.sha256(f"Bearer {token}".encode()).hexdigest().encode(), kept)

    async def test_manifest_gone(self) -> None:
        """When the manifest that is asked about is gone, the blob itself is asked for."""
        digest: Digest = self.image
        del self.upstream.repositories[PRIVATE].manifests[str(digest)]
        self.assertEqual((await self.mirror.blob(LAYER.digest, self.second, PRIVATE)).status, 200)
        self.saw(HEAD_manifest=1, GET_manifest=1, GET_blob=1)


class None_(MirrorCase):
    async def test_what_docxy_can_read(self) -> None:
        """In none mode what docxy can read, clients can read, whatever they send; the rest is denied."""
        self.upstream.auth = Auth("bearer", private={PRIVATE})
        self.upstream.add_image(PRIVATE)
        self.upstream.add_image(PUBLIC)
        for token in (None, "whatever"):
            self.assertEqual((await self.mirror.manifest("latest", token, PUBLIC)).status, 200)
            self.assertIn((await self.mirror.manifest("latest", token, PRIVATE)).status, (403, 404))
        self.assertFalse([each for each in self.upstream.requests if "whatever" in str(each.headers)])

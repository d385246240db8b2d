"""Manifests and tags: what is asked of the upstream, and what is not."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, gatherResults

from docxy.names import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Digest
from docxy.settings.model import AuthMode, Timeouts
from docxy.storage.interfaces import IBlobStore
from docxy.storage.memory import MemoryStore
from tests.fakes import Auth, Cdn, Fault
from tests.unit.pull.harness import BUDGET, REPOSITORY, Answer, MirrorCase, reactor

MISS = "docxy; fwd=miss; stored"
SIGNATURE = f"sha256-{'ab' * 32}.sig"


class Tags(MirrorCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.image = self.upstream.add_image(REPOSITORY)

    def move(self) -> Digest:
        """The tag points at another image from now on."""
        self.image = self.upstream.add_image(REPOSITORY, layers=[b"another layer"])
        return self.image

    def is_stale(self, answer: Answer, why: str, age: int) -> None:
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.cache_status, f"docxy; hit; ttl={60 - age}; detail=stale-{why}")
        self.assertEqual(answer.header("Age"), str(age))
        self.assertEqual(answer.header("Warning"), '110 docxy "Response is Stale"')

    async def test_fresh(self) -> None:
        """A fresh tag costs nothing, by GET and HEAD, by tag and digest; its age is told."""
        first = await self.mirror.manifest("latest")
        self.assertEqual((first.cache_status, first.header("Age")), (MISS, None))
        self.saw(GET_manifest=1)
        self.seconds.advance(59)
        for method in ("GET", "HEAD"):
            for reference in ("latest", self.image):
                answer = await self.mirror.manifest(reference, method=method)
                self.assertEqual(answer.header("Docker-Content-Digest"), str(self.image))
                if method == "HEAD":
                    self.assertEqual(answer.header("Content-Length"), str(len(first.body)))
                self.assertEqual(answer.header("Content-Type"), OCI_MANIFEST)
                self.assertEqual(answer.body, first.body if method == "GET" else b"")
                status = "docxy; hit; ttl=1" if reference == "latest" else "docxy; hit"
                self.assertEqual((answer.cache_status, answer.header("Age")), (status, "59"))
        self.saw()

    async def test_revalidated(self) -> None:
        """After its time to live a tag that did not move costs one HEAD, and is fresh again."""
        await self.mirror.manifest("latest")
        self.upstream.requests.clear()
        self.seconds.advance(61)
        answer = await self.mirror.manifest("latest")
        self.assertEqual((answer.cache_status, answer.header("Age")), ("docxy; fwd=stale; ttl=60", "0"))
        self.assertEqual((await self.mirror.manifest("latest")).cache_status, "docxy; hit; ttl=60")
        self.saw(HEAD_manifest=1)

    async def test_moved(self) -> None:
        """A tag that moved costs a HEAD and a GET, once."""
        await self.mirror.manifest("latest")
        self.upstream.requests.clear()
        digest = self.move()
        self.seconds.advance(61)
        answer = await self.mirror.manifest("latest")
        self.assertEqual(answer.header("Docker-Content-Digest"), str(digest))
        self.assertEqual(answer.cache_status, "docxy; fwd=stale; stored")
        await self.mirror.manifest("latest")
        self.saw(HEAD_manifest=1, GET_manifest=1)

    async def test_at_once(self) -> None:
        """However many ask at once, by GET and HEAD: one request cold, one HEAD when stale."""
        for expected in ({"GET_manifest": 1}, {"HEAD_manifest": 1}):
            answers = await gatherResults([Deferred.fromCoroutine(self.mirror.manifest("latest")) for _ in range(20)])
            self.assertEqual({each.header("Docker-Content-Digest") for each in answers}, {str(self.image)})
            # Who comes when the answer is there already, as on a busy machine, gets it from the cache.
            self.assertEqual(
                sum("collapsed" in each.cache_status or "hit" in each.cache_status for each in answers), 19
            )
            self.assertTrue(any("collapsed" in each.cache_status for each in answers))
            self.saw(**expected)
            self.seconds.advance(61)
        both = [self.mirror.manifest("latest", method=method) for method in ("GET", "HEAD", "GET", "HEAD")]
        await gatherResults([Deferred.fromCoroutine(each) for each in both])
        self.saw(HEAD_manifest=1)

    async def test_head_first(self) -> None:
        """A HEAD costs a HEAD; what it told serves HEADs, and never stands for bytes."""
        for _ in range(2):
            answer = await self.mirror.manifest("latest", method="HEAD")
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.image))
        self.saw(HEAD_manifest=1)
        self.assertEqual(Digest.of((await self.mirror.manifest("latest")).body), self.image)
        self.saw(GET_manifest=1)

    async def test_head_lies(self) -> None:
        """What the HEAD of a digest told is not kept for ever."""
        self.upstream.on("manifest", Fault(headers={"Content-Type": "text/html"}), method="HEAD")
        await self.mirror.manifest(self.image, method="HEAD")
        answer = await self.mirror.manifest(self.image, method="HEAD", accept=("*/*",))
        self.assertEqual(answer.header("Content-Type"), OCI_MANIFEST)

    async def test_head_lies_about_what_is_here(self) -> None:
        """Nor is it believed of bytes that came by their digest, when a tag that leads to them is asked for first."""
        body = (await self.mirror.manifest(self.image)).body
        self.upstream.on("manifest", Fault(length_delta=34), method="HEAD")
        answer = await self.mirror.manifest("latest", method="HEAD")
        self.assertEqual(answer.header("Docker-Content-Digest"), str(self.image))
        self.assertEqual(answer.header("Content-Length"), str(len(body)))
        self.saw(GET_manifest=1, HEAD_manifest=1)

    async def test_head_lies_about_length(self) -> None:
        """A length that a HEAD told is believed until the bytes are here, and not a moment longer."""
        self.upstream.on("manifest", Fault(length_delta=34), method="HEAD")
        await self.mirror.manifest("latest", method="HEAD")
        whole = await self.mirror.manifest(self.image)
        answer = await self.mirror.manifest("latest", method="HEAD")
        self.assertEqual(answer.header("Content-Length"), str(len(whole.body)))
        self.saw(HEAD_manifest=1, GET_manifest=1)

    async def test_accept(self) -> None:
        """Who can't take what is cached gets the upstream's answer, and nobody else does."""
        self.upstream.strict_accept = True
        await self.mirror.manifest("latest")
        for _ in range(2):
            refused = await self.mirror.manifest("latest", accept=(DOCKER_MANIFEST,))
            self.assertEqual((refused.status, refused.code), (404, "MANIFEST_UNKNOWN"))
        self.assertEqual((await self.mirror.manifest("latest")).cache_status, "docxy; hit; ttl=60")
        self.assertEqual((await self.mirror.manifest("latest", accept=(OCI_MANIFEST,))).status, 200)
        self.saw(GET_manifest=2)
        self.seconds.advance(61)
        refused = await self.mirror.manifest("other", accept=(DOCKER_MANIFEST,))
        self.upstream.add_image(REPOSITORY, "other")
        self.assertEqual((await self.mirror.manifest("other")).status, 200)

    async def test_narrow_accept(self) -> None:
        """What a registry answers to a narrow Accept in place of the index is not what others get."""
        index = self.upstream.add_two_platforms(REPOSITORY, "multi")
        one = self.upstream.add_image(REPOSITORY, None)
        body = self.upstream.repositories[REPOSITORY].manifests[str(one)].body
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(one)}
        self.upstream.on("manifest", Fault(body=body, headers=headers))
        narrow = await self.mirror.manifest("multi", accept=(OCI_MANIFEST,))
        self.assertEqual(narrow.header("Docker-Content-Digest"), str(one))
        wide = await self.mirror.manifest("multi")
        self.assertEqual(wide.header("Docker-Content-Digest"), str(index))

    async def test_stale(self) -> None:
        """An upstream that fails: the stale tag is served, says so, and the upstream is left alone for a while."""
        for fault in (
            Fault(drop=True),
            Fault(status=500),
            Fault(status=502),
            Fault(status=503),
            Fault.too_many_requests("7"),
            Fault.abuse(),
            Fault(stall_headers=True),
        ):
            mirror = self.mirror = self.start(
                catalog=self.make_catalog(), timeouts=Timeouts(headers=0.2 if fault.stall_headers else 25.0)
            )
            await mirror.manifest("latest")
            self.upstream.requests.clear()
            self.seconds.advance(70)
            rule = self.upstream.on("manifest", fault, times=None)
            self.is_stale(await mirror.manifest("latest"), "upstream-failed", 70)
            self.assertIn(self.counts()["HEAD manifest"], (1, 2, 3, 4), fault)
            asked = len(self.upstream.requests)
            self.seconds.advance(4)
            for _ in range(3):
                self.is_stale(await mirror.manifest("latest"), "upstream-paused", 74)
            self.assertEqual(len(self.upstream.requests), asked)
            rule.cancel()
            self.seconds.advance(60)
            self.assertEqual((await mirror.manifest("latest")).cache_status, "docxy; fwd=stale; ttl=60")

    async def test_refused_connection(self) -> None:
        """An upstream that is off: stale by tag, for ever by digest."""
        await self.mirror.manifest("latest")
        await self.upstream.stop()
        self.seconds.advance(7 * 24 * 3600)
        self.is_stale(await self.mirror.manifest("latest"), "upstream-failed", 7 * 24 * 3600)
        self.assertEqual((await self.mirror.manifest(self.image)).cache_status, "docxy; hit")

    async def test_pull_limit(self) -> None:
        """A HEAD is free and says that the tag moved, the GET meets the limit: the old one is served stale."""
        old = self.image
        await self.mirror.manifest("latest")
        self.move()
        self.seconds.advance(70)
        self.upstream.requests.clear()
        self.upstream.on("manifest", Fault.too_many_requests(), method="GET", times=None)
        for why in ("upstream-failed", "upstream-paused"):
            answer = await self.mirror.manifest("latest")
            self.is_stale(answer, why, 70)
            self.assertEqual(answer.header("Docker-Content-Digest"), str(old))
        self.saw(HEAD_manifest=1, GET_manifest=1)

    async def test_gone(self) -> None:
        """A tag that is gone is gone at once, and not served stale when the upstream fails later."""
        await self.mirror.manifest("latest")
        del self.upstream.repositories[REPOSITORY].tags["latest"]
        self.seconds.advance(61)
        gone = await self.mirror.manifest("latest")
        self.assertEqual((gone.status, gone.code), (404, "MANIFEST_UNKNOWN"))
        self.seconds.advance(11)
        await self.upstream.stop()
        self.assertEqual((await self.mirror.manifest("latest")).status, 502)
        self.assertEqual((await self.mirror.manifest(self.image)).status, 200)

    async def test_keep_gone(self) -> None:
        """Unless the operator wants to keep it."""
        await self.mirror.manifest("latest")
        self.mirror = self.start(keep_gone=True)
        del self.upstream.repositories[REPOSITORY].tags["latest"]
        self.seconds.advance(70)
        self.is_stale(await self.mirror.manifest("latest"), "gone", 70)

    async def test_missing(self) -> None:
        """A missing tag, a signature's above all, is asked for once in a short while, then found when it comes."""
        for tag in ("nightly", SIGNATURE):
            for method in ("GET", "HEAD", "GET"):
                answer = await self.mirror.manifest(tag, method=method)
                self.assertEqual(answer.status, 404)
            self.assertEqual(answer.code, "MANIFEST_UNKNOWN")
            self.saw(GET_manifest=1)
            self.upstream.add_image(REPOSITORY, tag)
            self.seconds.advance(11)
            self.assertEqual((await self.mirror.manifest(tag)).status, 200)
            self.upstream.requests.clear()

    async def test_limited(self) -> None:
        """429 with nothing stale to serve: five instant retries cost one request, and say when to come back."""
        self.upstream.on("manifest", Fault.too_many_requests("30"))
        for _ in range(6):
            answer = await self.mirror.manifest("latest")
            self.assertEqual((answer.status, answer.code), (429, "TOOMANYREQUESTS"))
            self.assertEqual(answer.header("Retry-After"), "30")
        self.saw(GET_manifest=1)
        self.seconds.advance(31)
        self.assertEqual((await self.mirror.manifest("latest")).status, 200)

    async def test_limited_blob(self) -> None:
        """The same for blobs."""
        digest = self.upstream.add_blob(REPOSITORY, b"blob")
        self.upstream.on("blob", Fault.too_many_requests("30"))
        for _ in range(6):
            self.assertEqual((await self.mirror.blob(digest)).status, 429)
        self.saw(GET_blob=1)
        self.seconds.advance(31)
        self.assertEqual((await self.mirror.blob(digest)).body, b"blob")

    async def test_redirected(self) -> None:
        """Manifests that lie behind redirects are followed and kept like others."""
        self.upstream.cdn = Cdn(kinds=frozenset({"manifest"}))
        await self.mirror.manifest("latest")
        self.assertEqual((await self.mirror.manifest("latest")).cache_status, "docxy; hit; ttl=60")
        self.saw(GET_manifest=1, GET_cdn=1)


class Verified(MirrorCase):
    """Only a 200 with a manifest that is what it claims to be is ever kept."""

    async def refused(self, fault: Fault, by_digest: bool = True) -> None:
        """Whatever this does to a manifest, clients get an error, nothing is kept, and the next answer is right."""
        digest = self.upstream.add_image(REPOSITORY)
        for reference in ("latest", digest) if by_digest else ("latest",):
            mirror = self.mirror = self.start(store=MemoryStore(BUDGET, reactor), catalog=self.make_catalog())
            rule = self.upstream.on("manifest", fault, method="GET", times=None)
            answer = await mirror.manifest(reference)
            rule.cancel()
            self.assertEqual((answer.status, answer.code), (502, "UNAVAILABLE"), reference)
            self.assertIsNone(await mirror.store.stat(digest))
            self.upstream.requests.clear()
            answer = await mirror.manifest(reference)
            self.assertEqual((answer.status, Digest.of(answer.body), answer.cache_status), (200, digest, MISS))
            self.saw(GET_manifest=1)

    async def test_html(self) -> None:
        """A captive portal's page with a 200."""
        await self.refused(Fault.html_page())

    async def test_html_as_manifest(self) -> None:
        """The same under a manifest's media type."""
        await self.refused(Fault(body=b"<html>log in</html>", headers={"Content-Type": OCI_MANIFEST}))

    async def test_truncated(self) -> None:
        """A body cut short, with and without a length."""
        await self.refused(Fault(cut_after=50))
        await self.refused(Fault(cut_after=50, headers={"Content-Length": None}))

    async def test_wrong_digest(self) -> None:
        """Bytes that are not those of the digest asked for or told."""
        await self.refused(Fault(flip=60))

    async def test_wrong_told(self) -> None:
        """By tag, a Docker-Content-Digest that the bytes do not have."""
        await self.refused(Fault.digest_header(f"sha256:{'0' * 64}"), by_digest=False)

    async def test_wrong_type(self) -> None:
        """A media type that is none of a manifest's, or not the one it names itself."""
        await self.refused(Fault.wrong_type())
        await self.refused(Fault.wrong_type(OCI_INDEX))

    async def test_too_large(self) -> None:
        """More than 8 MiB."""
        await self.refused(Fault.huge())

    async def test_no_schema(self) -> None:
        """JSON that is no manifest."""
        await self.refused(Fault(body=json.dumps({"errors": []}).encode(), headers={"Content-Type": OCI_MANIFEST}))

    async def test_damaged(self) -> None:
        """A manifest damaged in the store is found when it is read, and fetched again."""
        digest = self.upstream.add_image(REPOSITORY)
        good = (await self.mirror.manifest("latest")).body
        store: IBlobStore = self.store
        for damage in (b"x", None):
            held = store._held[digest]  # type: ignore[attr-defined]  # a bit flips; a file is cut short
            if damage is None:
                del held.data[10:]
            else:
                held.data[:1] = damage
            self.upstream.requests.clear()
            # A process that does not have it in memory.
            mirror = self.start()
            self.assertEqual((await mirror.manifest("latest")).body, good)
            self.assertEqual((await mirror.manifest(digest)).cache_status, "docxy; hit")
            self.saw(GET_manifest=1)


class Transparent(MirrorCase):
    auth = AuthMode.TRANSPARENT

    async def test_never_stale_for_the_refused(self) -> None:
        """401 and 403 are never covered by something stale; the others go on."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.auth = Auth("bearer", accounts={"ann": "secret"}, private={REPOSITORY})
        good, bad = (
            self.upstream.auth.add_token(account, frozenset({REPOSITORY}), reactor.seconds() + 300)
            for account in ("ann", "ann")
        )
        for token in (good, bad):
            self.assertEqual((await self.mirror.manifest("latest", token)).status, 200)
        self.seconds.advance(70)
        del self.upstream.auth.tokens[bad]
        self.assertEqual((await self.mirror.manifest("latest", bad)).status, 401)
        await self.upstream.stop()
        self.assertEqual((await self.mirror.manifest("latest", bad)).status, 502)
        self.assertEqual((await self.mirror.manifest("latest", good)).status, 200)

    async def test_denied(self) -> None:
        """The same for 403."""
        self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest("latest")
        self.seconds.advance(70)
        self.upstream.on("manifest", Fault(status=403), times=None)
        self.assertEqual((await self.mirror.manifest("latest")).status, 403)

    async def test_limited(self) -> None:
        """429 for a client's own token: its instant retries cost one request, another client's are its own."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.on("manifest", Fault.too_many_requests("30"), times=2)
        for token in ("one", "two"):
            for _ in range(6):
                answer = await self.mirror.manifest("latest", token)
                self.assertEqual((answer.status, answer.header("Retry-After")), (429, "30"))
            self.saw(GET_manifest=1)
        self.seconds.advance(31)
        self.assertEqual((await self.mirror.manifest("latest", "one")).status, 200)

    async def test_limited_verdict(self) -> None:
        """A 429 on the way to a verdict is remembered for a moment too."""
        self.upstream.auth = Auth("bearer")
        digest = self.upstream.add_image(REPOSITORY)
        first = str((await self.mirror.token()).json["token"])
        second = self.upstream.auth.add_token(None, frozenset({REPOSITORY}), reactor.seconds() + 300)
        await self.mirror.manifest("latest", first)
        self.upstream.requests.clear()
        self.upstream.on("manifest", Fault.too_many_requests())
        for _ in range(6):
            self.assertEqual((await self.mirror.manifest(digest, second)).status, 429)
        self.saw(HEAD_manifest=1)
        self.seconds.advance(61)
        self.assertEqual((await self.mirror.manifest(digest, second)).status, 200)

"""`Accept`: which manifest a client takes, and what is kept for those that take less than everything."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from docxy.pull import accept
from docxy.pull.accept import ANYTHING, MAX_LENGTH, MAX_OTHERS, Accept, read
from tests.fakes import Fault
from tests.unit.pull.harness import ACCEPT, REPOSITORY, MirrorCase, reactor

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


class Reading(SynchronousTestCase):
    def test_taken(self) -> None:
        """No Accept, an exact type, wildcards and lists of lines take a type."""
        for lines in (
            [],
            [""],
            [" , "],
            [OCI_INDEX],
            ["text/plain", OCI_INDEX],
            [f"text/plain, {OCI_INDEX};q=0.5"],
            ["*/*"],
            ["application/*; q=0.1"],
            [OCI_INDEX.upper()],
        ):
            self.assertTrue(read(lines).takes(OCI_INDEX), lines)

    def test_not_taken(self) -> None:
        """Another type, and one of weight nothing, do not; the more specific range decides."""
        for lines in (
            [OCI_MANIFEST],
            ["text/*"],
            [f"{OCI_INDEX};q=0"],
            [f"{OCI_INDEX} ; q=0.000, text/plain"],
            [f"*/*, {OCI_INDEX};q=0"],
        ):
            self.assertFalse(read(lines).takes(OCI_INDEX), lines)

    def test_others(self) -> None:
        """A type that tags are not kept by is taken where it is named, or everything is."""
        self.assertTrue(read([SCHEMA_1]).takes(SCHEMA_1))
        self.assertTrue(ANYTHING.takes(SCHEMA_1))
        self.assertFalse(read([OCI_INDEX]).takes(SCHEMA_1))
        self.assertIsNone(read([SCHEMA_1]).variant)
        self.assertEqual(read([f"{OCI_MANIFEST},{SCHEMA_1}"]).lines, (f"{OCI_MANIFEST}, {SCHEMA_1}",))

    def test_equal(self) -> None:
        """The same wish in other words is the same value."""
        for lines in (list(ACCEPT), [", ".join(reversed(ACCEPT))], ["*/*"], [*ACCEPT, SCHEMA_1], ["application/*"]):
            self.assertEqual(read(lines), ANYTHING, lines)
        self.assertEqual(read([f"{DOCKER_LIST};q=1,{DOCKER_MANIFEST}"]), read([DOCKER_MANIFEST, DOCKER_LIST]))
        self.assertEqual(read([DOCKER_LIST, DOCKER_MANIFEST]).variant, "docker-list,docker-manifest")

    def test_bounded(self) -> None:
        """Only the beginning of a long header is read, only some other types go on, and long ones are not kept."""
        long = ",".join([OCI_MANIFEST, *(f"text/x{i:05}" for i in range(1300))])
        self.assertGreater(len(long), MAX_LENGTH * 3)
        before = accept._kept.cache_info().currsize
        self.assertEqual(read([long]), Accept((OCI_MANIFEST,), tuple(f"text/x{i:05}" for i in range(MAX_OTHERS))))
        self.assertFalse(read([f"{long},{OCI_INDEX}"]).takes(OCI_INDEX))
        self.assertEqual(accept._kept.cache_info().currsize, before)


class Narrow(MirrorCase):
    """Clients that take less than everything."""

    async def test_by_digest(self) -> None:
        """A digest has one representation: it is served whatever Accept says, cold, warm and with the upstream off."""
        self.upstream.strict_accept = True
        image = self.upstream.add_image(REPOSITORY)
        for method in ("GET", "HEAD"):
            answer = await self.mirror.manifest(image, accept=(DOCKER_MANIFEST,), method=method)
            self.assertEqual((answer.status, answer.header("Content-Type")), (200, OCI_MANIFEST))
        self.saw(GET_manifest=1)
        await self.upstream.stop()
        for types in ((DOCKER_MANIFEST,), (OCI_INDEX, DOCKER_LIST), ("text/plain",)):
            self.assertEqual((await self.mirror.manifest(image, accept=types)).cache_status, "docxy; hit")

    async def test_tag_kept(self) -> None:
        """A tag is cached, asked for again by HEAD, and served stale, for clients that take one kind alone too."""
        self.upstream.strict_accept = True
        self.upstream.add_image(REPOSITORY)
        for types in ((OCI_MANIFEST,), (OCI_MANIFEST, OCI_INDEX), (SCHEMA_1, OCI_MANIFEST)):
            self.mirror = self.start(catalog=self.make_catalog())
            for method in ("GET", "GET", "HEAD"):
                self.assertEqual((await self.mirror.manifest("latest", accept=types, method=method)).status, 200)
            self.saw(GET_manifest=1)
            self.seconds.advance(61)
            answer = await self.mirror.manifest("latest", accept=types)
            self.assertEqual(answer.cache_status, "docxy; fwd=stale; ttl=60")
            self.saw(HEAD_manifest=1)
            rule = self.upstream.on("manifest", Fault(status=503), times=None)
            self.seconds.advance(61)
            answer = await self.mirror.manifest("latest", accept=types)
            self.assertEqual(answer.cache_status, "docxy; hit; ttl=-1; detail=stale-upstream-failed")
            rule.cancel()
            self.upstream.requests.clear()

    async def test_apart(self) -> None:
        """What a narrow Accept selects of a tag is kept beside what everybody gets, and neither displaces the other."""
        index = self.upstream.add_two_platforms(REPOSITORY, "multi")
        one = self.upstream.add_image(REPOSITORY, None)
        body = self.upstream.repositories[REPOSITORY].manifests[str(one)].body
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(one)}
        self.upstream.on("manifest", Fault(body=body, headers=headers))
        for _ in range(2):
            for types, digest in (((OCI_MANIFEST,), one), (ACCEPT, index)):
                answer = await self.mirror.manifest("multi", accept=types)
                self.assertEqual(answer.header("Docker-Content-Digest"), str(digest))
        self.saw(GET_manifest=2)

    async def test_usual_serves(self) -> None:
        """What everybody gets serves a narrow client that takes it, until it becomes something else."""
        self.upstream.strict_accept = True
        image = self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest("latest")
        self.assertEqual((await self.mirror.manifest("latest", accept=(OCI_MANIFEST,))).status, 200)
        self.saw(GET_manifest=1)
        self.upstream.add_two_platforms(REPOSITORY)
        self.seconds.advance(61)
        answer = await self.mirror.manifest("latest", accept=(OCI_MANIFEST,))
        self.assertEqual((answer.status, answer.code), (404, "MANIFEST_UNKNOWN"))
        self.assertEqual((await self.mirror.manifest("latest")).header("Content-Type"), OCI_INDEX)
        self.assertEqual((await self.mirror.manifest(image)).status, 200)

    async def test_many_at_once(self) -> None:
        """Five hundred headers in other words, one stale tag: one HEAD, and nobody asks while another client does."""
        self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest("latest")
        self.seconds.advance(61)
        self.upstream.requests.clear()
        claim = f"fake.test/{REPOSITORY}:latest "
        self.assertTrue(await self.catalog.claims.claim(claim, 30))
        claimed = self.catalog.claims.claim

        async def counted(key: str, patience: float) -> bool:
            waiting.append(key)
            reactor.callLater(0, self.catalog.claims.release, claim)
            return bool(await claimed(key, patience))

        waiting: list[str] = []
        self.patch(self.catalog.claims, "claim", counted)
        accepts = [(*ACCEPT, f"text/x{number}") for number in range(500)]
        answers = await gatherResults(
            [Deferred.fromCoroutine(self.mirror.manifest("latest", accept=a)) for a in accepts]
        )
        self.assertEqual({each.status for each in answers}, {200})
        self.saw(HEAD_manifest=1)
        self.assertEqual(len(waiting), 1)


class Gone(MirrorCase):
    async def test_moved_and_removed(self) -> None:
        """A tag known by a HEAD alone, whose digest is gone since: the client's second try finds the new one."""
        old = self.upstream.add_image(REPOSITORY)
        self.assertEqual((await self.mirror.manifest("latest", method="HEAD")).status, 200)
        del self.upstream.repositories[REPOSITORY].manifests[str(old)]
        new = self.upstream.add_image(REPOSITORY, layers=[b"another layer"])
        told = (await self.mirror.manifest("latest", method="HEAD")).header("Docker-Content-Digest")
        self.assertEqual(told, str(old))
        self.assertEqual((await self.mirror.manifest(old)).status, 404)
        told = (await self.mirror.manifest("latest", method="HEAD")).header("Docker-Content-Digest")
        self.assertEqual(told, str(new))

    async def test_no_memory(self) -> None:
        """With a time to live of 0 nothing that is missing is remembered: neither manifest nor listing."""
        self.mirror = self.start(tag_ttl=0.0)
        for path in ("manifests/nightly", "tags/list"):
            for _ in range(2):
                self.assertEqual((await self.mirror.ask(f"/v2/{REPOSITORY}/{path}")).status, 404)
        self.upstream.add_image(REPOSITORY, "nightly")
        self.assertEqual((await self.mirror.manifest("nightly")).status, 200)
        self.assertEqual((await self.mirror.ask(f"/v2/{REPOSITORY}/tags/list")).status, 200)
        self.saw(GET_manifest=3, GET_tags=3)

"""What a platform's manifest lists starts filling before it is asked for."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from docxy.config import AuthMode
from docxy.names import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Digest
from docxy.pull.prefetch import AGAIN, AT_ONCE, MAX_LISTED, listed
from docxy.storage.memory import MemoryStore
from docxy.upstream.remote import Manifest
from tests.fakes import Auth, Fault, Pattern
from tests.pull.harness import BUDGET, REPOSITORY, MirrorCase, drain, reactor

MISS = "docxy; fwd=miss; stored"
LAYERS = [Pattern(100_000, str(number)) for number in range(7)]


class Listed(SynchronousTestCase):
    def listed(self, document: object, media_type: str = OCI_MANIFEST) -> list[str]:
        body = json.dumps(document).encode()
        return [each.digest.hex[:2] for each in listed(Manifest(media_type, Digest.of(body), len(body), body))]

    def entry(self, pair: str, **more: object) -> dict[str, object]:
        return {"mediaType": "x/y", "digest": f"sha256:{pair * 32}", "size": 1, **more}

    def test_order(self) -> None:
        """Config first, then the layers in their order, for OCI and for Docker."""
        document = {"config": self.entry("cc"), "layers": [self.entry("bb"), self.entry("aa")]}
        for media_type in (OCI_MANIFEST, DOCKER_MANIFEST):
            self.assertEqual(self.listed(document, media_type), ["cc", "bb", "aa"])

    def test_nothing(self) -> None:
        """Nothing of an index, of a HEAD, of what has no layers."""
        self.assertEqual(self.listed({"manifests": [self.entry("aa")]}, OCI_INDEX), [])
        self.assertEqual(self.listed({"layers": [self.entry("aa")]}, OCI_INDEX), [])
        self.assertEqual(listed(Manifest(OCI_MANIFEST, Digest.of(b""), 0, None)), [])
        self.assertEqual(self.listed({}), [])
        self.assertEqual(self.listed({"config": None, "layers": {"a": 1}}), [])

    def test_left_out(self) -> None:
        """Foreign and malformed layers are left out, the others are not."""
        odd: list[object] = [
            5,
            None,
            [],
            {},
            self.entry("aa", urls=["https://elsewhere.test"]),
            self.entry("zz"),
            self.entry("aa", size="x"),
            self.entry("aa", digest=7),
        ]
        self.assertEqual(self.listed({"config": self.entry("cc"), "layers": [*odd, self.entry("bb")]}), ["cc", "bb"])

    def test_bounded(self) -> None:
        """However long the list is."""
        self.assertEqual(len(self.listed({"layers": [self.entry("aa")] * 5000})), MAX_LISTED - 1)


class Prefetched(MirrorCase):
    prefetch = True

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        await super().setUp()
        self.image = self.upstream.add_image(REPOSITORY, layers=LAYERS)
        self.blobs = self.upstream.layers(REPOSITORY, self.image)

    def asked(self) -> list[str]:
        """What was asked for, sorted: requests on several connections overtake each other."""
        return sorted(str(each.reference) for each in self.upstream.select("blob"))

    def expected(self, count: int | None = None) -> list[str]:
        return sorted(str(each) for each in self.blobs[:count])

    async def all_filled(self) -> None:
        await self.upstream.finished("blob", count=len(self.blobs))
        for digest in self.blobs:
            await drain(self.mirror, digest)

    async def test_started(self) -> None:
        """All blobs are fetched without being asked for; then they cost nothing."""
        await self.mirror.manifest("latest")
        await self.all_filled()
        self.assertEqual(self.asked(), self.expected())
        for digest in self.blobs:
            self.assertEqual((await self.mirror.blob(digest)).cache_status, "docxy; hit")
        self.saw(GET_manifest=1, GET_blob=8)

    async def test_bounded(self) -> None:
        """A few at a time, the manifest's first ones first; the next one starts when one ends."""
        rule = self.upstream.on("blob", Fault(stall_after=10), times=AT_ONCE)
        await self.mirror.manifest("latest")
        await rule.struck(AT_ONCE)
        self.assertEqual(self.asked(), self.expected(AT_ONCE))
        rule.release()
        await self.all_filled()
        self.saw(GET_manifest=1, GET_blob=8)

    async def test_joined(self) -> None:
        """The client's own requests join what runs; those that wait their turn start at once."""
        rule = self.upstream.on("blob", Fault(stall_after=10), times=None)
        await self.mirror.manifest("latest")
        await rule.struck(AT_ONCE)
        pulls = [Deferred.fromCoroutine(self.mirror.blob(each)) for each in self.blobs]
        await rule.struck(len(self.blobs))
        rule.release()
        answers = await gatherResults(pulls)
        self.assertEqual([str(Digest.of(each.body)) for each in answers], [str(each) for each in self.blobs])
        statuses = [each.cache_status for each in answers]
        self.assertEqual(statuses, ["docxy; fwd=miss; collapsed"] * 4 + ["docxy; fwd=miss; stored"] * 4)
        await self.all_filled()
        self.saw(GET_manifest=1, GET_blob=8)

    async def test_once(self) -> None:
        """Asking again for the manifest starts nothing again, in the same moment or later."""
        pulls = [Deferred.fromCoroutine(self.mirror.manifest(each)) for each in ("latest", self.image, "latest")]
        await gatherResults(pulls)
        await self.all_filled()
        await self.mirror.manifest("latest")
        self.assertEqual(self.asked(), self.expected())

    async def test_again(self) -> None:
        """What was evicted is filled again, but not before a while is over."""
        await self.mirror.manifest("latest")
        await self.all_filled()
        await self.store.delete(self.blobs[1])
        self.upstream.requests.clear()
        await self.mirror.manifest("latest")
        # Had a prefetch been started, it would have asked before this one does.
        self.assertEqual((await self.mirror.blob(self.blobs[1], asked="bytes=0-0")).cache_status, MISS)
        await drain(self.mirror, self.blobs[1])
        await self.store.delete(self.blobs[1])
        self.seconds.advance(AGAIN + 1)
        await self.mirror.manifest("latest")
        await self.upstream.finished("blob", count=2)
        await drain(self.mirror, self.blobs[1])
        self.saw(HEAD_manifest=1, GET_blob=2)

    async def test_not_for_an_index(self) -> None:
        """An index, and a HEAD, start nothing."""
        self.upstream.add_two_platforms(REPOSITORY, "multi")
        await self.mirror.manifest("multi")
        await self.mirror.manifest("latest", method="HEAD")
        self.saw(GET_manifest=1, HEAD_manifest=1)

    async def test_off(self) -> None:
        """Switched off, it starts nothing."""
        mirror = self.start(prefetch=False, store=MemoryStore(BUDGET, reactor), catalog=self.make_catalog())
        await mirror.manifest("latest")
        self.saw(GET_manifest=1)

    async def test_silent(self) -> None:
        """What fails is left for the client's own request, and stops nothing else."""
        self.upstream.on("blob", Fault(status=404), path=str(self.blobs[1]))
        self.upstream.on("blob", Fault(status=502), path=str(self.blobs[2]))
        await self.mirror.manifest("latest")
        await self.all_filled()
        self.assertEqual(self.asked(), self.expected())
        self.assertEqual((await self.mirror.blob(self.blobs[1])).status, 200)
        self.assertEqual((await self.mirror.blob(self.blobs[2])).status, 200)
        self.assertEqual(self.flushLoggedErrors(), [])


class TransparentPrefetched(MirrorCase):
    auth = AuthMode.TRANSPARENT
    prefetch = True

    async def test_in_the_client_s_name(self) -> None:
        """Only with the token of the client that got the manifest."""
        self.upstream.auth = Auth("bearer")
        image = self.upstream.add_image(REPOSITORY, layers=LAYERS[:2])
        token = str((await self.mirror.token()).json["token"])
        self.upstream.requests.clear()
        self.assertEqual((await self.mirror.manifest("latest")).status, 401)
        self.saw(GET_manifest=1)
        await self.mirror.manifest("latest", token)
        await self.upstream.finished("blob", count=3)
        for digest in self.upstream.layers(REPOSITORY, image):
            await drain(self.mirror, digest)
        self.assertEqual(
            {each.headers.get("authorization") for each in self.upstream.select("blob")}, {f"Bearer {token}"}
        )
        self.saw(GET_manifest=1, GET_blob=3)

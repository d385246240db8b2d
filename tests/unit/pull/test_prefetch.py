"""What a platform's manifest lists starts filling before it is asked for."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred, gatherResults

from docxy.pull import prefetch
from docxy.pull.prefetch import AGAIN, AT_ONCE
from docxy.settings.model import AuthMode
from docxy.storage.memory import MemoryStore
from tests.fakes import Auth, Fault, Pattern
from tests.unit.pull.harness import BUDGET, REPOSITORY, MirrorCase, drain, reactor

MISS = "docxy; fwd=miss; stored"
LAYERS = [Pattern(100_000, str(number)) for number in range(7)]


class Prefetched(MirrorCase):
    prefetch = True

    async def setUp(self) -> None:
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

    async def test_queue_is_bounded(self) -> None:
        """However many manifests are pulled, only so many blobs are prefetched or wait for it."""
        self.patch(prefetch, "MAX_QUEUED", AT_ONCE + 1)
        rule = self.upstream.on("blob", Fault(stall_after=10), times=AT_ONCE)
        await self.mirror.manifest("latest")
        other = self.upstream.add_image(REPOSITORY, tag="other", layers=[Pattern(1000, "other")])
        await self.mirror.manifest("other")
        await rule.struck(AT_ONCE)
        rule.release()
        for digest in self.blobs[: AT_ONCE + 1]:
            await drain(self.mirror, digest)
        left = [*self.blobs[AT_ONCE + 1 :], *self.upstream.layers(REPOSITORY, other)]
        for digest in left:
            self.assertEqual((await self.mirror.blob(digest)).cache_status, MISS)

    async def test_stopped(self) -> None:
        """At the stop those that wait for their turn end too: none begins when those before it are ended."""
        rule = self.upstream.on("blob", Fault(stall_after=10), times=None)
        await self.mirror.manifest("latest")
        await rule.struck(AT_ONCE)
        await self.mirror.stop()
        self.assertEqual(self.asked(), self.expected(AT_ONCE))
        self.assertEqual(len(self.mirror.fills), 0)
        # What is left of them would be found here, and tell of its end.
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_joined(self) -> None:
        """The client's own requests join what runs; those that wait their turn start at once."""
        rule = self.upstream.on("blob", Fault(stall_after=10), times=None)
        await self.mirror.manifest("latest")
        await rule.struck(AT_ONCE)
        paths = [f"/v2/{REPOSITORY}/blobs/{each}" for each in self.blobs]
        # Each has its headers, and so has joined or started, before anything ends.
        answers = await gatherResults([Deferred.fromCoroutine(self.mirror.stream(each)) for each in paths])
        await rule.struck(len(self.blobs))
        rule.release()
        await gatherResults([each.client.ended for each in answers])
        self.assertEqual([each.client.digest for each in answers], [str(each) for each in self.blobs])
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
        self.upstream.on("blob", Fault(status=503), path=str(self.blobs[2]))
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

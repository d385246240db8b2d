"""Ranges of cold blobs far behind what a fill has: fetched first, and once.

The fake upstream stalls where a test says so; what is waited for is an event.
"""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults

from docxy.pull.blobs import ahead, far, fills
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import IScratch, NoSpace
from tests.fakes import Fault, Pattern
from tests.harness.client import Answer, Streamed
from tests.unit.pull.harness import BUDGET, REPOSITORY, MirrorCase, drain
from tests.unit.storage.fixtures import in_thread

reactor: Any = _reactor

KIB, MIB = 1 << 10, 1 << 20
BLOB = Pattern(12 * MIB + 5)
SIZE = BLOB.size


class FarCase(MirrorCase):
    """A large blob in small: what is near is 64 KiB, and a connection may be cut whatever is lost."""

    async def setUp(self) -> None:
        for module in (ahead, far):
            self.patch(module, "NEAR", 64 * KIB)
        self.patch(ahead, "LEAST", 64 * KIB)
        self.patch(ahead, "CUT_SHARE", 0)
        self.patch(ahead, "STRETCH", 4 * MIB)
        await super().setUp()
        self.digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.path = f"/v2/{REPOSITORY}/blobs/{self.digest}"

    def asked(self) -> list[str]:
        """What of the blob the upstream was asked for, in its order."""
        return [request.headers.get("range", "all") for request in self.upstream.select("blob")]

    async def range(self, first: int, stop: int) -> Answer:
        answer = await self.mirror.blob(self.digest, asked=f"bytes={first}-{stop - 1}")
        self.assertEqual((answer.status, answer.body == BLOB.read(first, stop - first)), (206, True))
        return answer

    async def whole(self, streamed: Streamed | None = None) -> None:
        """The blob comes whole and is kept."""
        streamed = streamed or await self.mirror.stream(self.path, keep=False)
        await streamed.client.ended
        self.assertEqual((streamed.client.whole, streamed.client.digest), (True, str(self.digest)))
        await drain(self.mirror, self.digest)
        self.assertIsNotNone(await self.store.stat(self.digest))

    def once(self, cut: int = 0) -> None:
        """No byte was asked for twice, but where so many requests were cut."""
        asked = sorted(tuple(map(int, each[6:].split("-"))) for each in self.asked() if each[6:7].isdigit())
        self.assertEqual(sum(last >= first for (_, last), (first, _) in pairwise(asked)), cut, asked)


class Cold(FarCase):
    async def test_footer(self) -> None:
        """The end of a cold blob is asked for first, by a suffix where nobody knows the size; then all before it."""
        answer = await self.mirror.blob(self.digest, asked="bytes=-65536")
        self.assertEqual((answer.status, answer.body == BLOB.read(SIZE - 65536, 65536)), (206, True))
        await drain(self.mirror, self.digest)
        await self.whole()
        self.assertEqual(self.asked()[:2], ["bytes=-65536", f"bytes=0-{4 * MIB - 1}"])
        self.assertEqual(self.upstream.blob_bytes_sent, SIZE)

    async def test_last_byte(self) -> None:
        """It is whole before the fill has begun to bring the rest."""
        rule = self.upstream.on("blob", Fault(stall_headers=True), skip=1)
        await self.range(SIZE - 10, SIZE)
        self.assertIsNone(await self.store.stat(self.digest))
        rule.release()
        await drain(self.mirror, self.digest)
        await self.whole()

    async def test_lazy_reader(self) -> None:
        """Footer, table of contents, then chunks anywhere: each is served while the fill stands still."""
        rule = self.upstream.on("blob", Fault(stall_after=0), skip=1)
        await self.range(SIZE - 50, SIZE)
        await self.range(SIZE - 200 * KIB, SIZE - 50)
        for first in (6 * MIB, 2 * MIB, 9 * MIB + 17):
            await self.range(first, first + 100 * KIB)
        self.assertFalse(rule.released)
        rule.release()
        await drain(self.mirror, self.digest)
        await self.whole()
        self.once(cut=1)

    async def test_whole_afterwards(self) -> None:
        """A client that wants all of it follows the fill that a range began."""
        await self.range(6 * MIB, 6 * MIB + 100)
        await self.whole()
        self.assertEqual(self.upstream.blob_bytes_sent, SIZE)

    async def test_near(self) -> None:
        """A range at the beginning begins an ordinary fill."""
        await self.range(0, 100)
        await drain(self.mirror, self.digest)
        self.assertEqual(self.asked(), ["all"])

    async def test_without_ranges(self) -> None:
        """An upstream that sends all of it for a range is asked once, and its fill is followed."""
        self.upstream.ranges = False
        await self.range(6 * MIB, 6 * MIB + 100)
        await self.range(9 * MIB, 9 * MIB + 100)
        await self.whole()
        self.assertEqual(len(self.asked()), 1)

    async def test_ranges_ignored(self) -> None:
        """Nor is one asked again that says it has ranges and ignores them."""
        self.upstream.on("blob", Fault(ignore_range=True, stall_after=MIB))
        self.upstream.on("blob", Fault(ignore_range=True), times=None)
        first = Deferred.fromCoroutine(self.range(6 * MIB, 6 * MIB + 100))
        rule = self.upstream.rules[0]
        await rule.struck()
        others = [Deferred.fromCoroutine(self.range(at * MIB, at * MIB + 100)) for at in (8, 9, 10)]
        rule.release()
        await gatherResults([first, *others])
        await self.whole()
        self.assertLessEqual(len(self.asked()), 4)


class Running(FarCase):
    """While the first connection of a whole pull stands still."""

    async def setUp(self) -> None:
        await super().setUp()
        self.rule = self.upstream.on("blob", Fault(stall_after=MIB))
        self.first = await self.mirror.stream(self.path, keep=False)
        await self.first.client.reached(MIB)

    async def test_jumps(self) -> None:
        """Ranges far behind it come at once; it ends where the first of them begins, and the whole is right."""
        await self.range(10 * MIB, 10 * MIB + 100)
        await self.range(5 * MIB, 5 * MIB + 100 * KIB)
        self.assertEqual(self.first.client.received, MIB)
        self.rule.release()
        await self.whole(self.first)
        self.assertEqual(
            self.asked()[:3],
            ["all", f"bytes={10 * MIB}-{10 * MIB + 64 * KIB - 1}", f"bytes={5 * MIB}-{5 * MIB + 100 * KIB - 1}"],
        )
        self.once()

    async def test_same(self) -> None:
        """Many clients of one range, and of bytes within it, are one request."""
        rule = self.upstream.on("blob", Fault(stall_headers=True))
        widest = Deferred.fromCoroutine(self.range(8 * MIB, 8 * MIB + 60 * KIB))
        await rule.struck()
        within = [Deferred.fromCoroutine(self.range(8 * MIB + each, 8 * MIB + 60 * KIB)) for each in range(1, 20)]
        rule.release()
        await gatherResults([widest, *within])
        self.assertEqual(len(self.asked()), 2)
        self.rule.release()
        await self.whole(self.first)

    async def test_long(self) -> None:
        """A range longer than a part is fetched part by part, while the fill stands still."""
        self.patch(ahead, "MOST", MIB)
        await self.range(5 * MIB, 9 * MIB)
        self.assertEqual(len(self.asked()), 5)
        self.rule.release()
        await self.whole(self.first)

    async def test_many(self) -> None:
        """Who asks for ranges without end makes so many requests and no more; the rest follow the fill."""
        self.patch(ahead, "EVER", 7)
        for at in range(2 * MIB, 9 * MIB, MIB):
            await self.range(at, at + 10)
        ranges = [Deferred.fromCoroutine(self.range(at, at + 10)) for at in range(9 * MIB, 12 * MIB, 70 * KIB)]
        await self.mirror.blob(self.digest, asked="bytes=0-9")
        self.assertEqual(len(self.asked()), 1 + 7)
        self.rule.release()
        await gatherResults(ranges)
        await self.whole(self.first)

    async def test_lanes(self) -> None:
        """A few are fetched at the same time; the next begins when one of them is here."""
        stalled = self.upstream.on("blob", Fault(stall_headers=True), times=None)
        ranges = [Deferred.fromCoroutine(self.range(at * MIB, at * MIB + 10)) for at in range(3, 11)]
        await stalled.struck(ahead.LANES)
        self.assertEqual(len(self.asked()), 1 + ahead.LANES)
        stalled.cancel()
        stalled.release()
        await gatherResults(ranges)
        self.assertEqual(len(self.asked()), 1 + 8)
        self.rule.release()
        await self.whole(self.first)

    async def test_client_goes(self) -> None:
        """A client that goes away in the middle ends nothing: what it asked for goes into the blob."""
        stalled = self.upstream.on("blob", Fault(stall_after=10 * KIB))
        client = await self.mirror.stream(self.path, {"Range": f"bytes={6 * MIB}-{6 * MIB + 60 * KIB}"})
        await client.client.reached(10 * KIB)
        client.client.vanish()
        await client.client.ended
        stalled.release()
        self.rule.release()
        await self.whole(self.first)
        self.once()

    async def test_cut(self) -> None:
        """Where the upstream breaks off what a client waits for, the rest is asked for; the fill is not disturbed."""
        self.upstream.on("blob", Fault(cut_after=10 * KIB))
        self.upstream.on("blob", Fault(status=502))
        await self.range(6 * MIB, 6 * MIB + 60 * KIB)
        self.assertIn(f"bytes={6 * MIB + 10 * KIB}-{6 * MIB + 74 * KIB - 1}", self.asked())
        self.rule.release()
        await self.whole(self.first)
        self.assertEqual(sum(self.mirror.fills.resumed.values()), 0)

    async def test_first_is_cut(self) -> None:
        """Where the first connection breaks off, what clients asked for stays and is not fetched again."""
        await self.range(6 * MIB, 7 * MIB)
        await self.upstream.drop_connections()
        await self.whole(self.first)
        self.once()
        self.assertIn(f"bytes={MIB}-{5 * MIB - 1}", self.asked())

    async def test_failing(self) -> None:
        """An upstream that fails for them again and again is left alone: they follow the fill."""
        self.upstream.on("blob", Fault(status=502), times=None)
        got = Deferred.fromCoroutine(self.range(6 * MIB, 6 * MIB + 10))
        await self.upstream.rules[-1].struck(ahead.FAILURES)
        self.upstream.rules[-1].cancel()
        self.rule.release()
        await got
        await self.whole(self.first)

    async def test_limited(self) -> None:
        """One that asks to be left alone is not asked for them again."""
        self.upstream.on("blob", Fault.too_many_requests("300"), times=None)
        got = Deferred.fromCoroutine(self.range(6 * MIB, 6 * MIB + 10))
        await self.upstream.rules[-1].struck()
        self.upstream.rules[-1].cancel()
        self.rule.release()
        await got
        await self.whole(self.first)
        self.assertEqual(len(self.asked()), 2)

    async def test_no_room(self) -> None:
        """Where nothing can be kept ahead, they follow the fill."""

        async def full() -> IScratch:
            raise NoSpace("full")

        self.patch(self.mirror.fills.ahead(self.digest, SIZE), "_scratch", full)
        got = Deferred.fromCoroutine(self.range(6 * MIB, 6 * MIB + 10))
        await self.mirror.blob(self.digest, asked="bytes=0-9")
        self.assertEqual(len(self.asked()), 1)
        self.assertNoResult(got)
        # The gap that this left is fetched as any other, once there is room.
        self.patch(self.mirror.fills.ahead(self.digest, SIZE), "_scratch", self.store.scratch)
        self.rule.release()
        await got
        await self.whole(self.first)

    async def test_stopped(self) -> None:
        """At the stop all of it ends; what came in order is gone on from, and a far range then comes first."""
        stalled = self.upstream.on("blob", Fault(stall_after=10 * KIB), times=None)
        client = await self.mirror.stream(self.path, {"Range": f"bytes={6 * MIB}-{6 * MIB + 60 * KIB}"})
        await client.client.reached(10 * KIB)
        for each in (self.first, client):
            each.client.vanish()
            await each.client.ended
        await self.mirror.stop()
        stalled.cancel()
        stalled.release()
        self.rule.release()
        self.mirror = self.start()
        self.upstream.requests.clear()
        await self.range(8 * MIB, 8 * MIB + 10)
        await drain(self.mirror, self.digest)
        self.assertEqual(self.asked()[0], f"bytes={8 * MIB}-{8 * MIB + 9}")
        self.assertTrue(self.asked()[1].startswith(f"bytes={MIB}-"), self.asked())
        await self.whole()


class ToDisk(Running):
    """The same with files."""

    def make_store(self) -> FilesystemStore:
        store = FilesystemStore(self.mktemp(), BUDGET, reactor, in_thread())
        store.start()
        self.addCleanup(store.stop)
        return store


class Small(FarCase):
    async def test_not_cut(self) -> None:
        """A connection is not cut where what is lost with it would be much of the blob: the range follows the fill."""
        self.patch(ahead, "CUT_SHARE", 50)
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        first = await self.mirror.stream(self.path, keep=False)
        await first.client.reached(MIB)
        got = Deferred.fromCoroutine(self.range(6 * MIB, 6 * MIB + 10))
        await self.range(0, 10)
        self.assertNoResult(got)
        rule.release()
        await got
        await self.whole(first)
        self.assertEqual(self.asked(), ["all"])


class OneConnection(FarCase):
    """A registry that may have one connection."""

    async def setUp(self) -> None:
        await super().setUp()
        self.mirror = self.start(store=self.make_store(), catalog=self.make_catalog(), changed={"max_connections": 1})

    async def test_cold(self) -> None:
        """A cold range still comes first; the fill begins when its connection is free."""
        await self.range(8 * MIB, 8 * MIB + 10)
        self.assertEqual(self.asked()[0], f"bytes={8 * MIB}-{8 * MIB + 9}")
        await drain(self.mirror, self.digest)
        self.assertEqual(self.upstream.blob_bytes_sent, SIZE)

    async def test_running(self) -> None:
        """While it is taken a range waits until the fill leaves it, and nothing is stuck."""
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        first = await self.mirror.stream(self.path, keep=False)
        await first.client.reached(MIB)
        got = [Deferred.fromCoroutine(self.range(at * MIB, at * MIB + 10)) for at in (9, 6, 3)]
        await self.mirror.blob(self.digest, asked="bytes=0-9")
        self.assertEqual(self.asked(), ["all"])
        rule.release()
        await gatherResults(got)
        await first.client.ended
        self.assertEqual(first.client.digest, str(self.digest))


class Two(FarCase):
    """Another process fills."""

    async def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        await super().setUp()
        self.filling = self.start(store=self.make_store(), catalog=self.make_catalog())
        self.rule = self.upstream.on("blob", Fault(stall_after=MIB))
        self.first = await self.filling.stream(self.path, keep=False)
        await self.first.client.reached(MIB)
        await self.mirror.blob(self.digest, asked="bytes=0-9")
        self.upstream.requests.clear()

    def make_store(self) -> FilesystemStore:
        store = FilesystemStore(self.directory, BUDGET, reactor, in_thread())
        store.start()
        self.addCleanup(store.stop)
        return store

    def make_catalog(self) -> Any:
        return self.open_catalog(self.directory)

    async def test_past(self) -> None:
        """A short range is fetched beside that fill, and no byte more than the client wants."""
        await self.range(6 * MIB, 6 * MIB + 10)
        self.assertEqual(self.asked(), [f"bytes={6 * MIB}-{6 * MIB + 9}"])
        self.rule.release()
        await self.first.client.ended
        self.assertEqual(self.first.client.digest, str(self.digest))

    async def test_bounded(self) -> None:
        """Few enough of them that hardly anything is fetched twice; the others follow."""
        self.patch(fills, "NEAR", 64 * KIB)
        most = SIZE // fills.PAST_SHARE // fills.PAST_LEAST
        for at in range(most):
            await self.range((3 + at) * MIB, (3 + at) * MIB + 10)
        ranges = [Deferred.fromCoroutine(self.range(at, at + 10)) for at in range(8 * MIB, 12 * MIB, 128 * KIB)]
        await self.mirror.blob(self.digest, asked="bytes=0-9")
        self.assertEqual(len(self.asked()), most)
        self.rule.release()
        await gatherResults(ranges)
        await self.first.client.ended

    async def test_refused(self) -> None:
        """Where that fails the client follows the fill."""
        self.upstream.on("blob", Fault(ignore_range=True))
        got = Deferred.fromCoroutine(self.range(6 * MIB, 6 * MIB + 10))
        await self.upstream.received("blob")
        self.rule.release()
        await got
        await self.first.client.ended
        self.assertEqual(len(self.asked()), 1)

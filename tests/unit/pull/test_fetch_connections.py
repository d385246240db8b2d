"""Large blobs over several connections to the fake upstream, with everything that may go wrong on the way."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor

from docxy.pull.blobs import parallel
from docxy.settings.model import AuthMode
from docxy.storage.filesystem import FilesystemStore
from tests.fakes import Fault, Pattern
from tests.unit.pull.harness import BUDGET, REPOSITORY, MirrorCase, drain
from tests.unit.storage.fixtures import in_thread

reactor: Any = _reactor

BLOB = Pattern(12 << 20)


class FetchedCase(MirrorCase):
    """Every blob is widened at its first byte."""

    fetch_connections = 4

    async def setUp(self) -> None:
        self.patch(parallel, "LARGE", 1 << 20)
        self.patch(parallel, "STEP", 0.0)
        self.patch(parallel, "WORTH", 0.0)
        self.patch(parallel, "GAIN", -10.0)
        self.patch(parallel, "SMALLEST", 256 << 10)
        self.patch(parallel, "LARGEST", 2 << 20)
        await super().setUp()
        self.digest = self.upstream.add_blob(REPOSITORY, BLOB)

    def ranges(self) -> list[str]:
        return [request.headers["range"] for request in self.upstream.select("blob") if "range" in request.headers]


class Fetched(FetchedCase):
    async def pulled(self) -> None:
        """The blob comes whole and right, and is kept."""
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.digest}", keep=False)
        await streamed.client.ended
        self.assertEqual((streamed.client.whole, streamed.client.digest), (True, str(self.digest)))
        await drain(self.mirror, self.digest)
        self.assertIsNotNone(await self.store.stat(self.digest))

    async def test_several(self) -> None:
        """Several connections fetch it, no byte twice but what the first had under way."""
        await self.pulled()
        self.assertGreater(len(self.ranges()), 2)
        connections = {request.connection for request in self.upstream.select("blob")}
        self.assertGreater(len(connections), 2)
        self.assertLessEqual(len(connections), 4 + 1)

    async def test_part_is_cut(self) -> None:
        """A part that breaks off, in any way, is fetched again by one connection."""
        for fault in (Fault(cut_after=1000), Fault(status=500), Fault.too_many_requests("0"), Fault(drop=True)):
            self.upstream.add_blob(REPOSITORY, BLOB)
            self.upstream.on("blob", fault, skip=2)
            await self.pulled()
            await self.store.delete(self.digest)
            self.upstream.requests.clear()

    async def test_part_is_wrong(self) -> None:
        """Wrong bytes in a part are found by the digest of the whole: nothing of it is kept."""
        self.upstream.on("blob", Fault(flip=6 << 20), times=None)
        self.assertLess(await self.mirror.cut(f"/v2/{REPOSITORY}/blobs/{self.digest}"), BLOB.size)
        await drain(self.mirror, self.digest)
        self.assertIsNone(await self.store.stat(self.digest))

    async def test_without_ranges(self) -> None:
        """An upstream that does not say it has ranges is asked once."""
        self.upstream.ranges = False
        await self.pulled()
        self.assertEqual((len(self.upstream.select("blob")), self.ranges()), (1, []))

    async def test_ranges_ignored(self) -> None:
        """One that says so and sends all of it is asked for one part, and the blob comes whole."""
        self.upstream.on("blob", Fault(ignore_range=True), times=None)
        await self.pulled()
        self.assertLessEqual(len(self.ranges()), 2)

    async def test_stopped(self) -> None:
        """At the stop all connections end; what was fetched in order stays and is gone on from."""
        rule = self.upstream.on("blob", Fault(stall_after=300 << 10), times=None)
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.digest}", keep=False)
        await rule.struck(2)
        await streamed.client.reached(300 << 10)
        streamed.client.vanish()
        await self.mirror.stop()
        rule.cancel()
        rule.release()
        self.mirror = self.start()
        self.upstream.requests.clear()
        await self.pulled()
        self.assertTrue(self.upstream.select("blob")[0].headers["range"].startswith("bytes="))
        self.assertGreater(len(self.ranges()), 2)


class FetchedToDisk(Fetched):
    """The same with files."""

    def make_store(self) -> FilesystemStore:
        store = FilesystemStore(self.mktemp(), BUDGET, reactor, in_thread())
        store.start()
        self.addCleanup(store.stop)
        return store


class OneConnection(FetchedCase):
    async def test_off(self) -> None:
        """With one connection allowed there is one."""
        mirror = self.start(fetch_connections=1)
        await mirror.blob(self.digest)
        self.assertEqual((len(self.upstream.select("blob")), self.ranges()), (1, []))


class Limited(FetchedCase):
    async def test_limited(self) -> None:
        """An upstream that just said to wait is not asked over more connections."""
        self.upstream.on("tags", Fault.too_many_requests("300"))
        self.assertEqual((await self.mirror.ask(f"/v2/{REPOSITORY}/tags/list")).status, 429)
        await self.mirror.blob(self.digest)
        self.assertEqual(self.ranges(), [])


class Clients(FetchedCase):
    auth = AuthMode.TRANSPARENT

    async def test_transparent(self) -> None:
        """Parts are asked for with the client's own right."""
        self.assertEqual((await self.mirror.blob(self.digest)).status, 200)
        self.assertGreater(len(self.ranges()), 2)

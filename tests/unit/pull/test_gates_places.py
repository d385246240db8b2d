"""What an operator recalled is refused wherever it is: cached, on its way, in every process."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from docxy.catalog.memory import MemoryCatalog
from docxy.orders.policies import Policies
from docxy.orders.store import FileOrders, MemoryOrders
from docxy.pull.gates import gates as gates_module
from docxy.settings.policy import Policy, Recall
from docxy.storage.memory import MemoryStore
from tests.fakes import Fault
from tests.unit.pull.gating import LAYER, REASON, GateCase
from tests.unit.pull.harness import BUDGET, REPOSITORY, drain, reactor


class Places(GateCase):
    """From memory, from the disk, without a cache, after a restart, in each process."""

    def file_orders(self) -> FileOrders:
        if not hasattr(self, "directory"):
            self.directory = self.mktemp()
            os.mkdir(self.directory)
        return FileOrders(self.directory)

    async def test_processes(self) -> None:
        """An order that one process was given stands in all others at once, and after a restart of all of them."""
        mirrors = [self.start(orders=self.file_orders()) for _ in range(3)]
        for mirror in mirrors:
            await self.pull(mirror)
        self.recall(self.index, orders=self.file_orders())
        for mirror in mirrors:
            self.refused(await mirror.manifest("latest"))
            self.refused(await mirror.manifest(self.child))
            self.refused(await mirror.blob(self.layer))
        for mirror in mirrors:
            await mirror.stop()
        restarted = self.start(orders=self.file_orders())
        await self.refuses_manifest("latest", restarted)
        await self.refuses_blob(self.layer, restarted)
        self.assertEqual((await restarted.blob(self.shared)).status, 200)

    async def test_evicted(self) -> None:
        """What a recalled image named is refused even when cache and catalog have forgotten the image."""
        mirror = self.start(orders=self.file_orders())
        await self.pull(mirror)
        self.recall(self.index, orders=self.file_orders())
        self.refused(await mirror.blob(self.layer))
        await mirror.stop()
        emptied = self.start(
            orders=self.file_orders(),
            store=MemoryStore(BUDGET, reactor),
            catalog=MemoryCatalog(reactor, self.seconds),
        )
        await self.refuses_blob(self.layer, emptied)
        await self.refuses_manifest(self.child, emptied)

    async def test_from_the_start(self) -> None:
        """A recall that was in the file when docxy started stands for the first request, be it for a layer."""
        await self.pull()
        policies = Policies(Policy((), (Recall(self.index, None, REASON),)))
        restarted = self.start(orders=MemoryOrders(), policies=policies)
        self.refused(await restarted.blob(self.layer))

    async def test_pure_proxy(self) -> None:
        """Without a cache: by tag, by digest, as a child's index, a layer and a manifest that names it."""
        policies = Policies(Policy((), (Recall(self.child, None, REASON), Recall(self.shared, None, REASON))))
        mirror = self.start(cached=False, policies=policies, orders=MemoryOrders())
        for reference in (self.child, "latest", self.index, "amd64", "beside"):
            self.refused(await mirror.manifest(reference))
        for reference in (self.child, "amd64"):
            self.refused(await mirror.manifest(reference, method="HEAD"), head=True)
        await self.refuses_blob(self.shared, mirror)
        self.assertEqual((await mirror.blob(self.layer)).status, 200)

    async def test_memory_and_disk(self) -> None:
        """Small ones that are in memory, and large ones that are not."""
        large = self.upstream.add_blob(REPOSITORY, bytes(1 << 20))
        self.assertEqual((await self.mirror.blob(large)).status, 200)
        await self.pull()
        for digest in (large, self.layer):
            self.assertIn("hit", (await self.mirror.blob(digest)).cache_status)
            self.recall(digest)
            await self.refuses_blob(digest)


class Cut(GateCase):
    """While it is on its way."""

    async def setUp(self) -> None:
        await super().setUp()
        self.data = os.urandom(8 << 20)
        self.large = self.upstream.add_blob(REPOSITORY, self.data)

    def look(self) -> None:
        """As the timer does."""
        self.mirror.served.gates.look()

    async def test_filling(self) -> None:
        """A fill is ended and its followers are cut, those that wait and those that have a range, with the reason."""
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20), times=None)
        path = f"/v2/{REPOSITORY}/blobs/{self.large}"
        followers = [await self.mirror.stream(path) for _ in range(3)]
        followers.append(await self.mirror.stream(path, {"Range": "bytes=10-"}))
        for follower in followers:
            await follower.client.reached(500_000)
        self.recall(self.large)
        self.look()
        for follower in followers:
            await follower.client.ended
            self.assertFalse(follower.client.whole)
        rule.release()
        await drain(self.mirror, self.large)
        self.assertEqual(len(self.mirror.fills), 0)
        await self.refuses_blob(self.large)

    async def test_fill_of_a_recalled_image(self) -> None:
        """The layers of an image whose index is recalled are cut too; one that another image has goes on."""
        both = self.upstream.add_blob(REPOSITORY, os.urandom(2 << 20))
        data = self.upstream.repositories[REPOSITORY].blobs
        child = self.upstream.add_image(REPOSITORY, "big", [data[str(self.large)], data[str(both)]])
        index = self.upstream.add_index(REPOSITORY, "bigs", {"amd64": child})
        self.upstream.add_image(REPOSITORY, "small", [data[str(both)]])
        for reference in ("bigs", child, "small"):
            await self.mirror.manifest(reference)
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20), times=None)
        cut = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.large}")
        goes_on = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{both}")
        for each in (cut, goes_on):
            await each.client.reached(500_000)
        self.recall(index)
        self.look()
        await cut.client.ended
        self.assertFalse(cut.client.whole)
        rule.release()
        rule.cancel()
        await goes_on.client.ended
        self.assertTrue(goes_on.client.whole)

    async def test_cached(self) -> None:
        """A client that takes a cached blob slowly is cut, though all of it lies in a file."""
        await self.mirror.blob(self.large)
        slow = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.large}", paused=True)
        self.recall(self.large)
        self.look()
        slow.client.resume()
        await slow.client.ended
        self.assertFalse(slow.client.whole)

    async def test_pure_proxy(self) -> None:
        """Without a cache, too."""
        self.mirror = self.start(cached=False, orders=self.orders)
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20), times=None)
        follower = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.large}")
        await follower.client.reached(500_000)
        self.recall(self.large)
        self.look()
        await follower.client.ended
        self.assertFalse(follower.client.whole)
        rule.release()

    async def test_others_go_on(self) -> None:
        """An order about something else cuts nobody."""
        rule = self.upstream.on("blob", Fault(stall_after=1 << 20), times=None)
        follower = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.large}")
        await follower.client.reached(500_000)
        self.recall(self.beside)
        self.look()
        rule.release()
        rule.cancel()
        await follower.client.ended
        self.assertTrue(follower.client.whole)


class Waiting(GateCase):
    async def test_other_process(self) -> None:
        """A layer of a recalled image that is in another one, which a sibling just served, is not refused at once."""
        await self.pull()
        self.recall(self.index)
        late = self.upstream.add_image(REPOSITORY, "late", [LAYER])
        self.patch(gates_module, "SETTLE", 0.05)
        asking = Deferred.fromCoroutine(self.mirror.blob(self.layer))
        self.assertEqual((await self.mirror.manifest(late)).status, 200)
        self.assertEqual((await asking).status, 200)

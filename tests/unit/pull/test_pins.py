"""What is pinned stays: under pressure, through a purge, after a restart, and when the upstream has lost it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from docxy.assembly import Served
from docxy.names import Digest
from docxy.orders.hottest import FACT, shown
from docxy.orders.model import Kind, Order
from docxy.orders.policies import Policies
from docxy.orders.store import MemoryOrders
from docxy.pull.gates import gates as gates_module
from docxy.pull.gates.pins import SPARED, Pins
from docxy.settings.policy import Keep, Policy
from docxy.storage import memory
from docxy.storage.interfaces import IBlobStore, Pinned
from docxy.storage.memory import MemoryStore
from tests.unit.access.harness import logged
from tests.unit.pull.harness import NAME, REPOSITORY, Mirror, MirrorCase, reactor

SMALL = 4 << 20
"""Bytes of the cache."""


class PinCase(MirrorCase):
    async def setUp(self) -> None:
        self.patch(gates_module, "LAG", 0)
        # What tags led to goes late as well: here it has no share.
        self.patch(memory, "HISTORY_SHARE", 0)
        await super().setUp()
        await self.mirror.stop()
        self.orders = MemoryOrders()
        self.mirror = self.start(orders=self.orders)
        self.child = self.upstream.add_image(REPOSITORY, None, [os.urandom(1 << 20), b"small"])
        self.other = self.upstream.add_image(REPOSITORY, None, [os.urandom(1 << 19)], architecture="arm64")
        self.index = self.upstream.add_index(REPOSITORY, "v1", {"amd64": self.child, "arm64": self.other})

    def make_store(self) -> IBlobStore:
        return MemoryStore(SMALL, reactor)

    def pins(self, mirror: Mirror | None = None) -> Pins:
        pins = (mirror or self.mirror).served.pins
        assert pins is not None
        return pins

    async def pin(self, image: str = "", digest: Digest | None = None) -> Pinned:
        self.orders.put(Order(Kind.PIN, image, "" if digest is None else str(digest), "", 1000.0, "root"))
        await self.pins().keep()
        return self.pins().held

    async def pull(self, child: Digest) -> None:
        for reference in ("v1", child):
            self.assertEqual((await self.mirror.manifest(reference)).status, 200)
        for blob in self.upstream.layers(REPOSITORY, child):
            self.assertEqual((await self.mirror.blob(blob)).status, 200)

    async def press(self) -> None:
        """Twice as much as the cache holds."""
        for _ in range(8):
            await self.mirror.blob(self.upstream.add_blob("team/flood", os.urandom(1 << 20)), repository="team/flood")

    async def there(self, *digests: Digest) -> list[bool]:
        return [await self.store.stat(digest) is not None for digest in digests]

    def all_of(self, child: Digest) -> list[Digest]:
        return [child, *self.upstream.layers(REPOSITORY, child)]


class PinTests(PinCase):
    async def test_pressure(self) -> None:
        """A pinned tag's index, its cached child, config and layers outlast a flood; unpinned they do not."""
        await self.pull(self.child)
        held = await self.pin(f"{NAME}/{REPOSITORY}:v1")
        self.assertEqual(held.kept, held.wanted)
        self.assertGreater(held.kept, 1 << 20)
        await self.press()
        self.assertNotIn(False, await self.there(self.index, *self.all_of(self.child)))
        await self.upstream.stop()
        await self.pull(self.child)
        self.orders.lift(Kind.PIN, f"{NAME}/{REPOSITORY}:v1")
        await self.pins().keep()
        await self.upstream.start()
        await self.press()
        self.assertNotIn(True, await self.there(*self.upstream.layers(REPOSITORY, self.child)))

    async def test_what_comes_later(self) -> None:
        """What of a pinned image is pulled later is kept from the next look on, and where its tag moved, too."""
        await self.pin(f"{NAME}/team/*:v*")
        await self.pull(self.child)
        await self.pull(self.other)
        await self.pins().keep()
        await self.press()
        self.assertNotIn(False, await self.there(*self.all_of(self.child), *self.all_of(self.other)))
        moved = self.upstream.add_image(REPOSITORY, "v1", [b"moved"])
        self.seconds.advance(61)
        await self.mirror.manifest("v1")
        await self.pins().keep()
        await self.press()
        self.assertEqual(await self.there(moved, self.index), [True, False])

    async def test_no_use(self) -> None:
        """A look at what is pinned is no use of it: `docxy ls` shows when somebody pulled it."""
        await self.pull(self.child)
        await self.pin(f"{NAME}/{REPOSITORY}:v1")
        used: list[Digest] = []
        self.patch(self.store, "touch", used.append)
        for _ in range(3):
            self.seconds.advance(60)
            await self.pins().keep()
        self.assertEqual(used, [])
        await self.mirror.manifest("v1")
        self.assertIn(self.index, used)

    async def test_digest(self) -> None:
        """A pinned digest keeps what belongs to it, and no more."""
        await self.pull(self.child)
        await self.pull(self.other)
        await self.pin(digest=self.child)
        await self.press()
        self.assertNotIn(False, await self.there(*self.all_of(self.child)))
        self.assertEqual(await self.there(self.index, self.other), [False, False])

    async def test_share(self) -> None:
        """Pins beyond half of the budget are cached as everything else, and the operator is told once."""
        await self.pull(self.child)
        await self.pin(f"{NAME}/{REPOSITORY}:v1")
        big = self.upstream.add_image(REPOSITORY, "big", [os.urandom(1 << 20), os.urandom(1 << 20)])
        for digest in self.all_of(big)[1:]:
            await self.mirror.blob(digest)
        await self.mirror.manifest("big")
        with logged() as lines:
            held = await self.pin(f"{NAME}/{REPOSITORY}:big")
            await self.pins().keep()
        self.assertLessEqual(held.kept, SMALL // 2)
        self.assertGreater(held.wanted, SMALL // 2)
        self.assertEqual(len([line for line in lines if "more is pinned than half" in line]), 1)
        await self.press()
        self.assertNotIn(False, await self.there(*self.all_of(self.child)))
        # Clients get what they ask for all the same.
        large = self.upstream.add_blob("team/flood", os.urandom(3 << 20))
        self.assertEqual((await self.mirror.blob(large, repository="team/flood")).status, 200)

    async def test_vanished(self) -> None:
        """A pinned tag that the upstream deleted is served on, and a tag that is not pinned is not."""
        self.upstream.add_image(REPOSITORY, "v2", [b"v2"])
        await self.pull(self.child)
        await self.mirror.manifest("v2")
        await self.pin(f"{NAME}/{REPOSITORY}:v1")
        del self.upstream.repositories[REPOSITORY].tags["v1"], self.upstream.repositories[REPOSITORY].tags["v2"]
        self.seconds.advance(61)
        for method in ("GET", "HEAD"):
            answer = await self.mirror.manifest("v1", method=method)
            self.assertEqual(answer.status, 200)
            self.assertIn("detail=stale-gone", answer.cache_status)
        self.assertEqual((await self.mirror.manifest("v2")).status, 404)

    async def test_purge(self) -> None:
        """Half a year after its last pull a pinned tag is known, and its layers are its repository's."""
        await self.pull(self.child)
        await self.pin(f"{NAME}/{REPOSITORY}:v1")
        for _ in range(4):
            self.seconds.advance(45 * 24 * 3600)
            await self.pins().keep()
            await self.catalog.purge(90 * 24 * 3600.0, 24 * 3600.0, 90 * 24 * 3600.0, self.pins().stays)
        await self.upstream.stop()
        answer = await self.mirror.manifest("v1")
        self.assertEqual(answer.status, 200)
        for blob in self.upstream.layers(REPOSITORY, self.child):
            self.assertEqual((await self.mirror.blob(blob)).status, 200)

    async def test_restart(self) -> None:
        """The next docxy keeps what this one kept."""
        await self.pull(self.child)
        await self.pin(f"{NAME}/{REPOSITORY}:v1")
        await self.mirror.stop()
        await self.store.pin([])
        self.mirror = self.start(orders=self.orders)
        await self.pins().keep()
        await self.press()
        self.assertNotIn(False, await self.there(self.index, *self.all_of(self.child)))

    async def test_one_look_at_a_time(self) -> None:
        """A look that is asked for while one is at work comes after it, and who asked hears what came of it."""
        await self.pull(self.child)
        waiting: list[Deferred[Pinned]] = []

        def pin(digests: object) -> Deferred[Pinned]:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(self.store, "pin", pin)
        first = Deferred.fromCoroutine(self.pins().keep())
        second = Deferred.fromCoroutine(self.pins().keep())
        self.assertEqual(len(waiting), 1)
        waiting[0].callback(Pinned(0, 0))
        self.assertEqual(len(waiting), 2)
        self.assertNoResult(second)
        waiting[1].callback(Pinned(1, 1))
        await second
        await first
        self.assertEqual(self.pins().held, Pinned(1, 1))
        self.assertGreater(SPARED, 0)


class HotTests(PinCase):
    """What `[[keep]]` with `hot` pins."""

    async def count(self, *tags: str) -> None:
        """The most pulled tags are these; docxy has looked."""
        self.catalog.facts.keep(FACT, shown([(NAME, REPOSITORY, tag) for tag in tags]))
        await self.served().gates.hottest.look()
        await self.pins().keep()

    def served(self) -> Served:
        return self.mirror.served

    async def test_pressure(self) -> None:
        """One of the hottest outlasts a flood; one that left them does not, nor does it while nothing says hot."""
        await self.pull(self.child)
        self.mirror.policies.swap(Policy(keeps=(Keep(hot=2),)))
        await self.count("else", "v1", "third")
        await self.press()
        self.assertNotIn(False, await self.there(self.index, *self.all_of(self.child)))
        self.mirror.policies.swap(Policy(keeps=(Keep(hot=1),)))
        await self.pins().keep()
        self.assertEqual(self.pins().held.wanted, 0)
        self.mirror.policies.swap(Policy(keeps=(Keep(hot=2),)))
        await self.count("else", "third", "v1")
        await self.press()
        self.assertNotIn(True, await self.there(*self.upstream.layers(REPOSITORY, self.child)))

    async def test_behind_the_others(self) -> None:
        """The share of pins goes to what was pinned by name first, then to the hottest in their order."""
        big = self.upstream.add_image(REPOSITORY, "big", [os.urandom(1 << 20), os.urandom(1 << 19)])
        await self.mirror.manifest("big")
        for digest in self.all_of(big)[1:]:
            await self.mirror.blob(digest)
        await self.pull(self.child)
        self.mirror.policies.swap(Policy(keeps=(Keep(hot=2),)))
        await self.count("big")
        self.assertGreater(self.pins().held.kept, 1 << 20)
        self.assertEqual(self.pins().held.kept, self.pins().held.wanted)
        await self.pin(f"{NAME}/{REPOSITORY}:v1")
        await self.press()
        self.assertNotIn(False, await self.there(*self.all_of(self.child)))
        self.assertIn(False, await self.there(*self.all_of(big)))

    async def test_vanished(self) -> None:
        """One of the hottest that the upstream deleted is served on, and is a 404 when it is none any more."""
        await self.pull(self.child)
        self.mirror.policies.swap(Policy(keeps=(Keep(hot=1),)))
        await self.count("v1")
        del self.upstream.repositories[REPOSITORY].tags["v1"]
        self.seconds.advance(61)
        answer = await self.mirror.manifest("v1")
        self.assertEqual(answer.status, 200)
        self.assertIn("detail=stale-gone", answer.cache_status)
        await self.count("v2")
        self.seconds.advance(61)
        self.assertEqual((await self.mirror.manifest("v1")).status, 404)

    async def test_restart(self) -> None:
        """The next docxy pins them before anybody counts anew, and a spoilt list leaves the one before."""
        await self.pull(self.child)
        policy = Policy(keeps=(Keep(hot=1),))
        self.mirror.policies.swap(policy)
        await self.count("v1")
        await self.mirror.stop()
        await self.store.pin([])
        self.mirror = self.start(orders=self.orders, policies=Policies(policy))
        self.catalog.facts.keep(FACT, "[[1, 2]")
        await self.served().gates.hottest.look()
        await self.pins().keep()
        await self.press()
        self.assertNotIn(False, await self.there(self.index, *self.all_of(self.child)))

"""Small blobs in memory: only right ones, within their budget, and counted as used."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from docxy.names import Digest
from docxy.storage import memory_cache
from docxy.storage.memory import MemoryStore
from docxy.storage.memory_cache import LOADS, SMALL, MemoryCache
from tests.unit.storage.fixtures import KIB, blob, claim, keep


class MemoryCacheTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.store = MemoryStore(2000 * KIB, self.clock)
        self.recent = MemoryCache(self.store, 300 * KIB)

    async def kept(self, size: int, seed: int = 0) -> tuple[Digest, bytes]:
        digest, data = blob(size, seed)
        await keep(self.store, digest, data)
        return digest, data

    async def test_load(self) -> None:
        """Bytes come from the store once, then from memory, whatever becomes of the store's."""
        digest, data = await self.kept(5 * KIB)
        self.assertIsNone(self.recent.get(digest))
        self.assertEqual(await self.recent.load(digest), data)
        await self.store.delete(digest)
        self.assertEqual(self.recent.get(digest), data)
        self.assertEqual(await self.recent.load(digest), data)

    async def test_forget(self) -> None:
        """What is forgotten is read from the store again; what was being read meanwhile is not kept."""
        digest, data = await self.kept(5 * KIB)
        other, _ = await self.kept(5 * KIB, 1)
        await gatherResults([Deferred.fromCoroutine(self.recent.load(each)) for each in (digest, other)])
        await self.recent.forget_all([str(digest)])
        self.assertIsNone(self.recent.get(digest))
        self.assertIsNotNone(self.recent.get(other))
        opened: Deferred[None] = Deferred()
        reading = self.recent._read

        async def read(digest: Digest) -> bytes | None:
            await opened
            return await reading(digest)

        self.patch(self.recent, "_read", read)
        loading = Deferred.fromCoroutine(self.recent.load(digest))
        await self.recent.forget_all([str(digest)])
        opened.callback(None)
        self.assertEqual(await loading, data)
        self.assertIsNone(self.recent.get(digest))

    async def test_missing(self) -> None:
        """What is not in the store, or only on its way, is not here either."""
        digest, data = blob(5 * KIB)
        self.assertIsNone(await self.recent.load(digest))
        writer = await claim(self.store, digest)
        await writer.announce(len(data))
        await writer.write(data)
        self.assertIsNone(await self.recent.load(digest))
        await writer.commit()
        self.assertEqual(await self.recent.load(digest), data)

    async def test_damaged(self) -> None:
        """Bytes that do not hash to their digest are not kept, and are gone from the store."""
        digest, _ = await self.kept(5 * KIB)
        self.store._held[digest].data[7] ^= 1
        self.assertIsNone(await self.recent.load(digest))
        self.assertIsNone(self.recent.get(digest))
        self.assertIsNone(await self.store.stat(digest))

    async def test_large(self) -> None:
        """What is larger than any manifest is read as well, and not kept."""
        self.patch(memory_cache, "LARGEST_MANIFEST", SMALL)
        digest, data = await self.kept(SMALL + 1)
        self.assertTrue(await self.recent.load(digest) == data)
        self.assertTrue(self.recent.get(digest) is None)

    async def test_shared(self) -> None:
        """All who want a large manifest at once get the same bytes, not a copy each."""
        digest, _ = await self.kept(SMALL + 1)
        loads = [Deferred.fromCoroutine(self.recent.load(digest)) for _ in range(5)]
        self.assertEqual(len({id(data) for data in await gatherResults(loads)}), 1)
        self.assertTrue(await self.recent.load(digest) is self.recent.get(digest))

    async def test_loads_at_once(self) -> None:
        """However many are asked for at once, only so many are being read."""
        digests = [(await self.kept(KIB, seed))[0] for seed in range(LOADS + 3)]
        gates: list[Deferred[None]] = []
        opened = self.store.open

        async def slow(digest: Digest) -> Any:
            gates.append(Deferred())
            await gates[-1]
            return await opened(digest)

        self.patch(self.store, "open", slow)
        loads = [Deferred.fromCoroutine(self.recent.load(digest)) for digest in digests]
        self.assertEqual(len(gates), LOADS)
        for number in range(len(digests)):
            gates[number].callback(None)
            self.assertEqual(len(gates), min(LOADS + number + 1, len(digests)))
        self.assertNotIn(None, await gatherResults(loads))

    async def test_budget(self) -> None:
        """The one that was used least lately goes first; no more is kept than the budget allows."""
        digests = [(await self.kept(100 * KIB, seed))[0] for seed in range(4)]
        for digest in digests[:3]:
            await self.recent.load(digest)
        self.recent.get(digests[0])
        await self.recent.load(digests[3])
        self.assertEqual([self.recent.get(digest) is not None for digest in digests], [True, False, True, True])

    async def test_used(self) -> None:
        """What is taken from here counts as used in the store: others are evicted before it."""
        first, second = (await self.kept(100 * KIB))[0], (await self.kept(100 * KIB, 1))[0]
        await self.recent.load(first)
        await self.recent.load(second)
        self.clock.advance(10)
        self.recent.get(first)
        await self.kept(1850 * KIB, 2)
        self.assertIsNotNone(await self.store.stat(first))
        self.assertIsNone(await self.store.stat(second))

    async def test_keep(self) -> None:
        """What was just fetched need not be read again; keeping it twice counts it once."""
        digests = [blob(100 * KIB, seed) for seed in range(3)]
        for digest, data in digests * 2:
            self.recent.keep(digest, data)
        self.assertEqual([self.recent.get(digest) for digest, _ in digests], [data for _, data in digests])

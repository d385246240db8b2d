"""Small blobs in memory: only right ones, within their budget, and counted as used."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from docxy.names import Digest
from docxy.storage.memory import MemoryStore
from docxy.storage.recent import SMALL, Recent
from tests.storage.fixtures import KIB, blob, keep


class RecentTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.store = MemoryStore(2000 * KIB, self.clock)
        self.recent = Recent(self.store, 300 * KIB)

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

    async def test_missing(self) -> None:
        """What is not in the store, or only on its way, is not here either."""
        digest, data = blob(5 * KIB)
        self.assertIsNone(await self.recent.load(digest))
        writer = await self.store.write(digest)
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
        """Large ones are read as well, and not kept."""
        digest, data = await self.kept(SMALL + 1)
        self.assertEqual(await self.recent.load(digest), data)
        self.assertIsNone(self.recent.get(digest))

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

"""What every store promises of blobs as large as a model's."""

from __future__ import annotations

from docxy.storage.interfaces import NoSpace
from docxy.storage.large import Large
from tests.unit.storage.contract import BUDGET, StoreCase
from tests.unit.storage.fixtures import KIB, blob, claim, fetch, keep, opened

SMALL = 100 * KIB
LARGE = 200 * KIB
"""What is so large is large; large blobs have half of the budget."""


class LargeContract(StoreCase):
    """Models beside images."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.make_store(BUDGET, Large(LARGE, 0.5))

    async def put(self, size: int, *seeds: int) -> None:
        for seed in seeds:
            self.clock.advance(1)
            await keep(self.store, *blob(size, seed))

    async def there(self, size: int, *seeds: int) -> list[int]:
        return [seed for seed in seeds if await self.store.stat(blob(size, seed)[0]) is not None]

    async def refused(self, size: int, seed: int) -> None:
        """That there is no room for it."""
        writer = await claim(self.store, blob(size, seed)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(size)
        await writer.cancel()

    async def test_large_goes_for_large(self) -> None:
        """A model in its share takes the place of other models, what was used least recently first, and of no image."""
        await self.put(SMALL, 0, 1, 2, 3, 4)
        await self.put(LARGE, 10, 11)
        await fetch(self.store, blob(LARGE, 10)[0])
        await self.put(LARGE, 12)
        self.assertEqual(await self.there(LARGE, 10, 11, 12), [10, 12])
        await self.put(LARGE + 50 * KIB, 13)
        self.assertEqual(await self.there(LARGE, 10, 12), [12])
        self.assertEqual(await self.there(SMALL, 0, 1, 2, 3, 4), [0, 1, 2, 3, 4])

    async def test_beyond_the_share(self) -> None:
        """A model that needs more than the share is refused where images hold the rest, and evicts none in vain."""
        await self.put(SMALL, 0, 1, 2, 3, 4)
        await self.refused(600 * KIB, 10)
        await self.put(LARGE, 11)
        await self.refused(600 * KIB, 12)
        self.assertEqual(await self.there(SMALL, 0, 1, 2, 3, 4), [0, 1, 2, 3, 4])
        self.assertEqual(await self.there(LARGE, 11), [11])

    async def test_share_is_theirs(self) -> None:
        """Within the share a model evicts images as anything does."""
        await self.put(SMALL, *range(10))
        await self.put(500 * KIB, 10)
        self.assertEqual(await self.there(SMALL, *range(10)), [5, 6, 7, 8, 9])
        self.assertEqual(await self.there(500 * KIB, 10), [10])

    async def test_free_room(self) -> None:
        """While nobody needs the room models hold more than the share; then they go first, though used last."""
        await self.put(SMALL, 0)
        await self.put(LARGE, 10, 11, 12, 13)
        self.assertEqual(await self.there(LARGE, 10, 11, 12, 13), [10, 11, 12, 13])
        await self.put(SMALL, 1, 2)
        self.assertEqual(await self.there(LARGE, 10, 11, 12, 13), [11, 12, 13])
        await self.put(SMALL, 3, 4)
        self.assertEqual(await self.there(LARGE, 10, 11, 12, 13), [12, 13])
        await self.put(SMALL, 5, 6)
        self.assertEqual(await self.there(SMALL, *range(7)), [1, 2, 3, 4, 5, 6])
        self.assertEqual(await self.there(LARGE, 12, 13), [12, 13])

    async def test_in_use(self) -> None:
        """A model that is read or pinned stays, beyond the share too; others go."""
        await self.put(LARGE, 10, 11, 12, 13)
        reader = await opened(self.store, blob(LARGE, 10)[0])
        await self.store.pin([blob(LARGE, 11)[0]])
        await self.put(SMALL, 0, 1, 2, 3)
        self.assertEqual(await self.there(LARGE, 10, 11, 12, 13), [10, 11, 13])
        await self.put(SMALL, 4)
        self.assertEqual(await self.there(LARGE, 10, 11, 12, 13), [10, 11])
        reader.close()

    async def test_size_untold(self) -> None:
        """A blob whose size nobody told is large once it has grown so far."""
        await self.put(SMALL, 0, 1, 2, 3, 4)
        digest, data = blob(600 * KIB, 10)
        writer = await claim(self.store, digest)
        with self.assertRaises(NoSpace):
            for start in range(0, len(data), KIB):
                await writer.write(data[start : start + KIB])
        await writer.cancel()
        self.assertGreaterEqual(len(await self.there(SMALL, 0, 1, 2, 3, 4)), 3)

"""What every store promises of its byte budget, on top of the rest of the contract."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList

from docxy.storage.interfaces import NoSpace, State
from tests.storage.contract import BUDGET, StoreContract
from tests.storage.fixtures import KIB, blob, fetch, keep


class BudgetContract(StoreContract):
    """The whole contract."""

    async def kept(self) -> list[int]:
        """The seeds of `fill_up`'s blobs that are still there."""
        return [seed for seed in range(10) if await self.store.stat(blob(100 * KIB, seed)[0]) is not None]

    async def fill_up(self) -> None:
        """Ten blobs that fill the budget to the byte."""
        for seed in range(10):
            self.clock.advance(1)
            await keep(self.store, *blob(100 * KIB, seed))
        self.assertEqual(await self.kept(), list(range(10)))
        self.assertEqual(await self.store.used(), BUDGET)

    async def test_least_recently_used_goes(self) -> None:
        """What was used longest ago is evicted, no more of it than needed; a read is a use."""
        await self.fill_up()
        await fetch(self.store, blob(100 * KIB, 0)[0])
        await fetch(self.store, blob(100 * KIB, 2)[0])
        await keep(self.store, *blob(100 * KIB + 1, 50))
        self.assertEqual(await self.kept(), [0, 2, 4, 5, 6, 7, 8, 9])
        await keep(self.store, *blob(90 * KIB, 51))
        self.assertEqual(await self.kept(), [0, 2, 4, 5, 6, 7, 8, 9])
        await keep(self.store, *blob(500 * KIB, 52))
        self.assertEqual(await self.kept(), [0, 2, 9])

    async def test_touch(self) -> None:
        """A blob whose bytes are read elsewhere is in use as well; of one that is not here nothing is said."""
        await self.fill_up()
        self.clock.advance(1)
        self.store.touch(blob(100 * KIB, 0)[0])
        self.store.touch(blob(100 * KIB, 99)[0])
        await keep(self.store, *blob(10, 50))
        self.assertEqual(await self.kept(), [0, 2, 3, 4, 5, 6, 7, 8, 9])

    async def test_stat_is_no_use(self) -> None:
        """To ask about a blob does not save it."""
        await self.fill_up()
        await self.store.stat(blob(100 * KIB, 0)[0])
        await keep(self.store, *blob(10, 50))
        self.assertEqual(await self.kept(), list(range(1, 10)))

    async def test_read_is_not_evicted(self) -> None:
        """A blob that is being read stays, whatever its age; once closed, it may go."""
        await self.fill_up()
        reader = await self.store.open(blob(100 * KIB, 0)[0])
        twice = await self.store.open(blob(100 * KIB, 0)[0])
        for seed in range(1, 10):
            await fetch(self.store, blob(100 * KIB, seed)[0])
        await keep(self.store, *blob(150 * KIB, 50))
        self.assertEqual(await self.kept(), [0, *range(3, 10)])
        reader.close()
        await keep(self.store, *blob(150 * KIB, 51))
        self.assertEqual(await self.kept(), [0, *range(4, 10)])
        twice.close()
        for seed in range(4, 10):
            await fetch(self.store, blob(100 * KIB, seed)[0])
        await keep(self.store, *blob(150 * KIB, 52))
        self.assertNotIn(0, await self.kept())

    async def test_reader_of_a_fill_pins_the_blob(self) -> None:
        """Who followed a fill still protects the blob when it is committed."""
        writer, data = await self.started(500 * KIB)
        reader = writer.open()
        await writer.write(data)
        await writer.commit()
        with self.assertRaises(NoSpace):
            await self.started(600 * KIB, 1)
        reader.close()
        self.assertEqual(await fetch(self.store, writer.digest), data)

    async def test_larger_than_the_budget(self) -> None:
        """A blob that can never fit is refused, and nothing is evicted for it."""
        await self.fill_up()
        writer = await self.store.write(blob(10, 50)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(BUDGET + 1)
        await writer.cancel()
        self.assertEqual(await self.kept(), list(range(10)))

    async def test_all_in_use(self) -> None:
        """When what is not in use would not be enough, the newcomer is refused and nothing is evicted in vain."""
        await self.fill_up()
        readers = [await self.store.open(blob(100 * KIB, seed)[0]) for seed in range(5)]
        writer = await self.store.write(blob(10, 50)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(500 * KIB + 1)
        await writer.cancel()
        self.assertEqual(await self.kept(), list(range(10)))
        for reader in readers:
            reader.close()

    async def test_fills_are_counted(self) -> None:
        """What is announced is reserved at once; fills in flight never exceed the budget, nor are they evicted."""
        claims = [await self.store.write(blob(300 * KIB, seed)[0]) for seed in range(10)]
        announced = [Deferred.fromCoroutine(writer.announce(300 * KIB)) for writer in claims]
        outcomes = await DeferredList(announced, consumeErrors=True)
        for success, outcome in outcomes:
            if not success:
                outcome.trap(NoSpace)
        admitted = [seed for seed in range(10) if outcomes[seed][0]]
        self.assertEqual(len(admitted), 3)
        self.assertEqual(await self.store.used(), 900 * KIB)
        for seed, writer in enumerate(claims):
            if seed in admitted:
                await writer.write(blob(300 * KIB, seed)[1])
                await writer.commit()
            else:
                await writer.cancel()
        self.assertEqual(await self.store.used(), 900 * KIB)
        self.assertEqual(len([1 async for _ in self.store.list()]), 3)

    async def test_released_fill_is_evicted(self) -> None:
        """An interrupted fill is evicted in its turn, and its readers learn of it."""
        writer, data = await self.started(600 * KIB)
        reader = writer.open()
        self.addCleanup(reader.close)
        await writer.write(data[:KIB])
        await writer.release()
        changed = reader.changed()
        await keep(self.store, *blob(500 * KIB, 1))
        self.clock.advance(1)
        await changed
        self.assertIs(reader.state, State.CANCELLED)
        self.assertEqual(await self.store.used(), 500 * KIB)
        again = await self.store.write(writer.digest)
        self.assertEqual((again.offset, again.size), (0, None))
        await again.cancel()

    async def test_cancel_frees(self) -> None:
        """A withdrawn fill's reservation is free again at once."""
        for seed in range(5):
            writer, data = await self.started(900 * KIB, seed)
            await writer.write(data[:KIB])
            await writer.cancel()
        self.assertEqual(await self.store.used(), 0)

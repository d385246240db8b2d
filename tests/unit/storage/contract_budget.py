"""What every store promises of its byte budget."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList

from docxy.storage import memory, writing
from docxy.storage.interfaces import PINNED_SHARE, NoSpace, Pinned
from tests.unit.storage.contract import BUDGET, StoreCase
from tests.unit.storage.fixtures import KIB, blob, claim, fetch, keep, opened


class BudgetContract(StoreCase):
    """Room, and who has to make it."""

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
        await keep(self.store, *blob(104 * KIB, 50))
        self.assertEqual(await self.kept(), [0, 2, 4, 5, 6, 7, 8, 9])
        await keep(self.store, *blob(88 * KIB, 51))
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

    async def test_pinned(self) -> None:
        """What is pinned is not evicted, however long ago it was used; what does not fit beside it has no room."""
        await self.fill_up()
        pins = [blob(100 * KIB, seed)[0] for seed in (0, 1, 5)]
        self.assertEqual(await self.store.pin([*pins, pins[0]]), Pinned(300 * KIB, 300 * KIB))
        await keep(self.store, *blob(500 * KIB, 50))
        self.assertEqual([seed for seed in await self.kept() if seed < 7], [0, 1, 5])
        writer = await claim(self.store, blob(BUDGET - 250 * KIB, 51)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(BUDGET - 250 * KIB)
        await writer.cancel()
        self.assertEqual([seed for seed in await self.kept() if seed < 7], [0, 1, 5])
        await self.store.pin(pins[2:])
        await keep(self.store, *blob(BUDGET - 100 * KIB, 52))
        self.assertEqual(await self.kept(), [5])

    async def test_pinned_share(self) -> None:
        """Pins beyond a share of the budget are none: in their order, and what the others are told says so."""
        await self.fill_up()
        pins = [blob(100 * KIB, seed)[0] for seed in (9, 8, 7, 6, 5, 4, 3)]
        most = int(PINNED_SHARE * BUDGET) // (100 * KIB)
        self.assertEqual(await self.store.pin(pins), Pinned(most * 100 * KIB, 700 * KIB))
        await keep(self.store, *blob(BUDGET - most * 100 * KIB, 50))
        self.assertEqual(await self.kept(), list(range(10 - most, 10)))

    async def test_pinned_before_it_comes(self) -> None:
        """A pin of what is not here yet counts when it is."""
        digest, _ = blob(100 * KIB, 0)
        self.assertEqual(await self.store.pin([digest]), Pinned(0, 0))
        await self.fill_up()
        await keep(self.store, *blob(500 * KIB, 50))
        self.assertIn(0, await self.kept())

    async def test_remembered_goes_last(self) -> None:
        """What the history of tags names goes after all else, with what belongs to it, until its time is over."""
        await self.fill_up()
        top, part, late = (blob(100 * KIB, seed)[0] for seed in (0, 1, 3))
        self.store.remember(top, self.clock.seconds() + 1000, [])
        await self.settled()
        self.store.belongs(top, [part])
        self.store.belongs(blob(100 * KIB, 2)[0], [blob(100 * KIB, 4)[0]])
        self.store.remember(late, self.clock.seconds() + 100, [])
        await self.settled()
        self.clock.advance(100)
        await keep(self.store, *blob(300 * KIB, 50))
        self.assertEqual(await self.kept(), [0, 1, 5, 6, 7, 8, 9])
        await keep(self.store, *blob(900 * KIB, 51))
        self.assertEqual(await self.kept(), [1])

    async def test_remembered_has_a_share(self) -> None:
        """What is remembered beyond its share goes as everything does, what was used least recently first."""
        await self.fill_up()
        for seed in range(8):
            self.store.remember(blob(100 * KIB, seed)[0], self.clock.seconds() + 1000, [])
        await self.settled()
        await keep(self.store, *blob(100 * KIB, 50))
        self.assertEqual(await self.kept(), list(range(1, 10)))
        await keep(self.store, *blob(200 * KIB, 51))
        self.assertEqual(await self.kept(), list(range(3, 10)))
        await keep(self.store, *blob(200 * KIB, 52))
        self.assertEqual(await self.kept(), list(range(3, 8)))

    async def settled(self) -> None:
        """All that was told the store has been written down."""

    async def test_stat_is_no_use(self) -> None:
        """To ask about a blob does not save it."""
        await self.fill_up()
        await self.store.stat(blob(100 * KIB, 0)[0])
        await keep(self.store, *blob(10, 50))
        self.assertEqual(await self.kept(), list(range(1, 10)))

    async def test_read_is_not_evicted(self) -> None:
        """A blob that is being read stays, whatever its age; once closed, it may go."""
        await self.fill_up()
        reader = await opened(self.store, blob(100 * KIB, 0)[0])
        twice = await opened(self.store, blob(100 * KIB, 0)[0])
        for seed in range(1, 10):
            await fetch(self.store, blob(100 * KIB, seed)[0])
        await keep(self.store, *blob(148 * KIB, 50))
        self.assertEqual(await self.kept(), [0, *range(3, 10)])
        reader.close()
        await keep(self.store, *blob(148 * KIB, 51))
        self.assertEqual(await self.kept(), [0, *range(4, 10)])
        twice.close()
        for seed in range(4, 10):
            await fetch(self.store, blob(100 * KIB, seed)[0])
        await keep(self.store, *blob(148 * KIB, 52))
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
        writer = await claim(self.store, blob(10, 50)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(BUDGET + 1)
        await writer.cancel()
        self.assertEqual(await self.kept(), list(range(10)))

    async def test_all_in_use(self) -> None:
        """When what is not in use would not be enough, the newcomer is refused and nothing is evicted in vain."""
        await self.fill_up()
        readers = [await opened(self.store, blob(100 * KIB, seed)[0]) for seed in range(5)]
        writer = await claim(self.store, blob(10, 50)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(504 * KIB)
        await writer.cancel()
        self.assertEqual(await self.kept(), list(range(10)))
        for reader in readers:
            reader.close()

    async def test_fills_are_counted(self) -> None:
        """Fills in flight are promised what they announced: they never exceed the budget, nor are they evicted."""
        claims = [await claim(self.store, blob(300 * KIB, seed)[0]) for seed in range(10)]
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
        """An interrupted fill is evicted in its turn; not while somebody reads what there is of it."""
        writer, data = await self.started(600 * KIB)
        reader = writer.open()
        await writer.write(data[:KIB])
        await writer.release()
        other = await claim(self.store, blob(500 * KIB, 1)[0])
        with self.assertRaises(NoSpace):
            await other.announce(500 * KIB)
        await other.cancel()
        reader.close()
        await keep(self.store, *blob(500 * KIB, 1))
        self.assertEqual(await self.store.used(), 500 * KIB)
        again = await claim(self.store, writer.digest)
        self.assertEqual((again.offset, again.size), (0, None))
        await again.cancel()

    async def test_evicts_as_bytes_come(self) -> None:
        """A blob that announces much and sends little evicts little."""
        self.patch(writing, "STEP", 64 * KIB)
        self.patch(memory, "STEP", 64 * KIB)
        await self.fill_up()
        writer, data = await self.started(800 * KIB, 50)
        self.assertGreaterEqual(len(await self.kept()), 9)
        await writer.write(data[:KIB])
        self.assertGreaterEqual(len(await self.kept()), 9)
        for start in range(KIB, 400 * KIB, KIB):
            await writer.write(data[start : start + KIB])
        self.assertIn(len(await self.kept()), (5, 6))
        await writer.write(data[400 * KIB :])
        await writer.commit()
        self.assertEqual(await self.kept(), [8, 9])
        self.assertEqual(await fetch(self.store, writer.digest), data)

    async def test_promised(self) -> None:
        """What other fills in flight were promised is not promised again, though they have not got it yet."""
        self.patch(writing, "STEP", 64 * KIB)
        self.patch(memory, "STEP", 64 * KIB)
        first, data = await self.started(600 * KIB)
        with self.assertRaises(NoSpace):
            await self.started(500 * KIB, 1)
        await first.write(data)
        await first.commit()
        await keep(self.store, *blob(400 * KIB, 2))

    async def test_cancel_frees(self) -> None:
        """A withdrawn fill's reservation is free again at once."""
        for seed in range(5):
            writer, data = await self.started(900 * KIB, seed)
            await writer.write(data[:KIB])
            await writer.cancel()
        self.assertEqual(await self.store.used(), 0)

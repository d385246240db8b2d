"""Bits that flip on the disk are found."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from docxy.names import Digest
from docxy.storage.scrub import Scrubber
from tests.unit.storage.fixtures import KIB, blob, fetch, keep, opened
from tests.unit.storage.test_limits import OneDirectory

DAY = 86400.0


class ScrubTests(OneDirectory):
    """Real files, an injected clock."""

    def flip(self, digest: Digest) -> None:
        """One bit, in the middle."""
        path = self.tree.blob(digest)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))

    async def test_verify(self) -> None:
        """A sound blob stays; one with a flipped bit is deleted and can be filled again; a missing one is None."""
        store = self.store()
        digest, data = blob(300 * KIB)
        self.assertIsNone(await store.verify(digest))
        await keep(store, digest, data)
        self.assertIs(await store.verify(digest), True)
        self.flip(digest)
        self.assertIs(await store.verify(digest), False)
        self.assertIsNone(await store.open(digest))
        self.assertEqual(await store.used(), 0)
        self.assertEqual((store.counts.sound, store.counts.damaged), (1, 1))
        await keep(store, digest, data)
        self.assertEqual(await fetch(store, digest), data)

    async def test_corrupt_while_read(self) -> None:
        """A newcomer does not get the corrupt file that somebody still has open."""
        store = self.store()
        digest, data = blob(300 * KIB)
        await keep(store, digest, data)
        reader = await opened(store, digest)
        self.addCleanup(reader.close)
        self.flip(digest)
        self.assertIs(await store.verify(digest), False)
        await keep(store, digest, data)
        self.assertEqual(await fetch(store, digest), data)

    async def test_schedule(self) -> None:
        """Each blob is checked once in an interval, the longest unchecked first; the service rests in between."""
        store = self.store()
        for seed in range(3):
            self.clock.advance(100)
            await keep(store, *blob(KIB, seed))
        checked: list[Digest] = []
        verify = store.verify

        async def noted(digest: Digest, pause: object = None) -> bool | None:
            checked.append(digest)
            return await verify(digest)

        self.patch(store, "verify", noted)
        scrubber = Scrubber(store, self.clock, DAY)
        scrubber.start()
        await self.pass_time(3000)
        self.assertEqual(checked, [])
        await self.pass_time(DAY + DAY / 4)
        self.assertEqual(checked, [blob(KIB, seed)[0] for seed in range(3)])
        self.flip(blob(KIB, 1)[0])
        await self.pass_time(DAY + DAY / 4)
        self.assertEqual(len(checked), 6)
        self.assertIsNone(await store.stat(blob(KIB, 1)[0]))
        await scrubber.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def pass_time(self, seconds: float) -> None:
        """Let it pass in steps, each ending when the scrubber sleeps again."""
        store = self.store()
        for _ in range(60):
            self.clock.advance(seconds / 60)
            for _ in range(1000):
                if self.clock.getDelayedCalls():
                    break
                await store.stat(blob(1, 99)[0])

    async def test_off(self) -> None:
        """An interval of 0 checks nothing."""
        scrubber = Scrubber(self.store(), self.clock, 0)
        scrubber.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        await scrubber.stop()

    async def test_stopped_in_the_middle(self) -> None:
        """Stopping does not wait for a check to end, and leaves no descriptor."""
        store = self.store()
        await keep(store, *blob(900 * KIB))
        self.clock.advance(DAY)
        scrubber = Scrubber(store, self.clock, 1)
        scrubber.start()
        await store.stat(blob(1, 99)[0])
        stopped = Deferred.fromCoroutine(scrubber.stop())
        await stopped

"""Several stores on one directory, in one process and in several, and what is left when one is killed.

Everything here is real: processes, threads, files, time.
"""

from __future__ import annotations

import contextlib
import os
import random
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from docxy.names import Digest
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import BlobMissing, IBlobReader, NoSpace, State, WriterBusy
from tests.storage.fixtures import KIB, blob, fetch, follow, in_thread, keep, read_on, until
from tests.storage.processes import Other

BUDGET = 4000 * KIB


class SharedDirectory(TestCase):
    """A directory, and stores and processes that use it."""

    timeout = 60

    def setUp(self) -> None:
        self.directory = self.mktemp()

    def store(self, budget: int = BUDGET) -> FilesystemStore:
        store = FilesystemStore(self.directory, budget, cast(Any, reactor), in_thread())
        store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store

    def other(self, budget: int = BUDGET) -> Other:
        other = Other.spawn(self.directory, budget)
        self.addCleanup(lambda: Deferred.fromCoroutine(other.kill()))
        return other

    async def open(self, store: FilesystemStore, digest: Digest) -> IBlobReader:
        reader = await store.open(digest)
        self.addCleanup(reader.close)
        return reader

    async def change(self, reader: IBlobReader, state: State) -> None:
        """Wait until a reader's state is this."""
        for _ in range(1000):
            if reader.state is state:
                return
            await reader.changed()
        self.fail(f"{reader.state} instead of {state}")


class TwoStoresTests(SharedDirectory):
    """Two stores in one process share nothing but the directory."""

    async def test_follow(self) -> None:
        """One store's readers follow what the other writes, to the end, with the last byte withheld."""
        ours, theirs = self.store(), self.store()
        digest, data = blob(300 * KIB)
        writer = await theirs.write(digest)
        await writer.announce(len(data))
        with self.assertRaises(WriterBusy):
            await ours.write(digest)
        reader = await self.open(ours, digest)
        self.assertEqual((reader.size, reader.readable, reader.state), (len(data), 0, State.FILLING))
        await writer.write(data)
        await until(reader, len(data) - 1)
        self.assertEqual((reader.readable, reader.state), (len(data) - 1, State.FILLING))
        self.assertEqual(await read_on(reader), data[:-1])
        await writer.commit()
        await self.change(reader, State.VERIFIED)
        self.assertEqual(await read_on(reader), data)
        with self.assertRaises(WriterBusy):
            await ours.write(digest)

    async def test_size_announced_later(self) -> None:
        """Who opens a fill before its size is known learns it when it is."""
        ours, theirs = self.store(), self.store()
        digest, data = blob(KIB)
        writer = await theirs.write(digest)
        reader = await self.open(ours, digest)
        self.assertIsNone(reader.size)
        following = Deferred.fromCoroutine(follow(reader))
        await writer.announce(len(data))
        await writer.write(data)
        await writer.commit()
        self.assertEqual(await following, data)

    async def test_resumed_by_the_follower(self) -> None:
        """A follower's process takes over what another gave up; its readers go on in place."""
        ours, theirs = self.store(), self.store()
        digest, data = blob(300 * KIB)
        writer = await theirs.write(digest)
        await writer.announce(len(data))
        await writer.write(data[: 100 * KIB])
        reader = await self.open(ours, digest)
        following = Deferred.fromCoroutine(follow(await ours.open(digest)))
        await writer.release()
        await self.change(reader, State.RELEASED)
        again = await ours.write(digest)
        self.assertEqual(again.offset, 100 * KIB)
        self.assertIs(reader.state, State.FILLING)
        await again.announce(len(data))
        await again.write(data[100 * KIB :])
        await again.commit()
        self.assertEqual(await following, data)
        self.assertEqual(await fetch(theirs, digest), data)

    async def test_cancelled(self) -> None:
        """A fill that is withdrawn elsewhere is never completed here."""
        ours, theirs = self.store(), self.store()
        digest, data = blob(300 * KIB)
        writer = await theirs.write(digest)
        await writer.announce(len(data))
        await writer.write(data[:KIB])
        reader = await self.open(ours, digest)
        await writer.cancel()
        await self.change(reader, State.CANCELLED)
        self.assertLess(reader.readable, len(data))
        with self.assertRaises(BlobMissing):
            await ours.open(digest)

    async def test_read_there_is_kept_here(self) -> None:
        """What one store reads the other does not evict, nor does it exceed the budget."""
        ours, theirs = self.store(1000 * KIB), self.store(1000 * KIB)
        await keep(theirs, *blob(600 * KIB))
        reader = await theirs.open(blob(600 * KIB)[0])
        writer = await ours.write(blob(500 * KIB, 1)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(500 * KIB)
        reader.close()
        await writer.announce(500 * KIB)
        await writer.cancel()
        self.assertEqual(await ours.used(), 0)

    async def test_deleted_there(self) -> None:
        """A blob deleted by one store is missing in the other at once, though somebody reads it there."""
        ours, theirs = self.store(), self.store()
        digest, data = blob(300 * KIB)
        await keep(ours, digest, data)
        reader = await self.open(ours, digest)
        await theirs.delete(digest)
        with self.assertRaises(BlobMissing):
            await ours.open(digest)
        self.assertEqual(await read_on(reader), data)


class ProcessesTests(SharedDirectory):
    """Other processes."""

    async def test_busy(self) -> None:
        """A digest has one writer in all processes; when its process dies it has none."""
        store, other = self.store(), self.other()
        digest, data = blob(100 * KIB, 1)
        self.assertEqual(await other.ask(f"write 1 {len(data)}"), "0")
        with self.assertRaises(WriterBusy):
            await store.write(digest)
        await other.kill()
        writer = await store.write(digest)
        with self.assertRaises(WriterBusy):
            await store.write(digest)
        await writer.cancel()

    async def test_other_way_round(self) -> None:
        """What we write, another process finds busy, and committed afterwards."""
        store, other = self.store(), self.other()
        digest, data = blob(100 * KIB, 1)
        writer = await store.write(digest)
        self.assertEqual(await other.ask(f"write 1 {len(data)}"), "WriterBusy")
        await writer.announce(len(data))
        await writer.write(data)
        await writer.commit()
        self.assertEqual(await other.ask(f"write 1 {len(data)}"), "WriterBusy")
        self.assertEqual(await other.ask(f"read 1 {len(data)}"), "done")

    async def test_follow_live(self) -> None:
        """Another process's fill is read as it grows, verified when it is."""
        store, other = self.store(), self.other()
        digest, data = blob(400 * KIB, 1)
        await other.ask(f"write 1 {len(data)}")
        reader = await self.open(store, digest)
        for count in (1, 100 * KIB, 300 * KIB):
            offset = int(await other.ask(f"piece {count}"))
            await until(reader, min(offset, len(data) - 1))
            self.assertEqual(await read_on(reader), data[: min(offset, len(data) - 1)])
        await other.ask(f"piece {len(data)}")
        self.assertIs(reader.state, State.FILLING)
        self.assertEqual(await other.ask("commit"), "done")
        await self.change(reader, State.VERIFIED)
        self.assertEqual(await read_on(reader), data)

    async def test_writer_killed(self) -> None:
        """A killed writer's followers learn it; the next writer resumes, and they go on."""
        store, other = self.store(), self.other()
        digest, data = blob(400 * KIB, 1)
        await other.ask(f"write 1 {len(data)}")
        await other.ask(f"piece {200 * KIB}")
        reader = await self.open(store, digest)
        following = Deferred.fromCoroutine(follow(await store.open(digest)))
        await other.kill()
        await self.change(reader, State.RELEASED)
        third = self.other()
        offset = int(await third.ask(f"write 1 {len(data)}"))
        self.assertGreater(offset, 0)
        await third.ask(f"piece {len(data)}")
        await third.ask("commit")
        self.assertEqual(await following, data)

    async def test_reservations(self) -> None:
        """Processes that announce at the same moment never get more than the budget together."""
        store = self.store(1000 * KIB)
        others = [self.other(1000 * KIB) for _ in range(3)]
        asked = [other.ask(f"announce {10 * n + m} {150 * KIB}") for m in range(4) for n, other in enumerate(others)]
        answers = [await one for one in asked]
        self.assertEqual(sorted(set(answers)), [str(150 * KIB), "NoSpace"])
        self.assertEqual(answers.count("NoSpace"), 12 - 6)
        self.assertEqual(await store.used(), 900 * KIB)

    async def test_killed_reader_pins_no_more(self) -> None:
        """A blob that another process reads stays; when that process is killed it may go."""
        store, other = self.store(1000 * KIB), self.other(1000 * KIB)
        await keep(store, *blob(600 * KIB, 1))
        await other.ask(f"read 1 {600 * KIB}")
        writer = await store.write(blob(10, 2)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(600 * KIB)
        await other.kill()
        await writer.announce(600 * KIB)
        await writer.cancel()

    async def test_killed_at_any_moment(self) -> None:
        """kill -9 during fills, again and again: never a wrong byte, never an uncounted one, always resumable.

        A follower here reads the whole time, whatever process writes.
        """
        chance = random.Random(7)
        store = self.store()
        interrupted = 0
        for seed in range(12):
            size = chance.randrange(1, 3000 * KIB)
            digest, data = blob(size, seed)
            incoming = store._tree.incoming(digest)
            other = self.other()
            answer = other.ask(f"keep {seed} {size}")
            following = None
            moment = chance.randrange(-size // 8, size)  # once so much is written; below 0: before that
            for _ in range(100_000):
                if following is None and moment > 0:
                    with contextlib.suppress(BlobMissing):
                        following = Deferred.fromCoroutine(follow(await store.open(digest)))
                written = os.path.getsize(incoming) if os.path.exists(incoming) else -1
                if answer.called or written >= max(moment, 0):
                    break
                await deferLater(cast(Any, reactor), 0, lambda: None)
            await other.kill()
            await answer
            interrupted += os.path.exists(incoming)
            with contextlib.suppress(WriterBusy):  # committed, when it was killed late
                await keep(store, digest, data)  # resumes whatever is there, and verifies it
            self.assertEqual(await fetch(store, digest), data)
            if following is not None:
                self.assertEqual(await following, data)
            self.assertLessEqual(await store.used(), BUDGET)
            self.assertGreaterEqual(await store.used(), self.on_disk())
        self.assertGreater(interrupted, 2)

    def on_disk(self) -> int:
        """Bytes of all files of blobs."""
        return sum(
            os.path.getsize(os.path.join(path, name))
            for top in ("blobs", "incoming")
            for path, _, names in os.walk(os.path.join(self.directory, top))
            for name in names
        )

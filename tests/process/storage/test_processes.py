"""Several stores on one directory, in one process and in several, and what is left when one is killed.

Everything here is real: processes, threads, files, time.
"""

from __future__ import annotations

import os
import random
import signal
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from docxy.names import Digest
from docxy.storage import watch
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import IBlobReader, NoSpace, State
from tests.harness.directories import WatchedDirectory
from tests.process.storage.processes import Other
from tests.unit.storage.fixtures import (
    KIB,
    blob,
    busy,
    claim,
    count_blobs_only,
    fetch,
    follow,
    in_thread,
    keep,
    opened,
    read_on,
    until,
)

BUDGET = 4000 * KIB


class SharedDirectory(TestCase):
    """A directory, and stores and processes that use it."""

    def setUp(self) -> None:
        count_blobs_only(self)
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
        reader = await opened(store, digest)
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
        writer = await claim(theirs, digest)
        await writer.announce(len(data))
        self.assertTrue(await busy(ours, digest))
        reader = await self.open(ours, digest)
        self.assertEqual((reader.size, reader.readable, reader.state), (len(data), 0, State.FILLING))
        await writer.write(data)
        await until(reader, len(data) - 1)
        self.assertEqual((reader.readable, reader.state), (len(data) - 1, State.FILLING))
        self.assertEqual(await read_on(reader), data[:-1])
        await writer.commit()
        await self.change(reader, State.VERIFIED)
        self.assertEqual(await read_on(reader), data)
        self.assertTrue(await busy(ours, digest))

    async def test_size_announced_later(self) -> None:
        """Who opens a fill before its size is known learns it when it is."""
        ours, theirs = self.store(), self.store()
        digest, data = blob(KIB)
        writer = await claim(theirs, digest)
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
        writer = await claim(theirs, digest)
        await writer.announce(len(data))
        await writer.write(data[: 100 * KIB])
        reader = await self.open(ours, digest)
        following = Deferred.fromCoroutine(follow(await opened(ours, digest)))
        await writer.release()
        await self.change(reader, State.RELEASED)
        again = await claim(ours, digest)
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
        writer = await claim(theirs, digest)
        await writer.announce(len(data))
        await writer.write(data[:KIB])
        reader = await self.open(ours, digest)
        await writer.cancel()
        await self.change(reader, State.WITHDRAWN)
        self.assertLess(reader.readable, len(data))
        self.assertIsNone(await ours.open(digest))

    async def test_read_there_is_kept_here(self) -> None:
        """What one store reads the other does not evict, nor does it exceed the budget."""
        ours, theirs = self.store(1000 * KIB), self.store(1000 * KIB)
        await keep(theirs, *blob(600 * KIB))
        reader = await opened(theirs, blob(600 * KIB)[0])
        writer = await claim(ours, blob(500 * KIB, 1)[0])
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
        self.assertIsNone(await ours.open(digest))
        self.assertEqual(await read_on(reader), data)


class ProcessesTests(SharedDirectory):
    """Other processes."""

    async def test_busy(self) -> None:
        """A digest has one writer in all processes; when its process dies it has none."""
        store, other = self.store(), self.other()
        digest, data = blob(100 * KIB, 1)
        self.assertEqual(await other.ask(f"write 1 {len(data)}"), "0")
        self.assertTrue(await busy(store, digest))
        await other.kill()
        writer = await claim(store, digest)
        self.assertTrue(await busy(store, digest))
        await writer.cancel()

    async def test_other_way_round(self) -> None:
        """What we write, another process finds busy, and committed afterwards."""
        store, other = self.store(), self.other()
        digest, data = blob(100 * KIB, 1)
        writer = await claim(store, digest)
        self.assertEqual(await other.ask(f"write 1 {len(data)}"), "AssertionError")
        await writer.announce(len(data))
        await writer.write(data)
        await writer.commit()
        self.assertEqual(await other.ask(f"write 1 {len(data)}"), "AssertionError")
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
        await until(reader, KIB)
        following = Deferred.fromCoroutine(follow(await opened(store, digest)))
        await other.kill()
        await self.change(reader, State.RELEASED)
        third = self.other()
        offset = int(await third.ask(f"write 1 {len(data)}"))
        self.assertGreater(offset, 0)
        await third.ask(f"piece {len(data)}")
        await third.ask("commit")
        self.assertEqual(await following, data)

    async def test_stopped_writer(self) -> None:
        """A writer whose process is stopped is seen to stand still, and seen to go on when it does."""
        self.patch(watch, "SILENT", 0.3)
        store, other = self.store(), self.other()
        digest, data = blob(400 * KIB, 1)
        await other.ask(f"write 1 {len(data)}")
        await other.ask(f"piece {200 * KIB}")
        reader = await self.open(store, digest)
        os.kill(other.pid, signal.SIGSTOP)
        await self.change(reader, State.STALLED)
        os.kill(other.pid, signal.SIGCONT)
        await other.ask(f"piece {len(data)}")
        await other.ask("commit")
        await self.change(reader, State.VERIFIED)
        self.assertEqual(await read_on(reader), data)

    async def test_evicted_under_a_slow_reader(self) -> None:
        """What one process follows slowly is not evicted by the one that filled it, as soon as it has committed."""
        store, other = self.store(1000 * KIB), self.other(1000 * KIB)
        digest, data = blob(600 * KIB, 1)
        await other.ask(f"write 1 {len(data)}")
        await other.ask(f"piece {100 * KIB}")
        reader = await self.open(store, digest)
        await other.ask(f"piece {len(data)}")
        await other.ask("commit")
        self.assertEqual(await other.ask(f"announce 2 {500 * KIB}"), "NoSpace")
        await self.change(reader, State.VERIFIED)
        self.assertEqual(await read_on(reader), data)

    async def test_reservations(self) -> None:
        """Processes that announce at the same moment never get more than the budget together."""
        store = self.store(1000 * KIB)
        others = [self.other(1000 * KIB) for _ in range(3)]
        asked = [other.ask(f"announce {10 * n + m} {148 * KIB}") for m in range(4) for n, other in enumerate(others)]
        answers = [await one for one in asked]
        self.assertEqual(sorted(set(answers)), [str(148 * KIB), "NoSpace"])
        self.assertEqual(answers.count("NoSpace"), 12 - 6)
        self.assertEqual(await store.used(), 6 * 148 * KIB)

    async def test_killed_reader_pins_no_more(self) -> None:
        """A blob that another process reads stays; when that process is killed it may go."""
        store, other = self.store(1000 * KIB), self.other(1000 * KIB)
        await keep(store, *blob(600 * KIB, 1))
        await other.ask(f"read 1 {600 * KIB}")
        writer = await claim(store, blob(10, 2)[0])
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
        files = WatchedDirectory(store._tree.incoming_directory, reactor)
        self.addCleanup(files.close)
        interrupted = 0
        for seed in range(12):
            size = chance.randrange(1, 3000 * KIB)
            digest, data = blob(size, seed)
            incoming = store._tree.incoming(digest)
            other = self.other()
            answer = other.ask(f"keep {seed} {size}")
            answer.addBoth(files.wake)
            following = None
            moment = chance.randrange(-size // 8, size)  # once so much is written; below 0: before that
            if moment > 0:
                await self.written(files, incoming, 0, answer)
                reader = await store.open(digest)
                following = None if reader is None else Deferred.fromCoroutine(follow(reader))
            await self.written(files, incoming, max(moment, 0), answer)
            await other.kill()
            await answer
            interrupted += os.path.exists(incoming)
            if await store.stat(digest) is None:  # it is, when it was killed late
                await keep(store, digest, data)  # resumes whatever is there, and verifies it
            self.assertEqual(await fetch(store, digest), data)
            if following is not None:
                self.assertEqual(await following, data)
            self.assertLessEqual(await store.used(), BUDGET)
            self.assertGreaterEqual(await store.used(), self.on_disk())
        self.assertGreater(interrupted, 2)

    async def written(self, files: WatchedDirectory, path: str, least: int, answer: Deferred[str]) -> None:
        """Return when a file of this directory has so many bytes, or there is an answer."""
        await files.until(lambda: answer.called or files.size(os.path.basename(path)) >= least)

    def on_disk(self) -> int:
        """Bytes of all files of blobs."""
        return sum(
            os.path.getsize(os.path.join(path, name))
            for top in ("blobs", "incoming")
            for path, _, names in os.walk(os.path.join(self.directory, top))
            for name in names
        )

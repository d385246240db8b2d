"""What happens between two steps of a store, and to an index that is in the way."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from unittest import mock

from docxy.storage import disk
from docxy.storage.disk import rounded
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import DigestMismatch, StorageError
from docxy.storage.paths import Tree
from tests.unit.storage.fixtures import (
    KIB,
    blob,
    claim,
    fetch,
    in_thread,
    keep,
    opened,
)
from tests.unit.storage.test_limits import BUDGET, OneDirectory


class BetweenTwoStepsTests(OneDirectory):
    """What a process leaves that dies between two steps."""

    async def test_named_but_not_noted(self) -> None:
        """A blob whose writer died between its name and its row is served, counted once, listed once used, evicted."""
        store = self.store()
        digest, data = blob(600 * KIB)
        await keep(store, digest, data)
        self.sql("UPDATE blobs SET committed = 0")
        self.assertEqual(await fetch(store, digest), data)
        self.assertEqual(await store.used(), len(data))
        self.clock.advance(10)
        await store._upkeep.ended()
        self.assertEqual([stat.digest async for stat in store.list()], [digest])
        self.sql("UPDATE blobs SET committed = 0")
        await keep(store, *blob(600 * KIB, 1))
        self.assertIsNone(await store.stat(digest))
        self.assertEqual(await store.used(), 600 * KIB)

    async def test_file_without_row(self) -> None:
        """A blob that the index does not know is served, and counted from then on."""
        store = self.store()
        digest, data = blob(600 * KIB)
        await keep(store, digest, data)
        self.sql("DELETE FROM blobs")
        self.assertEqual(await store.used(), 0)
        self.assertEqual(await fetch(store, digest), data)
        self.clock.advance(10)
        await store._upkeep.ended()
        self.assertEqual(await store.used(), len(data))

    async def test_row_without_file(self) -> None:
        """A row whose file is gone serves nothing, and eviction drops it."""
        store = self.store()
        digest, data = blob(600 * KIB)
        await keep(store, digest, data)
        os.unlink(self.tree.blob(digest))
        self.assertIsNone(await store.open(digest))
        self.assertIsNone(await store.stat(digest))
        self.assertEqual([stat async for stat in store.list()], [])
        await keep(store, *blob(600 * KIB, 1))
        self.assertEqual(await store.used(), 600 * KIB)
        await store.delete(blob(600 * KIB, 1)[0])
        await keep(store, digest, data)
        self.assertEqual(await fetch(store, digest), data)

    async def test_uncounted_fill(self) -> None:
        """Bytes of a fill that nothing was reserved for are not resumed."""
        store = self.store()
        digest, _ = blob(600 * KIB)
        with open(self.tree.incoming(digest), "wb") as file:
            file.write(b"x" * KIB)
        writer = await claim(store, digest)
        self.assertEqual((writer.offset, os.path.getsize(self.tree.incoming(digest))), (0, 0))
        await writer.cancel()

    async def test_uncounted_fill_at_start(self) -> None:
        """A start removes fills that nobody counted and nobody owns, and keeps those that can be resumed."""
        store = self.store()
        writer = await claim(store, blob(600 * KIB)[0])
        await writer.announce(600 * KIB)
        await writer.write(b"x")
        await writer.release()
        stray = self.tree.incoming(blob(10, 1)[0])
        with open(stray, "wb"):
            pass
        second = self.store()
        await second._upkeep.ended()
        self.assertEqual(
            os.listdir(self.tree.incoming_directory), [os.path.basename(self.tree.incoming(writer.digest))]
        )
        self.assertFalse(os.path.exists(stray))

    async def test_probe_is_no_owner(self) -> None:
        """Who locks a fill for a moment, only to see whether it is owned, does not keep a writer from it."""
        store = self.store()
        digest, _ = blob(10)
        with open(self.tree.incoming(digest), "wb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH)
            timer = threading.Timer(0.02, fcntl.flock, (file.fileno(), fcntl.LOCK_UN))
            timer.start()
            writer = await claim(store, digest)
            timer.join()
        await writer.cancel()

    async def test_smaller_budget(self) -> None:
        """A budget that is smaller than the last time is kept from the start on."""
        store = self.store()
        for seed in range(9):
            await keep(store, *blob(100 * KIB, seed))
        smaller = self.store(300 * KIB)
        await smaller._upkeep.ended()
        kept = [seed for seed in range(9) if await smaller.stat(blob(100 * KIB, seed)[0])]
        self.assertEqual((kept, await smaller.used()), ([6, 7, 8], 300 * KIB))
        self.assertEqual((smaller.counts.evicted, smaller.counts.evicted_bytes), (6, 600 * KIB))

    async def test_restart(self) -> None:
        """Another start finds the blobs and the order of their uses."""
        store = FilesystemStore(self.directory, BUDGET, self.clock, in_thread())
        store.start()
        for seed in range(10):
            await keep(store, *blob(100 * KIB, seed))
        await fetch(store, blob(100 * KIB, 0)[0])
        await store.stop()
        again = self.store()
        self.assertEqual(await again.used(), BUDGET)
        await keep(again, *blob(50 * KIB, 50))
        self.assertIsNone(await again.stat(blob(100 * KIB, 1)[0]))
        self.assertEqual(await fetch(again, blob(100 * KIB, 0)[0]), blob(100 * KIB, 0)[1])


class IndexTests(OneDirectory):
    """Indexes that are damaged, or large."""

    async def test_malformed_at_start(self) -> None:
        """A damaged index is put aside at the start and made anew from the files; hits go on meanwhile."""
        first = FilesystemStore(self.directory, BUDGET, self.clock, in_thread())
        first.start()
        kept = [blob(50 * KIB, seed) for seed in range(5)]
        for digest, data in kept:
            await keep(first, digest, data)
        await first.stop()
        with open(self.tree.index, "r+b") as file:
            file.write(b"not a database" * 100)
        store = self.store()
        self.assertEqual(await fetch(store, kept[0][0]), kept[0][1])
        await store._upkeep.ended()
        self.assertTrue(os.path.exists(self.tree.index + ".damaged"))
        self.assertEqual(await store.used(), 5 * rounded(50 * KIB))
        self.assertEqual(len([stat async for stat in store.list()]), 5)
        await keep(store, *blob(50 * KIB, 6))

    async def test_malformed_later(self) -> None:
        """An index that is damaged while it is used is made anew, by one of its users for all."""
        store, other = self.store(), self.store()
        await keep(store, *blob(50 * KIB))
        await other.used()
        size = os.path.getsize(self.tree.index)
        store._index.close()
        with open(self.tree.index, "r+b") as file:
            file.write(os.urandom(max(size, 8192)))
        for suffix in ("-wal", "-shm"):
            disk.unlink(self.tree.index + suffix)
        with self.assertRaises(StorageError):
            await keep(store, *blob(50 * KIB, 1))
        await store._upkeep.ended()
        await keep(store, *blob(50 * KIB, 1))
        await keep(other, *blob(50 * KIB, 2))
        self.assertEqual((await store.used(), await other.used()), (3 * rounded(50 * KIB),) * 2)

    async def test_not_complete(self) -> None:
        """While not all blobs are counted nothing is reserved: the budget could not be kept."""
        store = self.store()
        await keep(store, *blob(50 * KIB))
        self.sql("UPDATE total SET complete = 0")
        self.sql("DELETE FROM blobs")
        writer = await claim(store, blob(10, 1)[0])
        with self.assertRaises(StorageError):
            await writer.announce(10)
        await store._upkeep.ended()
        await writer.announce(10)
        self.assertEqual(await store.used(), rounded(50 * KIB) + rounded(10))
        await writer.cancel()

    async def test_large_cache_starts_at_once(self) -> None:
        """A start with 100,000 blobs takes under a second of CPU, looks at no directory of blobs, and counts right."""
        first = FilesystemStore(self.directory, 10**9, self.clock, in_thread())
        first.start()
        await first.stop()
        with sqlite3.connect(self.tree.index) as db:
            db.execute(
                "WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number LIMIT 100000) "
                "INSERT INTO blobs (digest, size, counted, committed, last_used) "
                "SELECT printf('sha256:%064x', n), 1000, 4096, 1, n FROM number"
            )
        db.close()
        with mock.patch.object(Tree, "committed", side_effect=AssertionError("looked at every blob")):
            began = time.process_time()
            store = self.store(10**9)
            self.assertIsNone(await store.open(blob(1)[0]))
            self.assertEqual(await store.used(), 100_000 * 4096)
            self.assertLess(time.process_time() - began, 1)

    async def test_descriptors(self) -> None:
        """Whatever becomes of readers and writers, their descriptors are closed."""
        store = self.store()
        await keep(store, *blob(KIB, 99))
        before = len(os.listdir("/proc/self/fd"))
        for seed in range(10):
            digest, data = blob(10 * KIB, seed)
            writer = await claim(store, digest)
            await writer.announce(len(data) + (seed == 3))
            readers = [writer.open(), await opened(store, digest)]
            await writer.write(data[:KIB])
            if seed == 0:
                await writer.cancel()
            elif seed in (1, 2):
                await writer.release()
                if seed == 2:
                    writer = await claim(store, digest)
                    await writer.announce(len(data) - 1)
                    await writer.cancel()
            elif seed == 3:
                with self.assertRaises(DigestMismatch):
                    await writer.commit()
            else:
                await writer.write(data[KIB:])
                await writer.commit()
                readers.append(await opened(store, digest))
            for reader in readers:
                reader.close()
        self.assertIsNone(await store.open(blob(10 * KIB, 1)[0]))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(len(store._views), 0)

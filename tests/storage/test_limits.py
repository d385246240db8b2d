"""Disks that are full, read-only or damaged; indexes that are damaged or large; moments between two steps."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import subprocess
import threading
import time
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, TestCase

from docxy.names import Digest
from docxy.storage import files
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import BlobMissing, DigestMismatch, NoSpace, State, StorageError
from docxy.storage.paths import Tree
from tests.storage.fixtures import KIB, blob, fetch, follow, in_thread, keep

BUDGET = 1000 * KIB


class OneDirectory(TestCase):
    """A directory and stores that use it, one after the other or together."""

    timeout = 60

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.directory = self.mktemp()
        self.tree = Tree(os.path.abspath(self.directory))

    def store(self, budget: int = BUDGET, directory: str | None = None) -> FilesystemStore:
        store = FilesystemStore(directory or self.directory, budget, self.clock, in_thread())
        store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store

    def sql(self, statement: str, *values: object) -> list[Any]:
        """Do something to the index behind the store's back."""
        with sqlite3.connect(self.tree.index) as db:
            rows = db.execute(statement, values).fetchall()
        db.close()
        return rows

    def mount(self, options: str) -> str:
        """A small file system of our own."""
        directory: str = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], capture_output=True)
        if done.returncode:
            reason = f"cannot mount a tmpfs: {done.stderr.decode().strip()}"
            if os.environ.get("CI"):
                self.fail(reason)
            raise SkipTest(reason)
        self.addCleanup(subprocess.run, ["umount", "-l", directory], check=True)
        return directory


class FullDiskTests(OneDirectory):
    """Disks on which nothing more can be written."""

    async def test_full(self) -> None:
        """A full disk ends a fill with NoSpace; it can be withdrawn, what was kept is served, room is used again."""
        store = self.store(100 << 20, self.mount("size=8m"))
        small, large = blob(3 << 20, 1), blob(20 << 20, 2)
        await keep(store, *small)
        writer = await store.write(large[0])
        await writer.announce(len(large[1]))
        with self.assertRaises(NoSpace) as caught:
            for start in range(0, len(large[1]), 256 * KIB):
                await writer.write(large[1][start : start + 256 * KIB])
        self.assertIn("/incoming/sha256-", str(caught.exception))
        with self.assertRaises(NoSpace):
            await writer.write(b"x")
        with self.assertRaises(NoSpace):
            await writer.commit()
        await writer.cancel()
        self.assertEqual(await fetch(store, small[0]), small[1])
        await keep(store, *blob(3 << 20, 3))
        self.assertEqual(await fetch(store, blob(3 << 20, 3)[0]), blob(3 << 20, 3)[1])

    async def test_read_only(self) -> None:
        """A disk that turns read-only goes on serving; to write to it is a StorageError that names the path."""
        directory = self.mount("size=8m")
        store = self.store(directory=directory)
        digest, data = blob(100 * KIB)
        await keep(store, digest, data)
        # The descriptors that are open stay writable, so it is mounted once more, over itself.
        subprocess.run(["mount", "--bind", directory, directory], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", directory], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        self.assertEqual(await fetch(store, digest), data)
        with self.assertRaises(StorageError) as caught:
            await store.write(blob(10, 1)[0])
        self.assertIn(directory, str(caught.exception))
        with self.assertRaises(StorageError) as caught:
            await store.delete(digest)
        self.assertIn(directory, str(caught.exception))
        fresh = FilesystemStore(directory, BUDGET, self.clock, in_thread())
        with self.assertRaises(StorageError) as caught:
            fresh.start()
        self.assertIn(directory, str(caught.exception))

    async def test_unusable(self) -> None:
        """A path that cannot be a cache is a StorageError that names it."""
        with open(self.directory, "w"):
            pass
        with self.assertRaises(StorageError) as caught:
            self.store()
        self.assertIn(self.directory, str(caught.exception))

    async def test_write_fails(self) -> None:
        """An I/O error while writing is a StorageError for the writer, and its readers go no further."""
        store = self.store()
        digest, data = blob(10 * KIB)
        writer = await store.write(digest)
        await writer.announce(len(data))
        reader = writer.open()
        self.addCleanup(reader.close)
        broken = mock.patch("os.pwritev", side_effect=OSError(errno.EIO, "I/O error"))
        with broken, self.assertRaises(StorageError):
            await writer.write(data)
            await writer.commit()
        await writer.release()
        self.assertEqual((reader.readable, reader.state), (0, State.RELEASED))

    async def test_sync_fails(self) -> None:
        """When the bytes cannot be made durable nothing is kept, but who reads them here gets them all."""
        await self.assert_nothing_kept([OSError(errno.EIO, "I/O error")])

    async def test_name_not_durable(self) -> None:
        """The same when it is the blob's name that cannot be made durable."""
        await self.assert_nothing_kept([None, None, OSError(errno.EIO, "I/O error")])

    async def assert_nothing_kept(self, outcomes: list[OSError | None]) -> None:
        """`outcomes`: of the calls of fsync."""
        store = self.store()
        digest, data = blob(10 * KIB)
        writer = await store.write(digest)
        await writer.announce(len(data))
        following = Deferred.fromCoroutine(follow(writer.open()))
        await writer.write(data)
        broken = mock.patch("os.fsync", side_effect=outcomes)
        with broken, self.assertRaises(StorageError):
            await writer.commit()
        self.assertEqual(await following, data)
        with self.assertRaises(BlobMissing):
            await store.open(digest)
        self.assertEqual(await store.used(), 0)

    async def test_cut_short(self) -> None:
        """A file that somebody cut is a StorageError for its reader, not an end of the blob."""
        store = self.store()
        digest, data = blob(100 * KIB)
        await keep(store, digest, data)
        reader = await store.open(digest)
        self.addCleanup(reader.close)
        os.truncate(self.tree.blob(digest), 1000)
        with self.assertRaises(StorageError):
            await reader.read(1000, 10)

    async def test_scratch(self) -> None:
        """What has no name leaves no file; a full disk is NoSpace; after the end it is a StorageError."""
        store = self.store(100 << 20, self.mount("size=8m"))
        scratch = await store.scratch()
        self.assertEqual(os.listdir(store._tree.incoming_directory), [])
        with self.assertRaises(NoSpace) as caught:
            for _ in range(9):
                await scratch.append(bytes(1 << 20))
        self.assertIn("/incoming", str(caught.exception))
        scratch.close()
        for work in (scratch.append(b"x"), scratch.read(0, 1)):
            with self.assertRaises(StorageError):
                await work
        again = await store.scratch()
        await again.append(bytes(7 << 20))
        again.close()

    async def test_scratch_in_pieces(self) -> None:
        """Where the system writes less at once than it was given, the rest follows."""
        scratch, write = await self.store().scratch(), os.pwrite
        self.addCleanup(scratch.close)
        with mock.patch("os.pwrite", lambda file, data, offset: write(file, data[:1000], offset)):
            await scratch.append(blob(10_500)[1])
        self.assertEqual(await scratch.read(0, 20_000), blob(10_500)[1])

    async def test_reads_in_a_thread(self) -> None:
        """Where the page cache cannot be asked, reads go through threads and are the same."""
        store = self.store()
        digest, data = blob(300 * KIB)
        await keep(store, digest, data)
        for problem in (BlockingIOError(errno.EAGAIN, "not cached"), OSError(errno.EOPNOTSUPP, "cannot tell")):
            with mock.patch("os.preadv", side_effect=problem):
                self.assertEqual(await fetch(store, digest), data)


class BetweenTwoStepsTests(OneDirectory):
    """What a process leaves that dies between two steps."""

    async def settled(self, store: FilesystemStore) -> None:
        """Until the work that nobody waits for is done."""
        while store._background:
            await store.stat(blob(1, 99)[0])

    async def test_named_but_not_noted(self) -> None:
        """A blob whose writer died between its name and its row is served, counted once, listed once used, evicted."""
        store = self.store()
        digest, data = blob(600 * KIB)
        await keep(store, digest, data)
        self.sql("UPDATE blobs SET committed = 0")
        self.assertEqual(await fetch(store, digest), data)
        self.assertEqual(await store.used(), len(data))
        self.clock.advance(10)
        await self.settled(store)
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
        await self.settled(store)
        self.assertEqual(await store.used(), len(data))

    async def test_row_without_file(self) -> None:
        """A row whose file is gone serves nothing, and eviction drops it."""
        store = self.store()
        digest, data = blob(600 * KIB)
        await keep(store, digest, data)
        os.unlink(self.tree.blob(digest))
        with self.assertRaises(BlobMissing):
            await store.open(digest)
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
        writer = await store.write(digest)
        self.assertEqual((writer.offset, os.path.getsize(self.tree.incoming(digest))), (0, 0))
        await writer.cancel()

    async def test_uncounted_fill_at_start(self) -> None:
        """A start removes fills that nobody counted and nobody owns, and keeps those that can be resumed."""
        store = self.store()
        writer = await store.write(blob(600 * KIB)[0])
        await writer.announce(600 * KIB)
        await writer.write(b"x")
        await writer.release()
        stray = self.tree.incoming(blob(10, 1)[0])
        with open(stray, "wb"):
            pass
        second = self.store()
        await self.settled(second)
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
            writer = await store.write(digest)
            timer.join()
        await writer.cancel()

    async def test_smaller_budget(self) -> None:
        """A budget that is smaller than the last time is kept from the start on."""
        store = self.store()
        for seed in range(9):
            await keep(store, *blob(100 * KIB, seed))
        smaller = self.store(300 * KIB)
        await self.settled(smaller)
        kept = [seed for seed in range(9) if await smaller.stat(blob(100 * KIB, seed)[0])]
        self.assertEqual((kept, await smaller.used()), ([6, 7, 8], 300 * KIB))

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

    async def rebuilt(self, store: FilesystemStore) -> None:
        while store._rebuilding:
            await store.stat(blob(1, 99)[0])

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
        await self.rebuilt(store)
        self.assertTrue(os.path.exists(self.tree.index + ".damaged"))
        self.assertEqual(await store.used(), 250 * KIB)
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
            files.unlink(self.tree.index + suffix)
        with self.assertRaises(StorageError):
            await keep(store, *blob(50 * KIB, 1))
        await self.rebuilt(store)
        await keep(store, *blob(50 * KIB, 1))
        await keep(other, *blob(50 * KIB, 2))
        self.assertEqual((await store.used(), await other.used()), (150 * KIB, 150 * KIB))

    async def test_not_complete(self) -> None:
        """While not all blobs are counted nothing is reserved: the budget could not be kept."""
        store = self.store()
        await keep(store, *blob(50 * KIB))
        self.sql("UPDATE total SET complete = 0")
        self.sql("DELETE FROM blobs")
        writer = await store.write(blob(10, 1)[0])
        with self.assertRaises(StorageError):
            await writer.announce(10)
        await self.rebuilt(store)
        await writer.announce(10)
        self.assertEqual(await store.used(), 50 * KIB + 10)
        await writer.cancel()

    async def test_large_cache_starts_at_once(self) -> None:
        """A start with 100,000 blobs takes under a second, looks at no directory of blobs, and counts them right."""
        first = FilesystemStore(self.directory, 10**9, self.clock, in_thread())
        first.start()
        await first.stop()
        with sqlite3.connect(self.tree.index) as db:
            rows = ((str(Digest.of(b"%d" % n)), 1000, True, float(n)) for n in range(100_000))
            db.executemany("INSERT INTO blobs (digest, size, committed, last_used) VALUES (?, ?, ?, ?)", rows)
        db.close()
        with mock.patch.object(Tree, "committed", side_effect=AssertionError("looked at every blob")):
            began = time.monotonic()
            store = self.store(10**9)
            with self.assertRaises(BlobMissing):
                await store.open(blob(1)[0])
            self.assertEqual(await store.used(), 100_000 * 1000)
            self.assertLess(time.monotonic() - began, 1)

    async def test_descriptors(self) -> None:
        """Whatever becomes of readers and writers, their descriptors are closed."""
        store = self.store()
        await keep(store, *blob(KIB, 99))
        before = len(os.listdir("/proc/self/fd"))
        for seed in range(10):
            digest, data = blob(10 * KIB, seed)
            writer = await store.write(digest)
            await writer.announce(len(data) + (seed == 3))
            readers = [writer.open(), await store.open(digest)]
            await writer.write(data[:KIB])
            if seed == 0:
                await writer.cancel()
            elif seed in (1, 2):
                await writer.release()
                if seed == 2:
                    writer = await store.write(digest)
                    await writer.announce(len(data) - 1)
                    await writer.cancel()
            elif seed == 3:
                with self.assertRaises(DigestMismatch):
                    await writer.commit()
            else:
                await writer.write(data[KIB:])
                await writer.commit()
                readers.append(await store.open(digest))
            for reader in readers:
                reader.close()
        with self.assertRaises(BlobMissing):
            await store.open(blob(10 * KIB, 1)[0])
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(store._bodies, {})

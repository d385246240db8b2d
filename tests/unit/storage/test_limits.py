"""Disks that are full, read-only or damaged; indexes that are damaged or large; moments between two steps."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, TestCase

from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import DiskFull, NoSpace, State, StorageError
from docxy.storage.paths import Tree
from tests.unit.storage.fixtures import (
    KIB,
    blob,
    claim,
    count_blobs_only,
    fetch,
    follow,
    in_thread,
    keep,
    opened,
    read_on,
)

BUDGET = 1000 * KIB


class OneDirectory(TestCase):
    """A directory and stores that use it, one after the other or together."""

    def setUp(self) -> None:
        count_blobs_only(self)
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


def fill_up(directory: str) -> None:
    """Somebody else takes what the disk has left."""
    with contextlib.suppress(OSError), open(os.path.join(directory, "filler"), "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


class FullDiskTests(OneDirectory):
    """Disks on which nothing more can be written."""

    async def test_full(self) -> None:
        """A disk that fills up ends a fill of unknown size with NoSpace; what is read is served, room is used again."""
        store = self.store(100 << 20, self.mount("size=8m"))
        small, large = blob(3 << 20, 1), blob(20 << 20, 2)
        await keep(store, *small)
        reader = await opened(store, small[0])
        writer = await claim(store, large[0])
        with self.assertRaises(NoSpace):
            for start in range(0, len(large[1]), 256 * KIB):
                await writer.write(large[1][start : start + 256 * KIB])
        with self.assertRaises(NoSpace):
            await writer.commit()
        await writer.cancel()
        self.assertEqual(await read_on(reader), small[1])
        reader.close()
        self.assertEqual(await fetch(store, small[0]), small[1])
        await keep(store, *blob(3 << 20, 3))
        self.assertEqual(await fetch(store, blob(3 << 20, 3)[0]), blob(3 << 20, 3)[1])

    async def test_larger_than_the_disk(self) -> None:
        """A blob for which the disk has no room, whatever goes, is refused, and nothing goes in vain."""
        store = self.store(100 << 20, self.mount("size=8m"))
        small = blob(3 << 20, 1)
        await keep(store, *small)
        writer = await claim(store, blob(20 << 20, 2)[0])
        with self.assertRaises(NoSpace):
            await writer.announce(20 << 20)
        await writer.cancel()
        self.assertEqual(await fetch(store, small[0]), small[1])

    async def test_disk_smaller_than_the_budget(self) -> None:
        """The budget is what the disk has: new blobs are kept in the place of the least recently used."""
        store = self.store(100 << 20, self.mount("size=24m"))
        for seed in range(20):
            self.clock.advance(1)
            await keep(store, *blob(3 << 20, seed))
            self.assertEqual(await fetch(store, blob(3 << 20, seed)[0]), blob(3 << 20, seed)[1])
        kept = [seed for seed in range(20) if await store.stat(blob(3 << 20, seed)[0])]
        self.assertEqual(kept, [13, 14, 15, 16, 17, 18, 19])

    async def test_leftovers_go_first(self) -> None:
        """On a full disk what interrupted fills left goes before any blob; another start is not needed."""
        directory = self.mount("size=24m")
        store = self.store(100 << 20, directory)
        kept = [blob(3 << 20, seed) for seed in range(3)]
        for digest, data in kept:
            await keep(store, digest, data)
        left = await claim(store, blob(14 << 20, 10)[0])
        await left.announce(14 << 20)
        await left.write(blob(14 << 20, 10)[1][: 13 << 20])
        await left.release()
        self.clock.advance(1)
        fill_up(directory)
        self.assertEqual(os.statvfs(directory).f_bavail, 0)
        await keep(store, *blob(8 << 20, 20))
        self.assertFalse(os.path.exists(store._tree.incoming(left.digest)))
        for digest, data in kept:
            self.assertEqual(await fetch(store, digest), data)

    async def test_full_of_others(self) -> None:
        """What others fill is well while a blob could go to make room, and unusable where there is none."""
        directory = self.mount("size=8m")
        store = self.store(100 << 20, directory)
        self.assertGreater(await store.free(), 4 << 20)
        self.assertEqual(os.listdir(store._tree.incoming_directory), [])
        digest, data = blob(100 * KIB)
        await keep(store, digest, data)
        fill_up(directory)
        self.assertEqual(await store.free(), 0)
        reader = await opened(store, digest)
        with self.assertRaises(DiskFull) as caught:
            await store.free()
        self.assertIn(directory, str(caught.exception))
        reader.close()
        self.assertEqual(await store.free(), 0)
        self.assertEqual(await fetch(store, digest), data)

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
            await store.free()
        self.assertIn(directory, str(caught.exception))
        with self.assertRaises(StorageError) as caught:
            await claim(store, blob(10, 1)[0])
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
        writer = await claim(store, digest)
        await writer.announce(len(data))
        reader = writer.open()
        self.addCleanup(reader.close)
        broken = mock.patch("os.pwritev", side_effect=OSError(errno.EIO, "I/O error"))
        with broken, self.assertRaises(StorageError):
            await writer.write(data)
            await writer.commit()
        await writer.release()
        self.assertEqual((reader.readable, reader.state), (0, State.WITHDRAWN))

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
        writer = await claim(store, digest)
        await writer.announce(len(data))
        following = Deferred.fromCoroutine(follow(writer.open()))
        await writer.write(data)
        broken = mock.patch("os.fsync", side_effect=outcomes)
        with broken, self.assertRaises(StorageError):
            await writer.commit()
        self.assertEqual(await following, data)
        self.assertIsNone(await store.open(digest))
        self.assertEqual(await store.used(), 0)

    async def test_cut_short(self) -> None:
        """A file that somebody cut is a StorageError for its reader, not an end of the blob."""
        store = self.store()
        digest, data = blob(100 * KIB)
        await keep(store, digest, data)
        reader = await opened(store, digest)
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

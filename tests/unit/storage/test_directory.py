"""What a directory that several stores share goes through: removal, other files, power cuts, a damaged index."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
from unittest import mock

from docxy.names import Digest
from docxy.storage import disk
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import StorageError
from docxy.storage.paths import Tree
from tests.unit.storage.fixtures import (
    KIB,
    blob,
    claim,
    fetch,
    in_thread,
    keep,
)
from tests.unit.storage.test_shared import BUDGET, VERSION_1, TwoStores


class DirectoryTests(TwoStores):
    """The directory itself."""

    async def test_no_file_for_a_fill(self) -> None:
        """A link, a directory or a pipe in the place of a fill gives way to one, and nothing behind a link changes."""
        elsewhere = os.path.abspath(self.mktemp())
        with open(elsewhere, "wb") as file:
            file.write(b"kept")
        digest, data = blob(10 * KIB)
        for make in (lambda path: os.symlink(elsewhere, path), os.mkdir, os.mkfifo):
            make(self.tree.incoming(digest))
            self.assertIsNone(await self.theirs.open(digest))
            await keep(self.ours, digest, data)
            self.assertEqual(await fetch(self.ours, digest), data)
            await self.ours.delete(digest)
        with open(elsewhere, "rb") as file:
            self.assertEqual(file.read(), b"kept")

    async def test_removed_and_made_again(self) -> None:
        """A cache whose directory was removed and made again keeps blobs again, without a restart."""
        await keep(self.ours, *blob(10 * KIB))
        await self.ours._upkeep.ended()
        await self.theirs._upkeep.ended()
        shutil.rmtree(self.directory)
        os.mkdir(self.directory)
        await keep(self.ours, *blob(10 * KIB, 1))
        self.assertEqual(await fetch(self.ours, blob(10 * KIB, 1)[0]), blob(10 * KIB, 1)[1])
        (await self.ours.scratch()).close()

    async def test_private(self) -> None:
        """Whatever the umask, nobody else can read anything of the cache; one of an earlier version is closed, too."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        os.chmod(self.tree.incoming_directory, 0o755)
        directory = os.path.abspath(self.mktemp())
        for path in (directory, self.directory):
            store = FilesystemStore(path, BUDGET, self.clock, in_thread())
            store.start()
            await keep(store, *blob(10 * KIB))
            writer = await claim(store, blob(10 * KIB, 1)[0])
            await writer.announce(10 * KIB)
            await writer.write(b"x")
            await writer.release()
            await store.stop()
        for path, _, found in os.walk(directory):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o700, path)
            for name in found:
                self.assertEqual(stat.S_IMODE(os.stat(os.path.join(path, name)).st_mode), 0o600, name)
        self.assertEqual(stat.S_IMODE(os.stat(self.tree.incoming_directory).st_mode), 0o700)

    async def test_no_flock(self) -> None:
        """A file system without flock is a StorageError at the start that says so; later it is one of the blob's."""
        missing = OSError(errno.ENOLCK, "No locks available")
        with mock.patch("fcntl.flock", side_effect=missing):
            fresh = FilesystemStore(self.directory, BUDGET, self.clock, in_thread())
            with self.assertRaises(StorageError) as caught:
                fresh.start()
            self.assertIn("flock", str(caught.exception))
            for work in (self.ours.open(blob(10)[0]), self.ours.join(blob(10)[0])):
                with open(self.tree.incoming(blob(10)[0]), "wb"):
                    pass
                with self.assertRaises(StorageError):
                    await work

    async def test_what_du_shows(self) -> None:
        """What is counted is what `du` shows, databases and directories with it, however small the blobs are."""
        self.patch(Tree, "bookkeeping", BOOKKEEPING)
        store = FilesystemStore(os.path.abspath(self.mktemp()), 40 << 20, self.clock, in_thread())
        store.start()
        for seed in range(100):
            await keep(store, *blob(500, seed))
        await keep(store, *blob(3 << 20, 1000))
        shown = sum(
            os.lstat(os.path.join(path, name)).st_blocks * 512
            for path, directories, found in os.walk(store._tree.directory)
            for name in (*directories, *found)
        )
        self.assertLess(abs(await store.used() - shown), 100 * KIB)
        await store.stop()


BOOKKEEPING = Tree.bookkeeping


class PowerTests(TwoStores):
    """What a loss of power leaves."""

    async def interrupted(self, synced: bool) -> tuple[Digest, bytes]:
        """A fill whose machine went down after half of it."""
        digest, data = blob(100 * KIB)
        writer = await claim(self.theirs, digest)
        await writer.announce(len(data))
        await writer.write(data[: 50 * KIB])
        await self.idle(writer)
        if synced:
            await writer.release()
        else:  # as a killed process does
            with mock.patch("docxy.storage.index.Index.synced"):
                await writer.release()
        return digest, data

    async def test_lost_tail(self) -> None:
        """Bytes that were not synced before the machine went down are not trusted, and the blob becomes whole."""
        digest, data = await self.interrupted(synced=False)
        with open(self.tree.incoming(digest), "r+b") as file:
            file.seek(20 * KIB)
            file.write(bytes(30 * KIB))
        self.patch(disk, "boot", lambda: "another")
        writer = await claim(self.ours, digest)
        self.assertEqual((writer.offset, writer.size), (0, len(data)))
        await writer.announce(len(data))
        await writer.write(data)
        await writer.commit()
        self.assertEqual(await fetch(self.ours, digest), data)

    async def test_synced(self) -> None:
        """What was released was synced, and is resumed after the machine went down."""
        digest, _ = await self.interrupted(synced=True)
        self.patch(disk, "boot", lambda: "another")
        writer = await claim(self.ours, digest)
        self.assertEqual(writer.offset, 50 * KIB)
        await writer.cancel()

    async def test_killed(self) -> None:
        """A process that was killed while the machine went on loses nothing."""
        digest, _ = await self.interrupted(synced=False)
        writer = await claim(self.ours, digest)
        self.assertEqual(writer.offset, 50 * KIB)
        await writer.cancel()


class IndexTests(TwoStores):
    """The index at bad moments."""

    async def test_opened_at_a_bad_moment(self) -> None:
        """An index that could not be made, because the disk was full, is made when it can be."""
        for store in (self.ours, self.theirs):
            store._index.close()
        for suffix in ("", "-wal", "-shm"):
            disk.unlink(self.tree.index + suffix)
        full = sqlite3.OperationalError("database or disk is full")
        with mock.patch("docxy.database._migrate", side_effect=full), self.assertRaises(StorageError):
            await self.ours.used()
        self.assertEqual(await self.ours.used(), 0)
        await keep(self.ours, *blob(10 * KIB))

    async def test_version_1(self) -> None:
        """A cache of version 1 keeps its blobs, their uses and its interrupted fills' places."""
        directory = os.path.abspath(self.mktemp())
        tree = Tree(directory)
        tree.create()
        digest, data = blob(10 * KIB)
        os.makedirs(os.path.dirname(tree.blob(digest)))
        with open(tree.blob(digest), "wb") as file:
            file.write(data)
        db = sqlite3.connect(tree.index)
        db.executescript(VERSION_1)
        for each, size, committed, used in ((digest, 10 * KIB, True, 5.0), (blob(10, 1)[0], 600, False, 6.0)):
            db.execute("INSERT INTO blobs VALUES (?, ?, ?, ?, 0)", (str(each), size, committed, used))
        db.commit()
        db.close()
        store = FilesystemStore(directory, BUDGET, self.clock, in_thread())
        store.start()
        self.assertEqual(
            [(each.digest, each.size, each.last_used) async for each in store.list()], [(digest, 10 * KIB, 5.0)]
        )
        self.assertEqual(await fetch(store, digest), data)
        self.assertEqual(await store.used(), 3 * 4096 + 4096)
        await keep(store, *blob(10 * KIB, 2))
        await store.stop()

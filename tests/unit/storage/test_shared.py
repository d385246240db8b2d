"""Two stores on one directory, one of which follows what the other does, whatever happens to it.

They share nothing but the directory, as two processes would.  Their clock is made by hand.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from docxy.names import Digest
from docxy.storage import disk, views
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import DigestMismatch, IBlobReader, IBlobWriter, NoSpace, State, StorageError
from docxy.storage.paths import Tree
from docxy.storage.watch import BEAT, INTERVAL, SILENT
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
MIB = 1 << 20


class TwoStores(TestCase):
    """`ours` follows, `theirs` writes."""

    def setUp(self) -> None:
        count_blobs_only(self)
        self.clock, self.their_clock = Clock(), Clock()
        for clock in (self.clock, self.their_clock):
            clock.advance(1_000_000)
        self.directory = os.path.abspath(self.mktemp())
        self.tree = Tree(self.directory)
        self.ours = self.store(self.clock)
        self.theirs = self.store(self.their_clock)

    def store(self, clock: Clock) -> FilesystemStore:
        store = FilesystemStore(self.directory, BUDGET, clock, in_thread())
        store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store

    async def followed(self, size: int = 100 * KIB, written: int = 50 * KIB) -> tuple[IBlobWriter, bytes, IBlobReader]:
        """Their writer of a fill, all of its bytes, and a reader of ours that has looked at what is there."""
        digest, data = blob(size)
        writer = await claim(self.theirs, digest)
        await writer.announce(size)
        await writer.write(data[:written])
        await self.idle(writer)
        reader = await opened(self.ours, digest)
        self.addCleanup(reader.close)
        self.look(reader)
        return writer, data, reader

    async def idle(self, writer: IBlobWriter) -> None:
        """Until what was written is in the file."""
        progress = writer.open()
        while progress.readable < min(writer.offset, (writer.size or writer.offset) - 1):
            await progress.changed()
        progress.close()

    def look(self, reader: IBlobReader) -> State:
        """Let our store look at what theirs did."""
        waiting = reader.changed().addErrback(lambda reason: None)
        self.clock.advance(INTERVAL)
        waiting.cancel()
        return reader.state


class HeldTests(TwoStores):
    """What is read is held, in whatever process."""

    async def test_followed_is_not_evicted(self) -> None:
        """A blob that was followed as it came stays until its slow reader in another process has closed it."""
        writer, data, reader = await self.followed(600 * KIB)
        await writer.write(data[50 * KIB :])
        await writer.commit()
        other = await claim(self.theirs, blob(500 * KIB, 1)[0])
        with self.assertRaises(NoSpace):  # the reader did not look since
            await other.announce(500 * KIB)
        self.assertIs(self.look(reader), State.VERIFIED)
        self.assertEqual(await read_on(reader), data)
        reader.close()
        await other.announce(500 * KIB)
        await other.cancel()
        self.assertIsNone(await self.ours.stat(writer.digest))

    async def test_evicted_where_nothing_can_be_held(self) -> None:
        """On a file system without such locks the follower of a blob that was evicted gets it whole."""
        self.patch(fcntl, "F_OFD_SETLK", 0)
        writer, data, reader = await self.followed(600 * KIB)
        await writer.write(data[50 * KIB :])
        await writer.commit()
        await keep(self.theirs, *blob(500 * KIB, 1))
        self.assertIsNone(await self.theirs.stat(writer.digest))
        self.assertIs(self.look(reader), State.VERIFIED)
        self.assertEqual(await read_on(reader), data)

    async def test_failed_commit(self) -> None:
        """When the disk cannot keep right bytes, who follows in another process gets all of them."""
        for calls in ([OSError(errno.EIO, "I/O error")], [None, None, OSError(errno.EIO, "I/O error")]):
            writer, data, reader = await self.followed()
            await writer.write(data[50 * KIB :])
            with mock.patch("os.fsync", side_effect=calls), self.assertRaises(StorageError):
                await writer.commit()
            self.assertIs(self.look(reader), State.VERIFIED)
            self.assertEqual(await read_on(reader), data)
            self.assertIsNone(await self.ours.open(writer.digest))
            reader.close()

    async def test_wrong(self) -> None:
        """Bytes that turn out wrong are never completed in another process, and it knows why."""
        writer, data, reader = await self.followed()
        await writer.write(bytes(50 * KIB))
        with self.assertRaises(DigestMismatch):
            await writer.commit()
        self.assertIs(self.look(reader), State.WRONG)
        self.assertLess(reader.readable, len(data))

    async def test_discarded(self) -> None:
        """Bytes that were kept, of a blob that is now said to be of another size, are not called wrong."""
        writer, data, reader = await self.followed()
        await writer.discard()
        self.assertIs(self.look(reader), State.WITHDRAWN)
        await writer.announce(len(data))
        await writer.write(data)
        await writer.commit()
        self.assertIs(self.look(reader), State.WITHDRAWN)

    async def test_withdrawn(self) -> None:
        """Bytes that are given up are not called wrong."""
        writer, data, reader = await self.followed()
        await writer.cancel()
        self.assertIs(self.look(reader), State.WITHDRAWN)
        self.assertLess(reader.readable, len(data))


class StalledTests(TwoStores):
    """A process that stands still."""

    async def test_stalled(self) -> None:
        """A writer whose process shows no life stalls its followers' reader; they see when it goes on."""
        writer, data, reader = await self.followed()
        self.assertIs(self.look(reader), State.FILLING)
        self.clock.advance(SILENT)
        self.assertIs(self.look(reader), State.STALLED)
        newcomer = await opened(self.ours, writer.digest)
        self.assertIs(newcomer.state, State.STALLED)
        newcomer.close()
        await writer.write(data[50 * KIB :])
        await self.idle(writer)
        self.assertIs(self.look(reader), State.FILLING)
        await writer.commit()

    async def test_slow_is_not_stalled(self) -> None:
        """A writer that waits for a slow upstream shows that it lives."""
        writer, _, reader = await self.followed()
        os.utime(self.tree.incoming(writer.digest), (1, 1))
        self.look(reader)
        for _ in range(int(3 * SILENT / BEAT)):
            before = os.stat(self.tree.incoming(writer.digest)).st_mtime_ns
            self.their_clock.advance(BEAT)
            while os.stat(self.tree.incoming(writer.digest)).st_mtime_ns == before:
                await self.theirs.stat(writer.digest)  # goes through the same threads
            self.clock.advance(BEAT)
            self.assertIs(self.look(reader), State.FILLING)
        await writer.cancel()


class SizeTests(TwoStores):
    """A size that nobody knows is unknown."""

    async def test_never_announced(self) -> None:
        """A blob whose size nobody announces is followed from another process, and whole when it is verified."""
        digest, data = blob(100 * KIB)
        writer = await claim(self.theirs, digest)
        await writer.write(data[: 50 * KIB])
        await self.idle(writer)
        reader = await opened(self.ours, digest)
        self.addCleanup(reader.close)
        view: Any = self.ours._views.known(digest)
        await view.watch.learn_size(final=True)  # nobody knows it: bytes are shown without
        self.look(reader)
        self.assertEqual((reader.size, reader.readable), (None, 50 * KIB - 1))
        await writer.write(data[50 * KIB :])
        await writer.commit()
        self.assertIs(self.look(reader), State.VERIFIED)
        self.assertEqual((reader.size, await read_on(reader)), (len(data), data))

    async def test_index_lost_during_a_fill(self) -> None:
        """When the index is rebuilt during a fill, its length so far is not taken for its size."""
        writer, data, reader = await self.followed()
        reader.close()
        third = FilesystemStore(self.directory, BUDGET, self.clock, in_thread())
        for store in (self.ours, self.theirs):
            store._index.close()
        for suffix in ("", "-wal", "-shm"):
            disk.unlink(self.tree.index + suffix)
        third.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(third.stop()))
        await third._upkeep.ended()
        follower = await opened(third, writer.digest)
        self.addCleanup(follower.close)
        self.assertIn(follower.size, (None, len(data)))
        self.assertIs(follower.state, State.FILLING)
        await writer.write(data[50 * KIB :])
        await writer.commit()
        self.assertIs(self.look(follower), State.VERIFIED)
        self.assertEqual((follower.size, await read_on(follower)), (len(data), data))
        self.assertEqual(await third.used(), disk.rounded(len(data)))


class DamagedFileTests(TwoStores):
    """A committed file that somebody else changed."""

    async def damaged(self, change: Any) -> None:
        """No store serves the file after the change, and it can be filled again."""
        digest, data = blob(100 * KIB)
        await keep(self.theirs, digest, data)
        change(self.tree.blob(digest), digest)
        for store in (self.ours, self.theirs):
            self.assertIsNone(await store.stat(digest))
            self.assertIsNone(await store.open(digest))
        self.assertFalse(os.path.lexists(self.tree.blob(digest)))
        await keep(self.ours, digest, data)
        self.assertEqual(await fetch(self.theirs, digest), data)
        await self.ours.delete(digest)

    async def test_size(self) -> None:
        """A file that was cut, emptied or grown is dropped when it is asked for, and is not there for a HEAD."""
        for size in (1000, 0, 200 * KIB):
            await self.damaged(lambda path, digest, size=size: os.truncate(path, size))

    async def test_size_while_read(self) -> None:
        """The same while a reader has it open: newcomers do not get it."""
        digest, data = blob(100 * KIB)
        await keep(self.ours, digest, data)
        reader = await opened(self.ours, digest)
        self.addCleanup(reader.close)
        os.truncate(self.tree.blob(digest), 1000)
        self.assertIsNone(await self.ours.open(digest))

    async def test_index_lost_too(self) -> None:
        """When the index is lost as well, a file is hashed before anything is shown; a very large one meanwhile."""
        for size, first in ((100 * KIB, views.FIRST), (3 << 20, views.FIRST), (3 << 20, MIB)):
            self.patch(views, "FIRST", first)
            store = FilesystemStore(os.path.abspath(self.mktemp()), 100 << 20, self.clock, in_thread())
            store.start()
            sound, cut = blob(size, 1), blob(size, 2)
            for digest, data in (sound, cut):
                await keep(store, digest, data)
            await store.stop()
            os.truncate(store._tree.blob(cut[0]), size - 5000)
            for suffix in ("", "-wal", "-shm"):
                disk.unlink(store._tree.index + suffix)
            again = FilesystemStore(store._tree.directory, 100 << 20, self.clock, in_thread())
            again.start()
            reader = await opened(again, sound[0])
            self.assertEqual(
                (reader.size, reader.state is State.VERIFIED), ((size, True) if size < MIB else (None, False))
            )
            self.assertEqual(await follow(reader), sound[1])
            reader_or_none = await again.open(cut[0])
            if size < MIB:
                self.assertIsNone(reader_or_none)
            else:
                assert reader_or_none is not None
                there = len(await follow(reader_or_none))
                self.assertEqual((reader_or_none.size, there), (None, 0 if size < first else size - 5001))
            while await again.open(cut[0]) is not None:
                await again.stat(cut[0])
            reader = await opened(again, sound[0])
            self.assertEqual((reader.size, reader.state), (size, State.VERIFIED))
            reader.close()
            await again.stop()

    async def test_kind(self) -> None:
        """A link, a directory or a pipe in the place of a blob is none, wherever the link leads."""

        def replace(make: Any) -> Any:
            def change(path: str, digest: Digest) -> None:
                os.rename(path, path + ".moved")
                make(path)

            return change

        for make in (lambda path: os.symlink(path + ".moved", path), os.mkdir, os.mkfifo):
            await self.damaged(replace(make))


VERSION_1 = """
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    last_used REAL NOT NULL,
    checked REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX by_use ON blobs (last_used);
CREATE INDEX by_check ON blobs (checked) WHERE committed;
CREATE TABLE total (bytes INTEGER NOT NULL, complete INTEGER NOT NULL);
INSERT INTO total SELECT 0, 1;
CREATE TRIGGER added AFTER INSERT ON blobs
    BEGIN UPDATE total SET bytes = bytes + new.size; END;
CREATE TRIGGER resized AFTER UPDATE OF size ON blobs
    BEGIN UPDATE total SET bytes = bytes + new.size - old.size; END;
CREATE TRIGGER removed AFTER DELETE ON blobs
    BEGIN UPDATE total SET bytes = bytes - old.size; END;
PRAGMA user_version = 1;
"""

"""What every store promises.  Mixed into one TestCase for each store.

These tests see one process only.  What several processes on one directory promise each other is
in `test_processes.py`; disks that fail are in `test_limits.py`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from docxy.names import Digest
from docxy.storage.interfaces import (
    BlobMissing,
    DigestMismatch,
    IBlobReader,
    IBlobStore,
    IBlobWriter,
    IScratch,
    State,
    StorageError,
    WriterBusy,
)
from tests.storage.fixtures import KIB, blob, fetch, follow, keep, read_on, until

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

BUDGET = 1000 * KIB


class StoreContract(Base):
    """Needs `make_store`."""

    def make_store(self, budget: int) -> Any:
        """A started store, stopped when the test ends."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.store = self.make_store(BUDGET)

    async def started(self, size: int = 100 * KIB, seed: int = 0) -> tuple[IBlobWriter, bytes]:
        """A writer that was told the size, and the right bytes."""
        digest, data = blob(size, seed)
        writer = await self.store.write(digest)
        await writer.announce(size)
        return writer, data

    # -- one blob

    async def test_interfaces(self) -> None:
        """Store, writer and reader have every method and attribute of their interfaces."""
        writer, _ = await self.started()
        reader = writer.open()
        verifyObject(IBlobStore, self.store)
        verifyObject(IBlobWriter, writer)
        verifyObject(IBlobReader, reader)
        scratch = await self.store.scratch()
        verifyObject(IScratch, scratch)
        scratch.close()
        reader.close()
        await writer.cancel()

    async def test_write_and_read(self) -> None:
        """What was committed can be read, as a whole and in any part."""
        digest, data = blob(300 * KIB)
        await keep(self.store, digest, data)
        reader = await self.store.open(digest)
        self.addCleanup(reader.close)
        self.assertEqual((reader.digest, reader.size, reader.readable), (digest, len(data), len(data)))
        self.assertIs(reader.state, State.VERIFIED)
        self.assertEqual(await read_on(reader), data)
        self.assertEqual(await reader.read(1234, 10), data[1234:1244])
        self.assertEqual(await reader.read(len(data) - 5, 100), data[-5:])

    async def test_sha512(self) -> None:
        """A sha512 digest is kept and verified like a sha256 one, and is another blob."""
        digest, data = blob(5000, algorithm="sha512")
        await keep(self.store, digest, data)
        self.assertEqual(await fetch(self.store, digest), data)
        with self.assertRaises(BlobMissing):
            await self.store.open(Digest.of(data))
        writer = await self.store.write(blob(5000, 1, "sha512")[0])
        await writer.announce(5000)
        await writer.write(data)
        with self.assertRaises(DigestMismatch):
            await writer.commit()

    async def test_empty(self) -> None:
        """A blob of no bytes can be kept and read."""
        digest, _ = blob(0)
        writer = await self.store.write(digest)
        await writer.announce(0)
        reader = writer.open()
        self.addCleanup(reader.close)
        self.assertEqual((reader.size, reader.readable, reader.state), (0, 0, State.FILLING))
        await writer.commit()
        self.assertIs(reader.state, State.VERIFIED)
        self.assertEqual(await fetch(self.store, digest), b"")
        stat = await self.store.stat(digest)
        self.assertEqual(stat and stat.size, 0)

    async def test_missing(self) -> None:
        """What was never written is missing, in every way to ask for it."""
        digest, _ = blob(10)
        with self.assertRaises(BlobMissing):
            await self.store.open(digest)
        self.assertIsNone(await self.store.stat(digest))
        self.assertFalse(await self.store.delete(digest))
        self.assertEqual([stat async for stat in self.store.list()], [])

    async def test_stat(self) -> None:
        """A committed blob's facts are its size and when it was used; a fill has none; asking is no use."""
        writer, data = await self.started()
        self.assertIsNone(await self.store.stat(writer.digest))
        await writer.write(data)
        await writer.commit()
        self.clock.advance(100)
        for _ in range(2):
            stat = await self.store.stat(writer.digest)
            assert stat is not None
            self.assertEqual((stat.digest, stat.size), (writer.digest, len(data)))
            self.assertEqual(int(stat.last_used), 1_000_000)
        await fetch(self.store, writer.digest)
        stat = await self.store.stat(writer.digest)
        assert stat is not None
        self.assertEqual(int(stat.last_used), 1_000_100)

    async def test_list(self) -> None:
        """Every committed blob is listed once, fills are not."""
        kept = [blob(KIB + number, number) for number in range(20)]
        for digest, data in kept:
            await keep(self.store, digest, data)
        writer, _ = await self.started(seed=99)
        listed = [(stat.digest, stat.size) async for stat in self.store.list()]
        self.assertEqual(sorted(listed), sorted((digest, len(data)) for digest, data in kept))
        await writer.cancel()

    # -- following

    async def test_follow_while_filling(self) -> None:
        """A reader gets bytes as they are written, one that joins later too, and both get all of them."""
        writer, data = await self.started()
        first = await self.store.open(writer.digest)
        self.assertEqual((first.size, first.readable, first.state), (len(data), 0, State.FILLING))
        await writer.write(data[: 10 * KIB])
        await until(first, 10 * KIB)
        self.assertEqual(await read_on(first), data[: 10 * KIB])
        second = writer.open()
        self.assertEqual(await second.read(KIB, KIB), data[KIB : 2 * KIB])
        both = [Deferred.fromCoroutine(follow(first)), Deferred.fromCoroutine(follow(second))]
        for start in range(10 * KIB, len(data), 10 * KIB):
            await writer.write(data[start : start + 10 * KIB])
        await writer.commit()
        self.assertEqual([await one for one in both], [data, data])

    async def test_last_byte_withheld(self) -> None:
        """Until the bytes are verified the last one cannot be read; then it can, and readers are told."""
        writer, data = await self.started()
        reader = writer.open()
        self.addCleanup(reader.close)
        await writer.write(data)
        await until(reader, len(data) - 1)
        self.assertEqual(reader.readable, len(data) - 1)
        self.assertEqual(await read_on(reader), data[:-1])
        self.assertEqual(await reader.read(len(data) - 1, 10), b"")
        self.assertIs(reader.state, State.FILLING)
        changed = reader.changed()
        await writer.commit()
        await changed
        self.assertIs(reader.state, State.VERIFIED)
        self.assertEqual(await reader.read(len(data) - 1, 10), data[-1:])

    async def test_read_past_readable(self) -> None:
        """At and past what is readable there is nothing, and it is no error."""
        writer, data = await self.started()
        reader = writer.open()
        self.addCleanup(reader.close)
        self.assertEqual(await reader.read(0, 100), b"")
        await writer.write(data[:1000])
        await until(reader, 1000)
        self.assertEqual(await reader.read(990, 100), data[990:1000])
        self.assertEqual(await reader.read(1000, 100), b"")
        self.assertEqual(await reader.read(10**9, 100), b"")
        await writer.cancel()

    async def test_changed_cancelled(self) -> None:
        """Who stops waiting for a change is not told, and others are."""
        writer, data = await self.started()
        reader = writer.open()
        self.addCleanup(reader.close)
        cancelled, waiting = reader.changed(), reader.changed()
        cancelled.cancel()
        await self.assertFailure(cancelled, CancelledError)
        await writer.write(data[:10])
        await waiting
        await writer.cancel()

    async def test_descriptor(self) -> None:
        """A descriptor, if there is one, has the readable bytes at their offsets; a closed reader has none."""
        digest, data = blob(100 * KIB)
        await keep(self.store, digest, data)
        reader = await self.store.open(digest)
        descriptor = reader.fileno()
        if descriptor is not None:
            self.assertEqual(os.pread(descriptor, 100, 5000), data[5000:5100])
        reader.close()
        reader.close()
        self.assertIsNone(reader.fileno())

    # -- wrong bytes

    async def assert_mismatch(self, size: int, pieces: list[bytes], digest: Digest) -> None:
        writer = await self.store.write(digest)
        await writer.announce(size)
        reader = writer.open()
        try:
            with self.assertRaises(DigestMismatch):
                for piece in pieces:
                    await writer.write(piece)
                await writer.commit()
            self.assertIs(reader.state, State.CANCELLED)
            self.assertLess(reader.readable, max(size, 1))
        finally:
            reader.close()
        await writer.cancel()  # safe after any failure
        with self.assertRaises(BlobMissing):
            await self.store.open(digest)
        self.assertIsNone(await self.store.stat(digest))
        self.assertEqual(await self.store.used(), 0)
        writer = await self.store.write(digest)
        self.assertEqual((writer.offset, writer.size), (0, None))
        await writer.cancel()

    async def test_wrong_bytes(self) -> None:
        """Bytes that hash to something else are never committed, kept or counted."""
        digest, data = blob(100 * KIB)
        await self.assert_mismatch(len(data), [data[:-1] + bytes([data[-1] ^ 1])], digest)

    async def test_too_short(self) -> None:
        """Fewer bytes than announced are never committed, even when the digest is theirs."""
        digest, data = blob(100 * KIB)
        await self.assert_mismatch(len(data) + 1, [data], digest)

    async def test_too_long(self) -> None:
        """More bytes than announced are refused, even when the digest is theirs."""
        digest, data = blob(100 * KIB)
        await self.assert_mismatch(len(data) - 1, [data[: 50 * KIB], data[50 * KIB :]], digest)
        writer = await self.store.write(digest)
        await writer.announce(KIB)
        with self.assertRaises(DigestMismatch):  # at once: nothing is reserved for more
            await writer.write(data)
        self.assertEqual(await self.store.used(), 0)

    async def test_unannounced(self) -> None:
        """Bytes whose number was not announced are not taken: nothing is reserved for them."""
        writer = await self.store.write(blob(10)[0])
        with self.assertRaises(ValueError):
            await writer.write(b"x")
        await writer.cancel()

    # -- interruption

    async def test_cancel(self) -> None:
        """A withdrawn fill leaves nothing, and its readers learn that they must stop."""
        writer, data = await self.started()
        reader = writer.open()
        self.addCleanup(reader.close)
        await writer.write(data[:1000])
        await until(reader, 1000)
        changed = reader.changed()
        await writer.cancel()
        await changed
        self.assertIs(reader.state, State.CANCELLED)
        with self.assertRaises(BlobMissing):
            await self.store.open(writer.digest)
        self.assertEqual(await self.store.used(), 0)
        await writer.cancel()
        await writer.release()
        for attempt in (writer.write(b"x"), writer.announce(1), writer.commit()):
            with self.assertRaises(StorageError):
                await attempt

    async def test_release_and_resume(self) -> None:
        """What a writer left is resumed by the next, and its readers go on as if nothing had happened."""
        writer, data = await self.started()
        reader = writer.open()
        following = Deferred.fromCoroutine(follow(reader))
        await writer.write(data[: 30 * KIB])
        await writer.release()
        self.assertIs(reader.state, State.RELEASED)
        with self.assertRaises(BlobMissing):  # there is nothing to wait for
            await self.store.open(writer.digest)
        again = await self.store.write(writer.digest)
        self.assertEqual((again.offset, again.size), (30 * KIB, len(data)))
        self.assertIs(reader.state, State.FILLING)
        await again.announce(len(data))
        await again.write(data[30 * KIB :])
        await again.commit()
        self.assertEqual(await following, data)
        self.assertEqual(await self.store.used(), len(data))

    async def test_resume_complete(self) -> None:
        """A fill that was interrupted after its last byte needs only to be committed."""
        writer, data = await self.started()
        await writer.write(data)
        await writer.release()
        again = await self.store.write(writer.digest)
        self.assertEqual(again.offset, len(data))
        await again.announce(len(data))
        await again.commit()
        self.assertEqual(await fetch(self.store, writer.digest), data)

    async def test_resume_wrong(self) -> None:
        """Bytes kept from an interrupted fill are verified too."""
        writer, data = await self.started()
        await writer.write(b"\0" * KIB)
        await writer.release()
        again = await self.store.write(writer.digest)
        await again.announce(len(data))
        await again.write(data[KIB:])
        with self.assertRaises(DigestMismatch):
            await again.commit()

    async def test_resume_with_other_size(self) -> None:
        """When the size turns out to be another, the kept bytes go; readers of them never see the new ones."""
        digest, data = blob(50 * KIB)
        writer = await self.store.write(digest)
        await writer.announce(60 * KIB)
        await writer.write(b"\0" * KIB)
        await writer.release()
        again = await self.store.write(digest)
        old = again.open()
        self.addCleanup(old.close)
        await again.announce(len(data))
        self.assertEqual((again.offset, again.size), (0, len(data)))
        self.assertIs(old.state, State.CANCELLED)
        await again.write(data)
        await again.commit()
        self.assertIs(old.state, State.CANCELLED)
        self.assertEqual(await fetch(self.store, digest), data)
        self.assertEqual(await self.store.used(), len(data))

    async def test_abandoned_write(self) -> None:
        """Who stops waiting for a claim does not leave it owned for ever."""
        digest, data = blob(KIB)
        claim = Deferred.fromCoroutine(self.store.write(digest))
        claim.cancel()
        with suppress(CancelledError):
            await (await claim).release()
        for _ in range(1000):
            try:
                await keep(self.store, digest, data)
                break
            except WriterBusy:
                await self.store.stat(digest)  # goes through the same threads
        self.assertEqual(await fetch(self.store, digest), data)

    async def test_busy(self) -> None:
        """A digest has one writer, and none once it is committed."""
        writer, data = await self.started()
        with self.assertRaises(WriterBusy):
            await self.store.write(writer.digest)
        await writer.write(data)
        await writer.commit()
        with self.assertRaises(WriterBusy):
            await self.store.write(writer.digest)
        await self.store.delete(writer.digest)
        await (await self.store.write(writer.digest)).cancel()

    async def test_claimed_once(self) -> None:
        """Of many who want to write a digest at the same moment, one may."""
        digest, _ = blob(10)
        claims = [Deferred.fromCoroutine(self.store.write(digest)) for _ in range(10)]
        outcomes = await DeferredList(claims, consumeErrors=True)
        writers = [outcome for success, outcome in outcomes if success]
        self.assertEqual(len(writers), 1)
        for success, outcome in outcomes:
            if not success:
                outcome.trap(WriterBusy)
        await writers[0].cancel()

    # -- deletion

    async def test_delete(self) -> None:
        """A deleted blob is gone for newcomers and goes on for who reads it; its bytes are free."""
        digest, data = blob(300 * KIB)
        await keep(self.store, digest, data)
        reader = await self.store.open(digest)
        self.addCleanup(reader.close)
        self.assertEqual(await reader.read(0, 10), data[:10])
        self.assertTrue(await self.store.delete(digest))
        self.assertEqual(await read_on(reader), data)
        with self.assertRaises(BlobMissing):
            await self.store.open(digest)
        self.assertFalse(await self.store.delete(digest))
        self.assertEqual(await self.store.used(), 0)

    async def test_fill_again_while_old_is_read(self) -> None:
        """A blob that was deleted while it is read can be filled again, and both readers are right."""
        digest, data = blob(50 * KIB)
        await keep(self.store, digest, data)
        old = await self.store.open(digest)
        self.addCleanup(old.close)
        await self.store.delete(digest)
        writer, _ = await self.started(50 * KIB)
        await writer.write(data[:KIB])
        new = await self.store.open(digest)
        self.addCleanup(new.close)
        self.assertEqual((old.state, new.state), (State.VERIFIED, State.FILLING))
        await writer.write(data[KIB:])
        await writer.commit()
        self.assertEqual((await read_on(old), await read_on(new)), (data, data))

    # -- bytes without a name

    async def test_scratch(self) -> None:
        """What was appended is read, from any offset and while more comes; it is no blob and not of the budget."""
        scratch, other = await self.store.scratch(), await self.store.scratch()
        self.addCleanup(other.close)
        await scratch.append(b"0123")
        self.assertEqual(await scratch.read(1, 2), b"12")
        await scratch.append(b"456789")
        await other.append(b"x")
        self.assertEqual(await scratch.read(0, 100), b"0123456789")
        self.assertEqual(await scratch.read(9, 100), b"9")
        self.assertEqual((await self.store.used(), [stat async for stat in self.store.list()]), (0, []))
        scratch.close()
        scratch.close()

    async def test_scratch_closed_at_work(self) -> None:
        """It may be closed while something is appended and read."""
        scratch = await self.store.scratch()
        await scratch.append(bytes(300 * KIB))
        works = [Deferred.fromCoroutine(work) for work in (scratch.append(b"x"), scratch.read(0, 300 * KIB))]
        scratch.close()
        for work in works:
            await work

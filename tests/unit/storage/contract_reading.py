"""What every store promises to readers: one blob, and one that is being filled."""

from __future__ import annotations

import os

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from docxy.names import Digest
from docxy.storage.interfaces import DigestMismatch, IBlobReader, IBlobStore, IBlobWriter, IScratch, State
from tests.unit.storage.contract import StoreCase
from tests.unit.storage.fixtures import KIB, blob, claim, fetch, follow, keep, opened, read_on, until


class ReadingContract(StoreCase):
    """Reading what is there."""

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
        reader = await opened(self.store, digest)
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
        self.assertIsNone(await self.store.open(Digest.of(data)))
        writer = await claim(self.store, blob(5000, 1, "sha512")[0])
        await writer.announce(5000)
        await writer.write(data)
        with self.assertRaises(DigestMismatch):
            await writer.commit()

    async def test_empty(self) -> None:
        """A blob of no bytes can be kept and read."""
        digest, _ = blob(0)
        writer = await claim(self.store, digest)
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
        self.assertIsNone(await self.store.open(digest))
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

    async def test_follow_while_filling(self) -> None:
        """A reader gets bytes as they are written, one that joins later too, and both get all of them."""
        writer, data = await self.started()
        first = await opened(self.store, writer.digest)
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
        reader = await opened(self.store, digest)
        descriptor = reader.fileno()
        if descriptor is not None:
            self.assertEqual(os.pread(descriptor, 100, 5000), data[5000:5100])
        reader.close()
        reader.close()
        self.assertIsNone(reader.fileno())

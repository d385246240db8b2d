"""What every store promises to writers: giving up and going on, deletion, bytes without a name."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.defer import CancelledError, Deferred

from docxy.storage.interfaces import DigestMismatch, State, StorageError
from tests.unit.storage.contract import StoreCase
from tests.unit.storage.fixtures import KIB, blob, busy, claim, fetch, follow, keep, opened, read_on, until


class WritingContract(StoreCase):
    """Writing, in pieces and again."""

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
        self.assertIs(reader.state, State.WITHDRAWN)
        self.assertIsNone(await self.store.open(writer.digest))
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
        self.assertIsNone(await self.store.open(writer.digest))
        again = await claim(self.store, writer.digest)
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
        again = await claim(self.store, writer.digest)
        self.assertEqual(again.offset, len(data))
        await again.announce(len(data))
        await again.commit()
        self.assertEqual(await fetch(self.store, writer.digest), data)

    async def test_resume_wrong(self) -> None:
        """Bytes kept from an interrupted fill are verified too."""
        writer, data = await self.started()
        await writer.write(b"\0" * KIB)
        await writer.release()
        again = await claim(self.store, writer.digest)
        await again.announce(len(data))
        await again.write(data[KIB:])
        with self.assertRaises(DigestMismatch):
            await again.commit()

    async def test_resume_with_other_size(self) -> None:
        """When the size turns out to be another, the kept bytes go; readers of them never see the new ones."""
        digest, data = blob(52 * KIB)
        writer = await claim(self.store, digest)
        await writer.announce(60 * KIB)
        await writer.write(b"\0" * KIB)
        await writer.release()
        again = await claim(self.store, digest)
        old = again.open()
        self.addCleanup(old.close)
        await again.announce(len(data))
        self.assertEqual((again.offset, again.size), (0, len(data)))
        self.assertIs(old.state, State.WITHDRAWN)
        await again.write(data)
        await again.commit()
        self.assertIs(old.state, State.WITHDRAWN)
        self.assertEqual(await fetch(self.store, digest), data)
        self.assertEqual(await self.store.used(), len(data))

    async def test_abandoned_write(self) -> None:
        """Who stops waiting for a claim does not leave it owned for ever."""
        digest, data = blob(KIB)
        joining = Deferred.fromCoroutine(self.store.join(digest))
        joining.cancel()
        with suppress(CancelledError):
            joined = await joining
            joined.reader.close()
            await joined.writer.release()
        while await busy(self.store, digest):
            await self.store.stat(digest)  # goes through the same threads
        await keep(self.store, digest, data)
        self.assertEqual(await fetch(self.store, digest), data)

    async def test_busy(self) -> None:
        """A digest has one writer, and none once it is committed."""
        writer, data = await self.started()
        self.assertTrue(await busy(self.store, writer.digest))
        await writer.write(data)
        await writer.commit()
        self.assertTrue(await busy(self.store, writer.digest))
        await self.store.delete(writer.digest)
        await (await claim(self.store, writer.digest)).cancel()

    async def test_claimed_once(self) -> None:
        """Of many who join a digest at the same moment one gets the writer, and all get the bytes."""
        digest, data = blob(10)
        joins = [Deferred.fromCoroutine(self.store.join(digest)) for _ in range(10)]
        joined = [await one for one in joins]
        (writer,) = [one.writer for one in joined if one.writer is not None]
        await writer.announce(len(data))
        await writer.write(data)
        await writer.commit()
        followed = [Deferred.fromCoroutine(follow(one.reader)) for one in joined]
        self.assertEqual([await one for one in followed], [data] * 10)

    async def test_delete(self) -> None:
        """A deleted blob is gone for newcomers and goes on for who reads it; its bytes are free."""
        digest, data = blob(300 * KIB)
        await keep(self.store, digest, data)
        reader = await opened(self.store, digest)
        self.addCleanup(reader.close)
        self.assertEqual(await reader.read(0, 10), data[:10])
        self.assertTrue(await self.store.delete(digest))
        self.assertEqual(await read_on(reader), data)
        self.assertIsNone(await self.store.open(digest))
        self.assertFalse(await self.store.delete(digest))
        self.assertEqual(await self.store.used(), 0)

    async def test_fill_again_while_old_is_read(self) -> None:
        """A blob that was deleted while it is read can be filled again, and both readers are right."""
        digest, data = blob(50 * KIB)
        await keep(self.store, digest, data)
        old = await opened(self.store, digest)
        self.addCleanup(old.close)
        await self.store.delete(digest)
        writer, _ = await self.started(50 * KIB)
        await writer.write(data[:KIB])
        new = await opened(self.store, digest)
        self.addCleanup(new.close)
        self.assertEqual((old.state, new.state), (State.VERIFIED, State.FILLING))
        await writer.write(data[KIB:])
        await writer.commit()
        self.assertEqual((await read_on(old), await read_on(new)), (data, data))

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

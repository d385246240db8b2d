"""What every store promises of bytes that are not those of their digest."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from docxy.names import Digest
from docxy.storage.interfaces import DigestMismatch, State
from tests.unit.storage.contract import StoreCase
from tests.unit.storage.fixtures import KIB, blob, claim, fetch, follow, keep, opened, read_on, until


class VerifyingContract(StoreCase):
    """Wrong bytes."""

    async def assert_mismatch(self, size: int, pieces: list[bytes], digest: Digest) -> None:
        writer = await claim(self.store, digest)
        await writer.announce(size)
        reader = writer.open()
        try:
            with self.assertRaises(DigestMismatch):
                for piece in pieces:
                    await writer.write(piece)
                await writer.commit()
            self.assertIs(reader.state, State.WRONG)
            self.assertLess(reader.readable, max(size, 1))
        finally:
            reader.close()
        await writer.cancel()  # safe after any failure
        self.assertIsNone(await self.store.open(digest))
        self.assertIsNone(await self.store.stat(digest))
        self.assertEqual(await self.store.used(), 0)
        writer = await claim(self.store, digest)
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
        writer = await claim(self.store, digest)
        await writer.announce(KIB)
        with self.assertRaises(DigestMismatch):  # at once: nothing is reserved for more
            await writer.write(data)
        self.assertEqual(await self.store.used(), 0)

    async def test_unannounced(self) -> None:
        """A blob of unknown size is read as it comes, but for its last byte; its digest says when it is whole."""
        digest, data = blob(100 * KIB)
        writer = await claim(self.store, digest)
        reader = writer.open()
        following = Deferred.fromCoroutine(follow(writer.open()))
        self.addCleanup(reader.close)
        await writer.write(data[:KIB])
        await until(reader, KIB - 1)
        self.assertEqual((reader.size, reader.readable), (None, KIB - 1))
        await writer.write(data[KIB:])
        await until(reader, len(data) - 1)
        self.assertEqual((reader.size, reader.readable), (None, len(data) - 1))
        await writer.commit()
        self.assertEqual((reader.size, reader.state), (len(data), State.VERIFIED))
        self.assertEqual(await following, data)
        self.assertEqual(await fetch(self.store, digest), data)

    async def test_unannounced_wrong(self) -> None:
        """Bytes of a blob whose size nobody knows are verified as all others: a cut body is never whole."""
        digest, data = blob(100 * KIB)
        writer = await claim(self.store, digest)
        reader = writer.open()
        self.addCleanup(reader.close)
        await writer.write(data[:-1])
        with self.assertRaises(DigestMismatch):
            await writer.commit()
        self.assertIs(reader.state, State.WRONG)
        self.assertLess(reader.readable, len(data) - 1)
        self.assertEqual(await self.store.used(), 0)

    async def test_nothing_came(self) -> None:
        """A fill that is given up before its first byte leaves nothing."""
        writer, _ = await self.started()
        reader = writer.open()
        self.addCleanup(reader.close)
        await writer.release()
        self.assertIs(reader.state, State.WITHDRAWN)
        self.assertEqual(await self.store.used(), 0)

    async def test_hash(self) -> None:
        """The hash of what was read so far can be had, to go on with elsewhere."""
        writer, data = await self.started()
        reader = writer.open()
        self.addCleanup(reader.close)
        await writer.write(data[: 50 * KIB])
        await until(reader, 50 * KIB)
        hasher = await reader.hashed(50 * KIB)
        hasher.update(data[50 * KIB :])
        self.assertTrue(writer.digest.matches(hasher))
        other = reader.again()
        self.assertTrue(reader.same(other))
        other.close()
        await writer.cancel()

    async def test_rejected(self) -> None:
        """Bytes that are found wrong are gone, and their readers learn that they are wrong, not only gone."""
        writer, data = await self.started()
        reader = writer.open()
        self.addCleanup(reader.close)
        await writer.write(data[:1000])
        await writer.reject()
        self.assertIs(reader.state, State.WRONG)
        self.assertIsNone(await self.store.open(writer.digest))
        self.assertEqual(await self.store.used(), 0)

    async def test_discard(self) -> None:
        """A writer may throw away what it resumed, and go on from the start; readers of that never see the new."""
        writer, data = await self.started()
        await writer.write(b"\0" * KIB)
        await writer.release()
        again = await claim(self.store, writer.digest)
        old = again.open()
        self.addCleanup(old.close)
        await again.discard()
        self.assertEqual((again.offset, again.size, old.state), (0, None, State.WITHDRAWN))
        await again.announce(len(data))
        await again.write(data)
        await again.commit()
        self.assertEqual(await fetch(self.store, writer.digest), data)

    async def test_another_reader(self) -> None:
        """A reader of the same bytes outlives the one it was made from."""
        digest, data = blob(100 * KIB)
        await keep(self.store, digest, data)
        first = await opened(self.store, digest)
        second = first.again()
        first.close()
        self.assertEqual(await read_on(second), data)
        second.close()

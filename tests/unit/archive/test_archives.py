"""What every archive does: the one in memory that tests share, and obstore's with its own store in memory."""

from __future__ import annotations

import tempfile
from typing import Any

from obstore import put
from obstore.store import MemoryStore
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import TestCase

from docxy.archive import objects
from docxy.archive.interfaces import ArchiveError, Found, IArchive
from docxy.archive.objects import Clients, ObjectArchive
from docxy.names import Digest
from tests.fakes.archive import MemoryArchive

reactor: Any = _reactor

BLOB = bytes(range(256)) * 100_000
DIGEST = Digest.of(BLOB)
OTHER = Digest.of(b"other")


async def whole(found: Found | None) -> bytes:
    """All that is read of it."""
    assert found is not None
    pieces = []
    while data := await found.body.read():
        pieces.append(data)
    found.body.close()
    return b"".join(pieces)


class Contract:
    """Of `IArchive`."""

    archive: IArchive

    def file(self: Any, data: bytes) -> int:
        """A descriptor of a file of these bytes."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the test's cleanup)
        self.addCleanup(file.close)
        file.write(data)
        file.flush()
        return file.fileno()

    async def test_blob(self: Any) -> None:
        """What was put is read from any byte on; to put it again does nothing, and what was dropped is gone."""
        self.assertIsNone(await self.archive.open(DIGEST, 0))
        self.assertTrue(await self.archive.put(DIGEST, self.file(BLOB), len(BLOB)))
        self.assertFalse(await self.archive.put(DIGEST, self.file(BLOB), len(BLOB)))
        for first in (0, 1, 20_000_000, len(BLOB) - 1):
            found = await self.archive.open(DIGEST, first)
            self.assertEqual(found.size, len(BLOB))
            self.assertEqual(await whole(found) == BLOB[first:], True)
        self.assertIsNone(await self.archive.open(OTHER, 0))
        await self.archive.drop(DIGEST)
        self.assertIsNone(await self.archive.open(DIGEST, 0))

    async def test_replaced(self: Any) -> None:
        """What is there with another size is not the blob: it is put over it."""
        await self.archive.put(DIGEST, self.file(b"cut"), 3)
        self.assertTrue(await self.archive.put(DIGEST, self.file(BLOB), len(BLOB)))
        self.assertEqual(await whole(await self.archive.open(DIGEST, 0)) == BLOB, True)

    async def test_records(self: Any) -> None:
        """The last one to write a record wins."""
        name = "tags/docker.io/library/alpine/latest"
        self.assertIsNone(await self.archive.record(name))
        for data in (b"one", b"two"):
            await self.archive.put_record(name, data)
            self.assertEqual(await self.archive.record(name), data)


class InMemory(Contract, TestCase):
    def setUp(self) -> None:
        self.archive = MemoryArchive()


class Objects(Contract, TestCase):
    rate: int | None = None

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.objects = ObjectArchive("memory", self.connect, self.rate, reactor, reactor)
        self.archive = self.objects
        self.objects.startService()
        self.addCleanup(self.objects.stopService)

    def connect(self) -> Clients:
        return Clients(self.store, self.store)

    async def test_ranges(self) -> None:
        """A blob is asked for in ranges, one after the other."""
        self.patch(objects, "PART", 7_000_000)
        asked: list[tuple[int, int]] = []
        real = objects.get

        def get(store: object, key: str, options: dict[str, Any]) -> object:
            asked.append(options["range"])
            return real(store, key, options=options)

        self.patch(objects, "get", get)
        await self.objects.put(DIGEST, self.file(BLOB), len(BLOB))
        self.assertEqual(await whole(await self.objects.open(DIGEST, 5)) == BLOB[5:], True)
        starts = [first for first, _ in asked]
        self.assertEqual(starts, [5, 7_000_005, 14_000_005, 21_000_005])

    async def test_key(self) -> None:
        """Blobs lie under their digest, apart by its first byte."""
        await self.objects.put(DIGEST, self.file(BLOB), len(BLOB))
        key = f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}"
        self.assertEqual(objects.head(self.store, key)["size"], len(BLOB))

    async def test_cut_file(self) -> None:
        """A file that ends too soon leaves nothing."""
        with self.assertRaises(ArchiveError):
            await self.objects.put(DIGEST, self.file(BLOB), len(BLOB) + 1)
        self.assertIsNone(await self.objects.open(DIGEST, 0))

    async def test_large_record(self) -> None:
        """A record that docxy did not write is not read into memory."""
        put(self.store, "tags/x", bytes(objects.MAX_RECORD + 1))
        self.assertIsNone(await self.objects.record("tags/x"))

    async def test_unusable(self) -> None:
        """A store that cannot be made says why when it is asked, and keeps nothing from starting."""

        def connect() -> Clients:
            raise ValueError("no such region")

        archive = ObjectArchive("s3://x", connect, None, reactor, reactor)
        archive.startService()
        self.addCleanup(archive.stopService)
        with self.assertRaisesRegex(ArchiveError, r"^s3://x cannot be used: no such region$"):
            await archive.open(DIGEST, 0)

    async def test_breaking(self) -> None:
        """A range that breaks off is asked for again from where it did; after three in a row it is given up."""
        self.patch(objects, "_PAUSE", 0.0)
        await self.objects.put(DIGEST, self.file(BLOB), len(BLOB))
        real, failures = objects.RangeReader.next, [3]

        def breaking(part: objects.RangeReader) -> bytes:
            if failures[0]:
                failures[0] -= 1
                raise OSError("reset")
            return real(part)

        self.patch(objects.RangeReader, "next", breaking)
        found = await self.objects.open(DIGEST, 0)
        assert found is not None
        with self.assertRaisesRegex(Exception, "the archive broke off after 0 bytes"):
            await found.body.read()
        failures[0] = 2
        self.assertEqual(await whole(await self.objects.open(DIGEST, 0)) == BLOB, True)


class AtARate(Objects):
    """With a rate that a put does not reach within a test."""

    rate = 1 << 40

    async def test_stop(self) -> None:
        """The stop ends a put that takes long, and nothing of it is kept; then nothing can be asked."""
        self.objects._rate = 1  # a byte a second
        loop, real = self.objects._stopping, self.objects._stopping.wait
        waits: Deferred[None] = Deferred()

        def wait(timeout: float) -> bool:
            reactor.callFromThread(waits.callback, None)
            return real(timeout)

        self.patch(loop, "wait", wait)
        putting = Deferred.fromCoroutine(self.objects.put(DIGEST, self.file(BLOB), len(BLOB)))
        await DeferredList([waits, putting], fireOnOneCallback=True, fireOnOneErrback=True)
        stopped = self.objects.stopService()
        with self.assertRaisesRegex(ArchiveError, "docxy stops"):
            await putting
        await stopped
        with self.assertRaises(FileNotFoundError):
            objects.head(self.store, f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}")
        with self.assertRaises(ArchiveError):
            await self.objects.record("x")

"""A store that fails: pulls go on without it, with the right bytes."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from docxy.names import Digest
from docxy.pull.blobs import parallel
from docxy.settings.model import AuthMode
from docxy.storage.interfaces import (
    BlobStat,
    IBlobReader,
    IBlobStore,
    IBlobWriter,
    IScratch,
    Joined,
    NoSpace,
    Pinned,
    State,
    StorageError,
)
from docxy.storage.memory import MemoryStore
from tests.fakes import Fault, Pattern
from tests.unit.pull.harness import BUDGET, REPOSITORY, MirrorCase, drain, reactor

MIB = 1 << 20
BLOB = Pattern(3 * MIB)
WHOLE = BLOB.read(0, BLOB.size)


@define
class Plan:
    """What fails, by name; offsets in bytes."""

    claim: bool = False
    announce: bool = False
    write_from: int | None = None
    commit: bool = False
    open: bool = False
    read_from: int | None = None
    delete: bool = False
    scratch: bool = False


@implementer(IBlobReader)
@define(eq=False)
class FailingReader:
    _reader: IBlobReader
    _plan: Plan

    @property
    def digest(self) -> Digest:
        return self._reader.digest

    @property
    def size(self) -> int | None:
        return self._reader.size

    @property
    def readable(self) -> int:
        return self._reader.readable

    @property
    def state(self) -> State:
        return self._reader.state

    async def read(self, offset: int, length: int) -> bytes:
        if self._plan.read_from is not None and offset >= self._plan.read_from:
            raise StorageError("the disk cannot be read")
        return await self._reader.read(offset, length)

    def changed(self) -> Deferred[None]:
        return self._reader.changed()

    async def hashed(self, count: int) -> Any:
        if self._plan.read_from is not None and count > self._plan.read_from:
            raise StorageError("the disk cannot be read")
        return await self._reader.hashed(count)

    def same(self, other: IBlobReader) -> bool:
        return isinstance(other, FailingReader) and self._reader.same(other._reader)

    def again(self) -> IBlobReader:
        return FailingReader(self._reader.again(), self._plan)

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        self._reader.close()


@implementer(IBlobWriter)
@define(eq=False)
class FailingWriter:
    _writer: IBlobWriter
    _plan: Plan

    @property
    def digest(self) -> Digest:
        return self._writer.digest

    @property
    def offset(self) -> int:
        return self._writer.offset

    @property
    def size(self) -> int | None:
        return self._writer.size

    async def announce(self, size: int) -> None:
        if self._plan.announce:
            raise NoSpace("there is no room")
        await self._writer.announce(size)

    async def write(self, data: bytes) -> None:
        if self._plan.write_from is not None and self.offset >= self._plan.write_from:
            raise NoSpace("the disk is full")
        await self._writer.write(data)

    async def commit(self) -> None:
        if self._plan.commit:
            raise StorageError("the disk cannot be written")
        await self._writer.commit()

    async def discard(self) -> None:
        await self._writer.discard()

    async def reject(self) -> None:
        await self._writer.reject()

    async def cancel(self) -> None:
        await self._writer.cancel()

    async def release(self) -> None:
        await self._writer.release()

    def open(self) -> IBlobReader:
        return FailingReader(self._writer.open(), self._plan)


@implementer(IBlobStore)
@define(eq=False)
class FailingStore:
    """A store, but for what the plan says."""

    plan: Plan
    _store: IBlobStore

    async def stat(self, digest: Digest) -> BlobStat | None:
        return await self._store.stat(digest)

    def touch(self, digest: Digest) -> None:
        self._store.touch(digest)

    async def pin(self, digests: Sequence[Digest]) -> Pinned:
        return await self._store.pin(digests)

    def remember(self, digest: Digest, until: float, parts: Sequence[Digest]) -> None:
        self._store.remember(digest, until, parts)

    def belongs(self, digest: Digest, parts: Sequence[Digest]) -> None:
        self._store.belongs(digest, parts)

    async def open(self, digest: Digest) -> IBlobReader | None:
        if self.plan.open:
            raise StorageError("the disk cannot be read")
        reader = await self._store.open(digest)
        return None if reader is None else FailingReader(reader, self.plan)

    async def join(self, digest: Digest) -> Joined:
        if self.plan.open or self.plan.claim:
            raise StorageError("the disk is read-only")
        joined = await self._store.join(digest)
        writer = None if joined.writer is None else FailingWriter(joined.writer, self.plan)
        return Joined(FailingReader(joined.reader, self.plan), writer)

    async def delete(self, digest: Digest) -> bool:
        if self.plan.delete:
            raise StorageError("the disk is read-only")
        return await self._store.delete(digest)

    async def scratch(self) -> IScratch:
        if self.plan.scratch:
            raise StorageError("the disk is read-only")
        return await self._store.scratch()

    def list(self):  # type: ignore[no-untyped-def]  # nobody lists here
        return self._store.list()


class Failing(MirrorCase):
    fetch_connections = 4

    def make_store(self) -> IBlobStore:
        self.plan = Plan()
        return FailingStore(self.plan, MemoryStore(BUDGET, reactor))

    async def three(self, digest: Digest) -> set[str]:
        """Three clients at once get the right bytes; their Cache-Status."""
        answers = await gatherResults([Deferred.fromCoroutine(self.mirror.blob(digest)) for _ in range(3)])
        self.assertEqual({each.body == WHOLE for each in answers}, {True})
        return {each.cache_status for each in answers}

    async def test_claim(self) -> None:
        """A read-only cache: every pull is direct."""
        self.plan.claim = True
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.assertEqual(await self.three(digest), {"docxy; fwd=bypass"})
        self.saw(GET_blob=3)

    async def test_announce(self) -> None:
        """No room for the blob: pulls are direct, and for a while no room is looked for again."""
        self.plan.announce = True
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.assertEqual(await self.three(digest), {"docxy; fwd=bypass"})
        self.saw(GET_blob=4)
        await self.mirror.blob(digest)
        self.saw(GET_blob=1)

    async def test_too_large(self) -> None:
        """A blob larger than the whole budget is passed through."""
        mirror = self.start(store=MemoryStore(MIB, reactor))
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.assertEqual((await mirror.blob(digest)).body, WHOLE)

    async def test_write(self) -> None:
        """The disk fills up in the middle of a fill: those who follow go on with the upstream where they were."""
        self.plan.write_from = MIB
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.assertEqual(await self.three(digest), {"docxy; fwd=miss; stored", "docxy; fwd=miss; collapsed"})
        first, *rest = self.upstream.select("blob")
        self.assertNotIn("range", first.headers)
        self.assertEqual(len(rest), 3)
        self.assertTrue(
            all(int(each.headers["range"].removeprefix("bytes=").partition("-")[0]) >= MIB for each in rest)
        )
        self.upstream.requests.clear()
        self.assertEqual((await self.mirror.blob(digest)).body, WHOLE)
        self.saw(GET_blob=1)

    async def test_write_without_ranges(self) -> None:
        """The same where the upstream only sends the whole: what the client has is skipped."""
        self.plan.write_from = MIB
        self.upstream.ranges = False
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.three(digest)

    async def test_commit(self) -> None:
        """The disk fails at the very end: clients get their last bytes all the same."""
        self.plan.commit = True
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.three(digest)
        self.assertEqual([each.headers.get("range") for each in self.upstream.select("blob")][1:], [LAST] * 3)

    async def test_read(self) -> None:
        """A cached blob that cannot be read any more in the middle: its client goes on with the upstream."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.mirror.blob(digest)
        self.plan.read_from = MIB
        self.upstream.requests.clear()
        self.assertEqual((await self.mirror.blob(digest)).body, WHOLE)
        self.assertEqual(self.upstream.select("blob")[0].headers["range"], f"bytes={MIB}-{BLOB.size - 1}")
        self.saw(GET_blob=1)

    async def test_open(self) -> None:
        """A cache that cannot be opened: pulls are direct, ranges too."""
        self.plan.open = True
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.three(digest)
        answer = await self.mirror.blob(digest, asked="bytes=5-9")
        self.assertEqual((answer.status, answer.body), (206, WHOLE[5:10]))

    async def test_manifest(self) -> None:
        """Manifests are served whatever the store does with them."""
        digest = self.upstream.add_image(REPOSITORY)
        for plan in (Plan(claim=True), Plan(announce=True), Plan(write_from=0), Plan(commit=True), Plan(open=True)):
            mirror = self.start(store=FailingStore(plan, MemoryStore(BUDGET, reactor)), catalog=self.make_catalog())
            for reference in ("latest", digest):
                self.assertEqual((await mirror.manifest(reference)).header("Docker-Content-Digest"), str(digest))

    async def test_damaged_undeletable(self) -> None:
        """A damaged manifest that cannot even be deleted is fetched."""
        digest = self.upstream.add_image(REPOSITORY)
        good = (await self.mirror.manifest(digest)).body
        self.store._store._held[digest].data[3] ^= 1  # type: ignore[attr-defined]  # a bit flips on disk
        self.plan.delete = True
        self.assertEqual((await self.start().manifest(digest)).body, good)
        self.saw(GET_manifest=2)

    async def test_catalog(self) -> None:
        """With a catalog that keeps nothing everything is served, by asking the upstream each time."""
        catalog = self.open_catalog(self.mktemp())
        await catalog.close()
        image = self.upstream.add_image(REPOSITORY)
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        for auth in AuthMode:
            mirror = self.start(catalog=catalog, auth=auth)
            for _ in range(2):
                for reference in ("latest", image):
                    self.assertEqual((await mirror.manifest(reference)).status, 200)
                self.assertEqual((await mirror.blob(digest)).body, WHOLE)
                await drain(mirror, digest)
                self.assertEqual((await mirror.ask(f"/v2/{REPOSITORY}/tags/list")).status, 200)
        self.assertLess(len(self.upstream.requests), 40)
        self.flushLoggedErrors()

    async def test_scratch(self) -> None:
        """Where nothing can be kept ahead, one connection fetches all of the blob, and it is kept."""
        self.patch(parallel, "LARGE", MIB)
        self.patch(parallel, "SMALLEST", MIB // 4)
        self.patch(parallel, "STEP", 0.0)
        self.patch(parallel, "WORTH", 0.0)
        self.plan.scratch = True
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.three(digest)
        self.saw(GET_blob=2)
        self.assertEqual((await self.mirror.blob(digest)).cache_status, "docxy; hit")
        self.saw()

    async def test_wrong_bytes(self) -> None:
        """Wrong bytes on the direct way are found too: the last one is withheld."""
        self.plan.claim = True
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(flip=5))
        self.assertLess(await self.mirror.cut(f"/v2/{REPOSITORY}/blobs/{digest}"), BLOB.size)


LAST = f"bytes={BLOB.size - 1}-{BLOB.size - 1}"

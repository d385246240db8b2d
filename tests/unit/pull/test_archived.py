"""Nodes that share an archive: what one fetched, another does not fetch from the registry."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from docxy.archive import calm
from docxy.archive.calm import CalmArchive
from docxy.daemon import archiving
from docxy.daemon.archiving import OpenArchive
from docxy.names import Digest
from docxy.pull.putting import ATTEMPTS, RESTS_FOR, Putting
from docxy.settings.model import AuthMode
from docxy.storage.filesystem import FilesystemStore
from tests.fakes import Auth, Fault, Pattern
from tests.fakes.archive import MemoryArchive
from tests.unit.pull.harness import BUDGET, REPOSITORY, Mirror, MirrorCase, drain, reactor
from tests.unit.pull.test_sizes import IMAGE, manifest_of
from tests.unit.storage.fixtures import count_blobs_only, in_thread

MIB = 1 << 20
BLOB = Pattern(2 * MIB + 5)
WHOLE = BLOB.read(0, BLOB.size)
ARCHIVED = "docxy; fwd=miss; stored; detail=archive"
MISS = "docxy; fwd=miss; stored"


class ArchiveCase(MirrorCase):
    """`self.mirror` is a node whose cache is new, behind which is an archive."""

    def make_store(self) -> FilesystemStore:
        count_blobs_only(self)
        # A mirror's own rounds would race with those of the tests.
        self.patch(archiving, "PUT_INTERVAL", 1e6)
        self.archive = MemoryArchive()
        self.disk = self.new_store()
        return self.disk

    def new_store(self) -> FilesystemStore:
        store = FilesystemStore(self.mktemp(), BUDGET, reactor, in_thread())
        store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "archive": OpenArchive(self.archive, Service())}

    async def put(self, store: FilesystemStore | None = None) -> Putting:
        """Put what a cache has."""
        store = store or self.disk
        putting = Putting(CalmArchive(self.archive, reactor), store, store.ledger, 2, reactor)
        await putting.work()
        return putting

    def reads(self) -> list[str]:
        """What of blobs was asked of the archive."""
        return [asked for asked in self.archive.asked if asked.startswith("read ")]

    async def kept(self, digest: Digest) -> bool:
        return await self.disk.stat(digest) is not None

    def archived(self) -> Digest:
        """A blob that the registry and the archive have."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.archive.blobs[digest] = WHOLE
        return digest

    async def pull(self, digest: Digest, status: str, mirror: Mirror | None = None) -> None:
        """The blob comes whole, with this Cache-Status; its fill has ended."""
        mirror = mirror or self.mirror
        answer = await mirror.blob(digest)
        self.assertEqual((answer.status, answer.cache_status), (200, status))
        self.assertEqual(answer.body == WHOLE, True)
        await drain(mirror, digest)


class Nodes(ArchiveCase):
    """The archive works."""

    async def test_shared(self) -> None:
        """What one node fetched and put comes to another from the archive; the registry says that it is there."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.pull(digest, MISS)
        await self.put()
        self.assertEqual(self.archive.blobs.keys() == {digest}, True)
        self.saw(GET_blob=1)
        other = self.start(store=self.new_store(), catalog=self.open_catalog(self.mktemp()))
        self.archive.asked.clear()
        await self.pull(digest, ARCHIVED, other)
        (asked,) = self.upstream.select("blob")
        self.assertEqual(asked.headers.get("range"), "bytes=0-0")
        self.assertEqual(self.reads(), [f"read {digest}"])

    async def test_one_request(self) -> None:
        """A hit costs no request to the archive, and those who ask at once cost one."""
        digest = self.archived()
        first = Deferred.fromCoroutine(self.mirror.blob(digest))
        second = Deferred.fromCoroutine(self.mirror.blob(digest))
        self.assertEqual([(await each).body == WHOLE for each in (first, second)], [True, True])
        await drain(self.mirror, digest)
        await self.pull(digest, "docxy; hit")
        self.assertEqual(self.reads(), [f"read {digest}"])

    async def test_not_put_back(self) -> None:
        """What came from the archive is not put there again, and what was put is not, after a restart either."""
        digest = self.archived()
        noted: Deferred[None] = Deferred()
        real = self.disk.ledger.note

        async def note(digest: Digest, archived: bool) -> None:
            await real(digest, archived)
            noted.callback(None)

        with mock.patch.object(self.disk.ledger, "note", note):
            await self.pull(digest, ARCHIVED)
            await noted
        self.archive.asked.clear()
        await self.put()
        other = self.upstream.add_blob(REPOSITORY, Pattern(MIB))
        await self.mirror.blob(other)
        await drain(self.mirror, other)
        for _ in range(2):
            await self.put()
        self.assertEqual([each for each in self.archive.asked if "put" in each], [f"put {other}"])

    async def test_resumed(self) -> None:
        """An interrupted fill goes on with the archive's bytes from where it was."""
        digest = self.archived()
        joined = await self.disk.join(digest)
        joined.reader.close()
        assert joined.writer is not None
        await joined.writer.announce(BLOB.size)
        await joined.writer.write(WHOLE[:MIB])
        await joined.writer.release()
        await self.pull(digest, ARCHIVED)
        self.assertEqual([each.headers.get("range") for each in self.upstream.select("blob")], ["bytes=0-0"])

    async def test_broken_off(self) -> None:
        """Where the archive breaks off, the registry sends the rest, and only that."""
        digest = self.archived()
        self.archive.cut = MIB
        await self.pull(digest, ARCHIVED)
        self.assertEqual(
            [each.headers.get("range") for each in self.upstream.select("blob")], ["bytes=0-0", f"bytes={MIB}-"]
        )

    async def test_other_repository(self) -> None:
        """The archive gives nothing away that the registry does not show under the repository."""
        digest = self.archived()
        self.assertEqual((await self.mirror.blob(digest, repository="team/other")).status, 404)
        self.assertFalse(await self.kept(digest))

    async def test_outage(self) -> None:
        """While the registry is down, a blob comes from the archive where a manifest of the repository lists it."""
        digest = self.archived()
        unlisted = self.upstream.add_blob(REPOSITORY, Pattern(MIB))
        self.archive.blobs[unlisted] = Pattern(MIB).read(0, MIB)
        manifest = self.upstream.add_manifest(REPOSITORY, None, manifest_of(digest, BLOB.size), IMAGE)
        await self.mirror.manifest(manifest)
        self.upstream.on("blob", Fault(status=503), times=None)
        await self.pull(digest, ARCHIVED)
        self.assertEqual((await self.mirror.blob(unlisted)).status, 503)
        self.assertEqual((await self.mirror.blob(digest, repository="team/other")).status, 503)


class Private(ArchiveCase):
    """Clients have accounts of their own."""

    auth = AuthMode.TRANSPARENT

    async def test_private(self) -> None:
        """Nobody gets a private blob from the archive without the registry's word, and none while it is down."""
        self.upstream.auth = Auth("bearer", accounts={"ann": "secret"}, private={REPOSITORY})
        digest = self.archived()
        answer = await self.mirror.blob(digest)
        self.assertEqual(answer.status, 401)
        self.upstream.on("blob", Fault(status=503), times=None)
        self.upstream.on("ping", Fault(status=503), times=None)
        self.assertIn((await self.mirror.blob(digest)).status, (401, 502, 503))
        self.assertFalse(await self.kept(digest))


class Fails(ArchiveCase):
    """The archive does not work."""

    async def test_down(self) -> None:
        """It fails: pulls go on, it is left alone for a while, and the operator is told once."""
        self.archive.failing = True
        with capturedLogs() as logs:
            for seed in range(3):
                digest = self.upstream.add_blob(REPOSITORY, Pattern(MIB + seed))
                self.assertEqual((await self.mirror.blob(digest)).status, 200)
                await drain(self.mirror, digest)
        told = [each for each in logs if "degraded" in str(each.get("log_format"))]
        self.assertEqual(len(told), 1)
        self.assertEqual(len(self.reads()), 1)

    async def test_silent(self) -> None:
        """It does not answer: a client waits no longer than the bound, and the next one does not wait."""
        self.patch(calm, "ANSWER_WITHIN", 0.2)
        self.archive.silent = True
        digest = self.archived()
        await self.pull(digest, MISS)
        other = self.upstream.add_blob(REPOSITORY, Pattern(MIB))
        await self.mirror.blob(other)
        self.assertEqual(self.reads(), [f"read {digest}"])

    async def test_wrong_bytes(self) -> None:
        """Wrong bytes never become a whole answer; they are removed there, and the registry's come."""
        digest = self.archived()
        self.archive.blobs[digest] = WHOLE[:-1] + bytes([WHOLE[-1] ^ 1])
        dropped = self.gone(digest)
        self.assertLess(await self.mirror.cut(f"/v2/{REPOSITORY}/blobs/{digest}"), BLOB.size)
        await drain(self.mirror, digest)
        await dropped
        self.assertNotIn(digest, self.archive.blobs)
        await self.pull(digest, MISS)
        await self.put()
        self.assertEqual(self.archive.blobs[digest] == WHOLE, True)

    async def gone(self, digest: Digest) -> None:
        """The archive was asked to drop the blob."""
        while f"drop {digest}" not in self.archive.asked:
            await self.archive.next()

    async def test_wrong_size(self) -> None:
        """A blob of another size than a manifest lists is not used, nor removed: the manifest may be wrong."""
        digest = self.archived()
        manifest = self.upstream.add_manifest(REPOSITORY, None, manifest_of(digest, BLOB.size), IMAGE)
        await self.mirror.manifest(manifest)
        self.archive.blobs[digest] = WHOLE[:-1]
        await self.pull(digest, MISS)
        self.assertIn(digest, self.archive.blobs)


class Puts(ArchiveCase):
    """What is put when the archive does not take it."""

    async def cached(self, *sizes: int) -> list[Digest]:
        found = []
        for size in sizes:
            digest = self.upstream.add_blob(REPOSITORY, Pattern(size))
            await self.mirror.blob(digest)
            await drain(self.mirror, digest)
            found.append(digest)
        return found

    async def test_down(self) -> None:
        """One that fails ends the round; a later one goes on, also in another process."""
        first, second = await self.cached(MIB, MIB + 1)
        self.archive.failing = True
        putting = await self.put()
        self.assertEqual(putting.waiting, 2)
        self.archive.asked.clear()
        await putting.work()
        self.assertEqual(self.archive.asked, [])
        self.archive.failing = False
        self.assertEqual((await self.put()).waiting, 0)
        self.assertEqual(self.archive.blobs.keys(), {first, second})

    async def test_refused(self) -> None:
        """A blob that is refused again and again keeps no other one from being put, and rests."""
        clock = Clock()
        one, two, three = await self.cached(MIB, MIB + 1, MIB + 2)
        self.archive.refused.add(min(one, two, three, key=str))
        putting = Putting(CalmArchive(self.archive, clock), self.disk, self.disk.ledger, 1, clock)
        for _ in range(ATTEMPTS + 1):
            await putting.work()
            clock.advance(600.0)
        self.assertEqual(len(self.archive.blobs), 2)
        self.archive.asked.clear()
        await putting.work()
        self.assertEqual(self.archive.asked, [])
        clock.advance(RESTS_FOR)
        self.archive.refused.clear()
        await putting.work()
        self.assertEqual(len(self.archive.blobs), 3)

    async def test_bound(self) -> None:
        """No more are put at once than were asked for; those that had begun when docxy stops are the last."""
        await self.cached(MIB, MIB + 1, MIB + 2, MIB + 3, MIB + 4)
        self.archive.held = held = []
        putting = Putting(CalmArchive(self.archive, reactor), self.disk, self.disk.ledger, 2, reactor)
        working = Deferred.fromCoroutine(putting.work())
        while len(held) < 2:
            await self.archive.next()
        putting.stop()
        self.archive.held = None
        for each in held:
            each.callback(None)
        await working
        self.assertEqual(len(self.archive.blobs), 2)

    async def test_evicted(self) -> None:
        """What is gone from the cache meanwhile is not put."""
        (digest,) = await self.cached(MIB)
        await self.disk.delete(digest)
        await self.put()
        self.assertEqual(self.archive.blobs, {})

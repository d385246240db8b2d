"""Two docxys on one directory: what one does, the other need not.

They live in one process here, which shows what files and locks say of each other's work; that
processes die is shown elsewhere.
"""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os

from twisted.internet.defer import Deferred, gatherResults

from docxy.catalog.sqlite import SqliteCatalog
from docxy.settings.model import AuthMode
from docxy.storage.filesystem import FilesystemStore
from tests.fakes import Auth, Fault, Pattern
from tests.unit.pull.harness import BUDGET, REPOSITORY, Mirror, MirrorCase, drain, reactor
from tests.unit.storage.fixtures import in_thread

MIB = 1 << 20
BLOB = Pattern(3 * MIB)


class Two(MirrorCase):
    auth = AuthMode.NONE

    async def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        await super().setUp()
        self.other = self.start(store=self.make_store(), catalog=self.make_catalog())

    def make_store(self) -> FilesystemStore:
        store = FilesystemStore(self.directory, BUDGET, reactor, in_thread())
        store.start()
        self.addCleanup(store.stop)
        return store

    def make_catalog(self) -> SqliteCatalog:
        """Each its own, of one file."""
        return self.open_catalog(self.directory)

    async def test_one_fill(self) -> None:
        """A client of the second follows the first one's fill as it grows; after it both have a hit."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        first = await self.mirror.stream(path, keep=False)
        second = await self.other.stream(path, keep=False)
        await gatherResults([each.client.reached(MIB) for each in (first, second)])
        self.assertEqual([first.client.received, second.client.received], [MIB, MIB])
        # Each counts its own clients.
        followers = [each.fills.followers for each in (self.mirror, self.other)]
        self.assertEqual([each.counted() for each in followers], [{digest: 1}] * 2)
        rule.release()
        await gatherResults([each.client.ended for each in (first, second)])
        self.assertEqual([first.client.digest, second.client.digest], [str(digest)] * 2)
        self.assertEqual(second.cache_status, "docxy; fwd=miss; collapsed")
        self.assertEqual([each.counted() for each in followers], [{}] * 2)
        await drain(self.mirror, digest)
        for mirror in (self.mirror, self.other):
            self.assertEqual((await mirror.blob(digest)).cache_status, "docxy; hit")
        self.assertEqual(self.upstream.blob_bytes_sent, BLOB.size)
        self.saw(GET_blob=1)

    async def test_at_once(self) -> None:
        """Many clients of both at the same moment: one fill."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        mirrors: list[Mirror] = [self.mirror, self.other] * 10
        answers = await gatherResults([Deferred.fromCoroutine(each.blob(digest)) for each in mirrors])
        self.assertEqual({each.body == BLOB.read(0, BLOB.size) for each in answers}, {True})
        self.saw(GET_blob=1)

    async def test_taken_over(self) -> None:
        """When the first is stopped in the middle of a fill, the second takes over what is there for its client."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.upstream.on("blob", Fault(stall_after=MIB))
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        first = await self.mirror.stream(path, keep=False)
        await first.client.reached(MIB)
        second = await self.other.stream(path, keep=False)
        await second.client.reached(MIB)
        first.client.vanish()
        await first.client.ended
        await self.mirror.stop()
        await second.client.ended
        self.assertEqual(second.client.digest, str(digest))
        self.assertEqual(self.upstream.select("blob")[1].headers.get("range"), f"bytes={MIB}-")
        self.assertEqual(self.upstream.blob_bytes_sent - self.upstream.select("blob")[0].sent, 2 * MIB)
        await drain(self.other, digest)

    async def test_one_revalidation(self) -> None:
        """A tag that is stale for both is asked about once; cold, it is fetched once."""
        self.upstream.add_image(REPOSITORY)
        mirrors = [self.mirror, self.other] * 5
        for expected in ({"GET_manifest": 1}, {"HEAD_manifest": 1}):
            answers = await gatherResults([Deferred.fromCoroutine(each.manifest("latest")) for each in mirrors])
            self.assertEqual({each.status for each in answers}, {200})
            self.saw(**expected)
            self.seconds.advance(61)

    async def test_one_failure(self) -> None:
        """A failing upstream is found out by one of them."""
        self.upstream.add_image(REPOSITORY)
        await self.mirror.manifest("latest")
        self.seconds.advance(61)
        self.upstream.requests.clear()
        self.upstream.on("manifest", Fault(status=502), times=None)
        mirrors = [self.mirror, self.other] * 5
        answers = await gatherResults([Deferred.fromCoroutine(each.manifest("latest")) for each in mirrors])
        self.assertEqual({each.status for each in answers}, {200})
        # Asked once more, as every first failure.
        self.saw(HEAD_manifest=2)


class TransparentTwo(Two):
    """The same with the clients' own tokens, after a manifest of the repository."""

    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.add_image(REPOSITORY, "first")
        await self.mirror.manifest("first")
        self.upstream.requests.clear()

    async def test_one_verdict(self) -> None:
        """A verdict of one serves both, as does a pass's key."""
        self.upstream.auth = Auth("bearer")
        token = str((await self.mirror.token()).json["token"])
        await self.mirror.manifest("first", token)
        self.upstream.requests.clear()
        self.assertEqual((await self.other.manifest("first", token)).status, 200)
        self.saw()
        self.upstream.on("token", Fault(status=503), times=None)
        await self.other.ask("/v2/")
        given = str((await self.other.token()).json["token"])
        self.assertEqual((await self.mirror.manifest("first", given)).status, 200)

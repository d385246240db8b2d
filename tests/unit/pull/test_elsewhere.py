"""Clients that are sent to the archive for a blob, and those who are not."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from docxy.names import Digest
from docxy.orders.model import Kind, Order
from docxy.orders.store import MemoryOrders
from docxy.pull.blobs.elsewhere import FROM
from docxy.pull.gates import gates
from docxy.settings.model import AuthMode, Redirect
from tests.fakes import Auth, Fault, Pattern
from tests.harness.client import Answer
from tests.unit.pull.harness import REPOSITORY, drain, reactor
from tests.unit.pull.test_archived import BLOB, MISS, WHOLE, ArchiveCase
from tests.unit.pull.test_sizes import IMAGE, manifest_of

AWAY = "docxy; hit; detail=redirect"


class RedirectCase(ArchiveCase):
    redirect = Redirect.COLD

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "redirect": self.redirect}

    async def away(self, digest: Digest, **asked: Any) -> None:
        """The client is sent to the archive, by an answer that nobody keeps; docxy fetches nothing."""
        answer = await self.mirror.blob(digest, **asked)
        self.assertEqual((answer.status, answer.cache_status, answer.body), (307, AWAY, b""))
        self.assertEqual(answer.header("Location"), f"https://bucket.test/{digest.hex}?signature=1")
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertFalse(self.reads())

    def served(self, answer: Answer, status: str) -> None:
        self.assertEqual((answer.status, answer.cache_status, answer.body == WHOLE), (200, status, True))


class Cold(RedirectCase):
    """Those who want what is not in the cache."""

    async def test_cold(self) -> None:
        """All who ask are sent there, whatever range they want; the archive is asked once."""
        digest = self.archived()
        await gatherResults([Deferred.fromCoroutine(self.away(digest)) for _ in range(5)])
        await self.away(digest, asked="bytes=5-9")
        self.assertEqual(self.archive.asked.count(f"link {digest}"), 1)
        ranges = [each.headers.get("range") for each in self.upstream.select("blob")]
        self.assertEqual(set(ranges), {"bytes=0-0"})
        self.assertFalse(await self.kept(digest))

    async def test_head(self) -> None:
        """A HEAD is answered: a URL that is signed for GET is good for nothing else."""
        answer = await self.mirror.blob(self.archived(), method="HEAD")
        self.assertEqual((answer.status, answer.header("Location")), (200, None))

    async def test_cached(self) -> None:
        """What is in the cache is served from there, and the archive is asked nothing."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.served(await self.mirror.blob(digest), MISS)
        await drain(self.mirror, digest)
        await self.put()
        self.archive.asked.clear()
        self.served(await self.mirror.blob(digest), "docxy; hit")
        self.assertEqual(self.archive.asked, [])

    async def test_not_there(self) -> None:
        """What the archive does not have, or does not answer for, the registry sends, by way of the cache."""
        self.served(await self.mirror.blob(self.upstream.add_blob(REPOSITORY, BLOB)), MISS)
        self.archive.failing = True
        other = self.archived_pattern(BLOB.size + 1)
        self.assertEqual((await self.mirror.blob(other)).status, 200)

    def archived_pattern(self, size: int) -> Digest:
        digest = self.upstream.add_blob(REPOSITORY, Pattern(size))
        self.archive.blobs[digest] = Pattern(size).read(0, size)
        return digest

    async def test_small(self) -> None:
        """What is small is sent at once, whether or not a manifest told so."""
        digest = self.archived_pattern(FROM - 1)
        self.assertEqual((await self.mirror.blob(digest)).status, 200)
        self.archive.asked.clear()
        await self.away(self.archived_pattern(FROM))

    async def test_wrong_size(self) -> None:
        """What is there with another size than a manifest or the registry says is nothing to be sent to."""
        listed, told = self.archived(), self.archived_pattern(BLOB.size + 1)
        for digest in (listed, told):
            self.archive.blobs[digest] = self.archive.blobs[digest][:-1]
        manifest = self.upstream.add_manifest(REPOSITORY, None, manifest_of(listed, BLOB.size), IMAGE)
        await self.mirror.manifest(manifest)
        for digest in (listed, told):
            self.assertEqual((await self.mirror.blob(digest)).status, 200)

    async def test_other_repository(self) -> None:
        """The registry says what a repository has, as ever; while it says nothing, nobody is sent anywhere."""
        digest = self.archived()
        self.assertEqual((await self.mirror.blob(digest, repository="team/other")).status, 404)
        self.upstream.on("blob", Fault(status=503), times=None)
        self.assertEqual((await self.mirror.blob(digest)).status, 503)

    async def test_recalled(self) -> None:
        """What is recalled is refused, and the archive is not asked for it."""
        self.patch(gates, "LAG", 0)
        self.patch(gates, "SETTLE", 0)
        await self.mirror.stop()
        orders = MemoryOrders()
        self.mirror = self.start(orders=orders)
        digest = self.archived()
        await self.away(digest)
        other = self.archived_pattern(BLOB.size + 1)
        for each in (digest, other):
            orders.put(Order(Kind.RECALL, "", str(each), "bad", 1000.0, "root"))
            self.assertEqual((await self.mirror.blob(each)).status, 403)
        self.assertNotIn(f"link {other}", self.archive.asked)


class Always(RedirectCase):
    """Everybody."""

    redirect = Redirect.ALWAYS

    async def test_cached(self) -> None:
        """Those too who want what is in the cache, once the archive has it."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        self.served(await self.mirror.blob(digest), MISS)
        await drain(self.mirror, digest)
        await self.put()
        self.archive.asked.clear()
        self.mirror = self.start()  # it does not remember that the archive did not have it
        await self.away(digest)
        self.saw(GET_blob=1)


class Private(RedirectCase):
    """Clients have accounts of their own."""

    auth = AuthMode.TRANSPARENT

    async def test_private(self) -> None:
        """Who may not read is refused, though another was sent there a moment ago, and whom docxy cannot ask for."""
        self.upstream.auth = Auth("bearer", accounts={"ann": "secret"}, private={REPOSITORY})
        digest = self.archived()
        token = self.upstream.auth.add_token("ann", frozenset({REPOSITORY}), reactor.seconds() + 300)
        await self.away(digest, token=token)
        self.assertEqual((await self.mirror.blob(digest)).status, 401)
        anonymous = str((await self.mirror.token()).json["token"])
        self.assertIn((await self.mirror.blob(digest, anonymous)).status, (401, 403, 404))

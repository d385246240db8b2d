"""The archive in stores with an S3 API, and what a client has of a store in trouble."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, ClassVar

from obstore import list as list_objects
from obstore import put
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from docxy.archive import calm, objects
from docxy.archive.cleaning import Cleaned, clean
from docxy.archive.clients import connect
from docxy.archive.interfaces import ArchiveError
from docxy.archive.objects import ObjectArchive
from docxy.cli.bucket import bucket
from docxy.daemon.archiving import Archiving, OpenArchive
from docxy.names import Digest
from tests.fakes import Pattern
from tests.fakes.relay import Relay, Trouble
from tests.live import swift
from tests.live.s3 import BUCKET, S3Server, Seaweed, Versity, key, shared
from tests.unit.archive.test_archives import Contract
from tests.unit.pull.harness import REPOSITORY, MirrorCase, drain
from tests.unit.pull.test_archived import ARCHIVED, MISS, ArchiveCase

reactor: Any = _reactor

LARGE = Pattern(20_000_000)
WHOLE = LARGE.read(0, LARGE.size)
PATIENCE = 60.0
"""Seconds for what a busy machine may do late, where lateness is not what a test is about."""


class StoreCase(MirrorCase):
    """A store that all tests share, behind a relay of each."""

    def server(self) -> S3Server:
        """The store, running.  Raises SkipTest."""
        return swift.shared()

    def open(self) -> ObjectArchive:
        server = self.server()
        self.relay = Relay(reactor, server.port)
        self.relay.start()
        self.addCleanup(self.relay.stop)
        settings = server.settings(self.relay.url)
        return ObjectArchive(settings.url, partial(connect, settings), None, reactor, reactor)


class Archive(Contract, StoreCase):
    """See `Contract`; in Swift."""

    async def setUp(self) -> None:
        self.archive = self.objects = self.open()
        self.objects.startService()
        self.addCleanup(self.objects.stopService)

    async def test_cut_file(self) -> None:
        """A put that fails leaves nothing."""
        digest = Digest.of(b"cut")
        with self.assertRaises(ArchiveError):
            await self.objects.put(digest, self.file(WHOLE), LARGE.size + 1)
        self.assertIsNone(await self.objects.open(digest, 0))


class ArchiveInVersity(Archive):
    """The same in versitygw."""

    def server(self) -> S3Server:
        return shared(Versity)


class ArchiveInSeaweed(Archive):
    """The same in SeaweedFS."""

    def server(self) -> S3Server:
        return shared(Seaweed)


class Commands(SynchronousTestCase):
    """What commands do with the bucket, without a docxy."""

    rule: ClassVar = "warn"
    """What doctor says of the rule that ends incomplete uploads, which no bucket here has: good: the store is mute."""

    def server(self) -> S3Server:
        """The store, running.  Raises SkipTest."""
        return swift.shared()

    def test_clean(self) -> None:
        """`docxy gc --archive` removes what is old and unused, and nothing else."""
        store = self.server().bucket("cleaning")
        used, unused = Digest.of(b"used"), Digest.of(b"unused")
        now = datetime.now(timezone.utc) + timedelta(days=40)
        for digest in (used, unused):
            put(store, key(str(digest)), b"blob")
        put(store, f"seen/{(now - timedelta(days=31)).date()}/node-1", b"")
        put(store, f"seen/{(now - timedelta(days=3)).date()}/node-1", f"{used}\n".encode())
        self.assertEqual(clean(store, 30, now, False, lambda count: None), Cleaned(blobs=1, frees=4, kept=1))
        left = [each["path"] for page in list_objects(store, "blobs/") for each in page]
        self.assertEqual(left, [key(str(used))])

    def test_doctor(self) -> None:
        """`docxy doctor` finds that docxy can do all it has to, and that no rule ends incomplete uploads."""
        server = self.server()
        found = list(bucket(server.settings(server.url)))
        self.assertEqual([each.level for each in found], ["good", self.rule], found)
        self.assertIn("incomplete", found[-1].words)


class CommandsInVersity(Commands):
    """The same in versitygw, which has no such rules."""

    rule = "good"

    def server(self) -> S3Server:
        return shared(Versity)


class CommandsInSeaweed(Commands):
    """The same in SeaweedFS."""

    def server(self) -> S3Server:
        return shared(Seaweed)


class Troubles(StoreCase, ArchiveCase):
    """A node whose cache is new, and what its client has of a blob that the store holds."""

    async def setUp(self) -> None:
        self.checked: Deferred[None] = Deferred()
        real = Archiving.check

        async def check(archiving: Archiving) -> None:
            await real(archiving)
            self.checked.callback(None)

        self.patch(Archiving, "check", check)
        self.patch(calm, "ANSWER_WITHIN", PATIENCE)
        self.patch(objects, "PIECE_WITHIN", PATIENCE)
        await super().setUp()

    def settings(self) -> dict[str, Any]:
        self.objects = self.open()
        return {**super().settings(), "archive": OpenArchive(self.objects, self.objects)}

    async def stored(self, size: int = LARGE.size) -> Digest:
        """A blob that the registry and the store have; the node has looked at the store.

        A look that a trouble broke off would be a failure, after which nobody asks the store for a while.
        """
        await self.checked
        digest = self.upstream.add_blob(REPOSITORY, Pattern(size))
        self.data = Pattern(size).read(0, size)
        await self.objects.put(digest, Contract.file(self, self.data), size)
        return digest

    async def has(self, digest: Digest, status: str) -> None:
        answer = await self.mirror.blob(digest)
        self.assertEqual((answer.status, answer.cache_status), (200, status))
        self.assertEqual(answer.body == self.data, True)
        await drain(self.mirror, digest)

    async def test_works(self) -> None:
        """It comes from the store by one request, and then from the cache; no start lists what is there."""
        await self.checked
        check = f"/{BUCKET}/prefix/check"
        self.assertEqual(self.relay.requests, [f"PUT {check}", f"GET {check}"])
        digest = await self.stored()
        self.relay.requests.clear()
        await self.has(digest, ARCHIVED)
        await self.has(digest, "docxy; hit")
        self.assertEqual([each.headers.get("range") for each in self.upstream.select("blob")], ["bytes=0-0"])
        self.assertEqual(self.relay.requests, [f"GET /{BUCKET}/prefix/{key(str(digest))}"])

    async def test_kept_connection(self) -> None:
        """A store that closes a connection just when it is used again: it is asked on another one."""
        await self.has(await self.stored(1_000_000), ARCHIVED)
        digest = await self.stored()
        self.relay.age()
        await self.has(digest, ARCHIVED)
        self.assertGreater(self.relay.aged, 0)

    async def test_refusing(self) -> None:
        """500, 503 and 403, and a store that is not there: the registry's bytes come."""
        for n, status in enumerate((500, 503, 403)):
            digest = await self.stored(1_000_000 + n)
            self.relay.set(Trouble(status=status))
            await self.has(digest, MISS)
            self.relay.set(Trouble())
            self.mirror = await self.restarted()

    async def test_silent(self) -> None:
        """A store that says nothing: the client waits for its bound, then the registry's bytes come."""
        self.patch(calm, "ANSWER_WITHIN", 1.0)
        digest = await self.stored()
        self.relay.set(Trouble(stall=0))
        with capturedLogs() as events:
            began = reactor.seconds()
            await self.has(digest, MISS)
            self.assertGreaterEqual(reactor.seconds() - began, 1.0)
        self.relay.set(Trouble())
        self.assertIn("did not answer within 1 s", str([each.get("why") for each in events]))

    async def test_broken_off(self) -> None:
        """Cut or reset in the middle, again and again: what came is kept, and the registry sends the rest at most."""
        self.patch(objects, "_PAUSE", 0.01)
        await self.has_despite(Trouble(cut=3_000_000), Trouble(reset=3_000_000))

    async def test_stalls(self) -> None:
        """A store that stalls in the middle, and one that drips: the registry sends the rest."""
        self.patch(objects, "PIECE_WITHIN", 1.0)
        await self.has_despite(Trouble(stall=3_000_000), Trouble(rate=200_000))

    async def has_despite(self, *troubles: Trouble) -> None:
        """Each in turn strikes in the middle of a blob, which the client gets whole."""
        for n, trouble in enumerate(troubles):
            digest = await self.stored(LARGE.size + n)
            self.relay.set(trouble)
            await self.has(digest, ARCHIVED)
            self.relay.set(Trouble())
            self.mirror = await self.restarted()

    async def restarted(self) -> Any:
        """Another node, which has not seen the trouble."""
        await self.mirror.stop()
        self.checked = Deferred()
        catalog = self.open_catalog(self.mktemp())
        mirror = self.start(store=self.new_store(), catalog=catalog)
        self.upstream.requests.clear()
        return mirror

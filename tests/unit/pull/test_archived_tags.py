"""Manifests and tags that a node has from the archive."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from twisted.internet.defer import Deferred

from docxy.archive import calm
from docxy.archive.calm import ANSWER_WITHIN
from docxy.catalog.memory import MemoryCatalog
from docxy.names import OCI_INDEX, Digest
from docxy.pull import archived
from docxy.pull.archived import WRITE_AFTER
from docxy.settings.cooldown import Cooldown, OnNew
from docxy.settings.model import AuthMode
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import ACCEPT, NAME, REPOSITORY, Mirror, Seconds, drain, reactor
from tests.unit.pull.test_archived import ARCHIVED, BLOB, WHOLE, ArchiveCase
from tests.unit.pull.test_sizes import IMAGE, manifest_of

DAY = 86400.0
KEY = f"tags/{NAME}/{REPOSITORY}/latest"


class TagCase(ArchiveCase):
    """An image of one layer behind an index, which one node pulled and put."""

    def tagged(self, tag: str = "latest", about: str = "") -> tuple[Digest, Digest]:
        """The index under a tag at the registry, and its manifest."""
        self.layer = self.upstream.add_blob(REPOSITORY, BLOB)
        image = json.loads(manifest_of(self.layer, BLOB.size))
        body = json.dumps({**image, "annotations": {"about": about}}).encode()
        manifest = self.upstream.add_manifest(REPOSITORY, None, body, IMAGE)
        entry = {"mediaType": IMAGE, "digest": str(manifest), "size": len(body)}
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
        self.index = index
        return self.upstream.add_manifest(REPOSITORY, tag, index, OCI_INDEX), manifest

    async def pull(self, mirror: Mirror, *references: Any) -> list[Any]:
        return [await mirror.manifest(reference) for reference in references]

    async def filled(self) -> tuple[Digest, Digest]:
        """An image that the first node pulled, all of it in the archive."""
        index, manifest = self.tagged()
        await self.pull(self.mirror, "latest", manifest)
        await self.mirror.blob(self.layer)
        await drain(self.mirror, self.layer)
        await self.put()
        self.upstream.requests.clear()
        self.archive.asked.clear()
        return index, manifest

    def fresh(self, **changed: Any) -> Mirror:
        """A node whose cache is new."""
        store = self.new_store()
        return self.start(store=store, catalog=self.open_catalog(self.mktemp()), **changed)

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.archive.records[KEY])
        return found

    def writes(self) -> int:
        return self.archive.asked.count(f"write {KEY}")


class Records(TagCase):
    """What is written of tags."""

    async def test_written(self) -> None:
        """A tag is written when the registry tells of it, when it moved, and every ten minutes, not at each answer."""
        first, _ = self.tagged()
        await self.pull(self.mirror, "latest")
        began = self.seconds.now
        self.assertEqual(
            self.record(),
            {
                "digest": str(first),
                "media_type": OCI_INDEX,
                "size": self.record()["size"],
                "first_seen": began,
                "last_seen": began,
                "history": [[began, str(first), began]],
            },
        )
        self.seconds.advance(self.tag_ttl + 1)
        await self.pull(self.mirror, "latest")
        self.assertEqual(self.writes(), 1)
        self.seconds.advance(WRITE_AFTER)
        await self.pull(self.mirror, "latest")
        self.assertEqual((self.record()["first_seen"], self.record()["last_seen"]), (began, self.seconds.now))
        second, _ = self.tagged(about="another")
        self.seconds.advance(self.tag_ttl + 1)
        await self.pull(self.mirror, "latest")
        self.assertEqual((self.record()["digest"], self.record()["first_seen"]), (str(second), self.seconds.now))
        self.assertEqual(self.writes(), 3)

    async def test_gone(self) -> None:
        """A tag that the registry deleted is known to nobody."""
        await self.filled()
        self.upstream.on("manifest", Fault(status=404), times=None)
        self.seconds.advance(self.tag_ttl + 1)
        self.assertEqual((await self.mirror.manifest("latest")).status, 404)
        self.assertIsNone(self.record()["digest"])
        self.upstream.rules.clear()
        self.upstream.on("manifest", Fault(status=503), times=None)
        self.assertEqual((await self.fresh().manifest("latest")).status, 503)

    async def test_bound(self) -> None:
        """While the archive does not answer, no more than some records are on their way; pulls do not wait."""
        self.patch(archived, "MOST_WRITING", 2)
        self.archive.silent = True
        for tag in ("a", "b", "c", "d"):
            self.tagged(tag)
            Deferred.fromCoroutine(self.mirror.manifest(tag))
        # Until the archive is left alone each tag asks it once, for no longer than its bound.
        self.assertLess(ANSWER_WITHIN, 5)
        for tag in ("a", "b", "c", "d"):
            self.assertEqual((await self.mirror.manifest(tag)).status, 200)
        self.assertLessEqual(sum(each.startswith("write tags/") for each in self.archive.asked), 2)


class Fresh(TagCase):
    """A node that knows nothing yet."""

    async def test_no_get(self) -> None:
        """While the registry answers, a new node asks by HEAD, which costs no quota; the archive has the bytes."""
        index, manifest = await self.filled()
        found = await self.pull(self.fresh(), "latest", manifest)
        self.assertEqual([each.status for each in found], [200, 200])
        self.assertEqual([Digest.of(each.body) for each in found], [index, manifest])
        self.saw(HEAD_manifest=2)
        self.assertEqual(self.archive.asked.count(f"record {KEY}"), 1)
        self.assertEqual(self.reads(), [f"read {index}", f"read {manifest}"])

    async def test_moved(self) -> None:
        """A tag that moved since is served as the registry has it."""
        await self.filled()
        moved, _ = self.tagged(about="another")
        (answer,) = await self.pull(self.fresh(), "latest")
        self.assertEqual(Digest.of(answer.body), moved)

    async def test_outage(self) -> None:
        """Through an outage of the registry a new node serves the whole image, the tag stale."""
        index, manifest = await self.filled()
        self.upstream.on("manifest", Fault(status=503), times=None)
        self.upstream.on("blob", Fault(status=503), times=None)
        fresh = self.fresh()
        tag, child = await self.pull(fresh, "latest", manifest)
        self.assertEqual((tag.status, Digest.of(tag.body), child.status), (200, index, 200))
        self.assertIn("detail=stale-upstream-failed", tag.cache_status)
        self.assertEqual(child.cache_status, ARCHIVED)
        answer = await fresh.blob(self.layer)
        self.assertEqual((answer.status, answer.body == WHOLE, answer.cache_status), (200, True, ARCHIVED))
        await drain(fresh, self.layer)

    async def test_other_process(self) -> None:
        """So does another process on the same cache, which served none of the manifests."""
        _, manifest = await self.filled()
        self.upstream.on("manifest", Fault(status=503), times=None)
        self.upstream.on("blob", Fault(status=503), times=None)
        store, catalog = self.new_store(), self.open_catalog(self.mktemp())
        await self.pull(self.start(store=store, catalog=catalog), "latest", manifest)
        second = self.start(store=store, catalog=catalog)
        self.assertEqual((await second.blob(self.layer)).status, 200)
        await drain(second, self.layer)

    async def test_unlisted(self) -> None:
        """A digest that no manifest of the repository names is not served through an outage, though it is there."""
        _, manifest = await self.filled()
        self.upstream.on("manifest", Fault(status=503), times=None)
        self.assertEqual((await self.fresh().manifest(manifest)).status, 503)

    async def test_wrong(self) -> None:
        """A manifest whose bytes are wrong in the archive is removed there, and comes from the registry."""
        index, _ = await self.filled()
        self.archive.blobs[index] = b"{}"
        (answer,) = await self.pull(self.fresh(), "latest")
        self.assertEqual((answer.status, Digest.of(answer.body)), (200, index))
        self.assertNotIn(index, self.archive.blobs)

    async def test_strange_records(self) -> None:
        """Records that docxy did not write are as none."""
        index, _ = await self.filled()
        good = self.record()
        for changed in (
            {"digest": 5},
            {"digest": "sha256:x"},
            {"size": -1},
            {"size": 1e999},
            {"size": True},
            {"last_seen": "x"},
            {"media_type": None},
            {"media_type": "text/html"},
        ):
            self.archive.records[KEY] = json.dumps({**good, **changed}).encode()
            (answer,) = await self.pull(self.fresh(), "latest")
            self.assertEqual((answer.status, Digest.of(answer.body)), (200, index), changed)
        for data in (b"", b"[" * 100_000, b"null", bytes(range(256))):
            self.archive.records[KEY] = data
            (answer,) = await self.pull(self.fresh(), "latest")
            self.assertEqual(answer.status, 200)


class Ahead(Seconds):
    """A clock that is a minute ahead of another one."""

    def __init__(self, of: Seconds) -> None:
        self._of = of

    def __call__(self) -> float:
        return self._of() + 60.0


class Past(TagCase):
    """Where tags led before, and since when digests are known."""

    async def then(self, mirror: Mirror, at: float) -> tuple[int, str | None]:
        """What a node says that the tag was."""
        moment = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dt%H-%M-%Sz")
        path = f"/v2/as-of/{moment}/{NAME}/{REPOSITORY}/manifests/latest"
        answer = await mirror.ask(path, {"Accept": list(ACCEPT)})
        return answer.status, answer.header("Docker-Content-Digest")

    async def moved(self, about: str, *mirrors: Mirror) -> Digest:
        """The tag leads elsewhere since a day, as these nodes saw at once."""
        digest, _ = self.tagged(about=about)
        for mirror in mirrors:
            await self.pull(mirror, "latest")
        self.seconds.advance(DAY)
        return digest

    async def test_new_node(self) -> None:
        """A new node knows what a tag was before it came, and asks the archive for that once."""
        began = self.seconds.now
        digests = [await self.moved(about, self.mirror) for about in ("one", "two")]
        fresh = self.fresh()
        self.archive.asked.clear()
        for day, digest in enumerate(digests):
            self.assertEqual(await self.then(fresh, began + day * DAY + 1), (200, str(digest)))
        self.assertEqual((await self.then(fresh, began - 1))[0], 404)
        self.assertEqual(self.archive.asked.count(f"record {KEY}"), 1)

    async def test_gone(self) -> None:
        """It knows what a tag was that is gone, and that it is gone."""
        began = self.seconds.now
        digest = await self.moved("one", self.mirror)
        self.upstream.on("manifest", Fault(status=404), times=None)
        self.assertEqual((await self.mirror.manifest("latest")).status, 404)
        self.upstream.rules.clear()
        fresh = self.fresh()
        self.assertEqual(await self.then(fresh, began + 1), (200, str(digest)))
        self.assertEqual((await self.then(fresh, self.seconds.now))[0], 404)

    async def test_cooldown(self) -> None:
        """What one node has known for long enough is old enough on a new one too, by its tag and by its digest."""
        _, manifest = await self.filled()
        self.seconds.advance(DAY)
        young = self.fresh(changed={"cooldown": Cooldown(2 * DAY, OnNew.DENY)})
        old = self.fresh(changed={"cooldown": Cooldown(DAY, OnNew.DENY)})
        self.assertEqual([each.status for each in await self.pull(young, "latest", manifest)], [403, 403])
        self.assertEqual([each.status for each in await self.pull(old, "latest", manifest)], [200, 200])

    async def test_two_nodes(self) -> None:
        """Two nodes, one of them a minute ahead, of which each sees what the other does not: both know all of it."""
        began, ahead = self.seconds.now, Ahead(self.seconds)
        other = self.start(store=self.new_store(), catalog=MemoryCatalog(reactor, ahead), seconds=ahead)
        digests = [
            await self.moved("one", self.mirror, other),
            await self.moved("two", self.mirror),
            await self.moved("three", other),
            await self.moved("four", other, self.mirror),
        ]
        await self.pull(other, "latest")
        for mirror in (self.mirror, other):
            for day, digest in enumerate(digests):
                found = [await self.then(mirror, began + day * DAY + at) for at in (61, DAY / 2, DAY - 1)]
                self.assertEqual(found, 3 * [(200, str(digest))], day)
        self.assertEqual(len(self.record()["history"]), 4)

    async def test_in_a_file(self) -> None:
        """So does a node that keeps what it knows in a file."""
        began = self.seconds.now
        one = await self.moved("one", self.mirror)
        fresh = self.fresh()
        two, _ = self.tagged(about="two")
        written = self.archive.written()
        await self.pull(fresh, "latest")
        await written
        self.assertEqual([each[1] for each in self.record()["history"]], [str(one), str(two)])
        self.assertEqual(await self.then(fresh, began + 1), (200, str(one)))

    async def test_bounded(self) -> None:
        """A record has so many changes, the newest."""
        self.patch(archived, "MOST_SHARED", 2)
        digests = [await self.moved(str(number), self.mirror) for number in range(4)]
        self.assertEqual([each[1] for each in self.record()["history"]], [str(each) for each in digests[2:]])

    async def test_strange(self) -> None:
        """A past that docxy did not write is none."""
        index, _ = await self.filled()
        good = self.record()
        (row,) = good["history"]
        for history in (
            None,
            "x",
            [7],
            [row[:2]],
            [[True, *row[1:]]],
            [[1e999, *row[1:]]],
            [[row[0], "x", row[2]]],
            [[row[0], 7, row[2]]],
            [[*row[:2], None]],
            [[self.seconds.now + DAY, *row[1:]]],
        ):
            self.archive.records[KEY] = json.dumps({**good, "history": history}).encode()
            fresh = self.fresh()
            (answer,) = await self.pull(fresh, "latest")
            self.assertEqual((answer.status, Digest.of(answer.body)), (200, index), history)
            self.assertEqual(await self.then(fresh, self.seconds.now), (200, str(index)), history)

    async def test_stopped(self) -> None:
        """A node that stops while the archive says nothing waits for no record."""
        self.patch(calm, "ANSWER_WITHIN", 1e6)
        mirror = self.start(store=self.new_store(), catalog=MemoryCatalog(reactor, self.seconds))
        self.tagged()
        asked = f"record {KEY}"
        await self.pull(mirror, "latest")
        self.seconds.advance(WRITE_AFTER + 1)
        self.archive.silent = True
        self.archive.asked.clear()
        await self.pull(mirror, "latest")
        self.assertEqual(self.archive.asked, [asked])
        await mirror.stop()


class Private(TagCase):
    """Clients have accounts of their own."""

    auth = AuthMode.TRANSPARENT

    async def test_private(self) -> None:
        """A new node serves nothing private without the registry's word: not refused clients, nobody in an outage."""
        self.upstream.auth = Auth("bearer", accounts={"ann": "secret"}, private={REPOSITORY})
        index, _ = self.tagged()
        self.archive.blobs[index] = self.index
        facts = {"digest": str(index), "media_type": OCI_INDEX, "size": len(self.index)}
        self.archive.records[KEY] = json.dumps({**facts, "first_seen": 1, "last_seen": 1}).encode()
        fresh = self.fresh()
        self.assertEqual((await fresh.manifest("latest")).status, 401)
        self.upstream.on("manifest", Fault(status=503), times=None)
        for reference in ("latest", index):
            self.assertIn((await fresh.manifest(reference)).status, (401, 502, 503))

"""Manifests and tags that a node has from the archive."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from docxy.archive.calm import ANSWER_WITHIN
from docxy.names import OCI_INDEX, Digest
from docxy.pull import archived
from docxy.pull.archived import WRITE_AFTER
from docxy.settings.model import AuthMode
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import NAME, REPOSITORY, Mirror, drain
from tests.unit.pull.test_archived import ARCHIVED, BLOB, WHOLE, ArchiveCase
from tests.unit.pull.test_sizes import IMAGE, manifest_of

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

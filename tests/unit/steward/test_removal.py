"""`rm` and `gc`: what goes, what stays, and what workers forget."""

from __future__ import annotations

import os
from typing import Any

from docxy.names import Digest
from docxy.orders.hottest import FACT, shown
from docxy.questions import Unanswered
from docxy.settings.policy import Keep, Policy
from docxy.steward.inline import finish
from docxy.steward.lines import Failed
from docxy.steward.removal import GRACE, UNTAGGED
from docxy.steward.steward import FORGET
from docxy.storage.interfaces import StorageError
from docxy.storage.paths import Tree
from tests.unit.steward.case import HUB, StewardCase

DAY = 86400.0


class Removal(StewardCase):
    def setUp(self) -> None:
        super().setUp()
        self.shared, self.own = b"s" * 9000, b"o" * 5000
        self.one = self.image("library/alpine", ["3.20"], [self.shared, self.own])
        self.two = self.image("library/alpine", ["3.19"], [self.shared])
        self.three = self.image("o/i", ["v1"], [self.own], upstream="ghcr.io")

    def tags(self) -> list[str]:
        return [told["image"] for told in self.items("ls")]

    def forgotten(self) -> set[str]:
        return {digest for name, digests in self.workers.asked if name == FORGET for digest in digests}

    def held(self, repository: str, digest: Digest, upstream: str = HUB) -> bool:
        found: bool = finish(self.catalog.upstream(upstream).held.blob(repository, digest, latest=True))
        return found

    def test_rm(self) -> None:
        """A tag goes with what only it leads to; layers that others share stay; workers forget what went."""
        end = self.end("rm", image="alpine:3.20")
        self.assertEqual((end["images"], end["blobs"]), (1, 1))
        self.assertFalse(self.is_kept(self.one))
        for data in (self.shared, self.own):
            self.assertTrue(self.is_kept(Digest.of(data)))
        self.assertEqual(self.tags(), ["docker.io/library/alpine:3.19", "ghcr.io/o/i:v1"])
        self.assertEqual(self.forgotten(), {str(self.one)})

    def test_frees(self) -> None:
        """What it says that it frees is what the disk gets back."""
        self.patch(Tree, "bookkeeping", lambda tree: 0)
        before = finish(self.store.used())
        end = self.end("rm", image=["alpine:3.20", "ghcr.io/o/i"])
        self.assertFalse(self.is_kept(Digest.of(self.own)))
        self.assertGreater(end["frees"], 5000)
        self.assertEqual(before - finish(self.store.used()), end["frees"])

    def test_dry_run(self) -> None:
        """What would go is told, and nothing goes."""
        dry = self.end("rm", image="alpine", dry_run=True)
        self.assertTrue(dry["dry_run"])
        self.assertEqual(len(self.tags()), 3)
        self.assertEqual(self.workers.asked, [])
        self.assertEqual(self.end("rm", image="alpine")["frees"], dry["frees"])

    def test_whole_repository(self) -> None:
        """All of a repository: docxy does not know any more that it had any of it; another one still has its share."""
        own = Digest.of(self.own)
        self.assertTrue(self.held("library/alpine", own))
        self.end("rm", image="alpine")
        self.assertFalse(self.held("library/alpine", own))
        self.assertTrue(self.held("o/i", own, "ghcr.io"))
        self.assertTrue(self.is_kept(own))
        self.assertFalse(self.is_kept(Digest.of(self.shared)))
        self.assertEqual(self.tags(), ["ghcr.io/o/i:v1"])

    def test_held(self) -> None:
        """A repository is not said to have what went with a tag, and still has what another tag of it leads to."""
        self.end("rm", image="alpine:3.20")
        self.assertFalse(self.held("library/alpine", Digest.of(self.own)))
        self.assertTrue(self.held("library/alpine", Digest.of(self.shared)))

    def test_variants(self) -> None:
        """With a tag go what narrow Accepts selected of it, and no tag whose name begins alike."""
        narrow = self.image("library/alpine", [], [b"narrow"])
        tags = self.catalog.upstream(HUB).tags
        tags.keep("library/alpine", "3.20 docker-manifest", narrow, "application/json", 1)
        self.image("library/alpine", ["3.20-slim", "3.20.1"], [b"slim"])
        self.end("rm", image="alpine:3.20")
        self.assertIsNone(finish(tags.get("library/alpine", "3.20 docker-manifest", latest=True)))
        self.assertFalse(self.is_kept(narrow))
        self.assertIn(str(narrow), self.forgotten())
        self.assertEqual(len([name for name in self.tags() if ":3.20" in name]), 2)

    def test_by_digest(self) -> None:
        """A digest stands for all tags that lead to it."""
        self.image("library/alpine", ["three"], [self.shared, self.own])
        self.end("rm", image=f"alpine@{self.one}")
        self.assertEqual(self.tags(), ["docker.io/library/alpine:3.19", "ghcr.io/o/i:v1"])

    def test_index(self) -> None:
        """With an index go its children, but not one that a tag of its own leads to."""
        config = b'{"os": "linux"}'
        first, second = (
            self.image("library/app", tags, [data], config) for tags, data in (([], b"1"), (["arm"], b"2"))
        )
        self.index("library/app", [(first, "linux/amd64"), (second, "linux/arm64")], ["1"])
        self.end("rm", image="app:1")
        self.assertFalse(self.is_kept(first))
        self.assertTrue(self.is_kept(second))

    def test_nothing(self) -> None:
        """One name of nothing, and nothing at all is removed."""
        self.assertRaises(Failed, self.end, "rm", image=["alpine", "nginx"])
        self.assertRaises(Failed, self.end, "rm")
        self.assertEqual(len(self.tags()), 3)

    def test_worker_does_not_answer(self) -> None:
        """A worker that may still have it in memory is told of."""
        self.workers.answers[2] = Unanswered("it does not answer")
        error = self.assertRaises(Failed, self.end, "rm", image="alpine")
        self.assertIn("worker 2", error.message)

    def test_disk_fails(self) -> None:
        """A file that cannot be removed ends the work; it says how far it came, and workers forget what went."""
        delete, left = self.store.delete, [1]

        async def fail(digest: Digest) -> bool:
            if not left:
                raise StorageError("cannot remove it")
            left.pop()
            found: bool = await delete(digest)
            return found

        self.patch(self.store, "delete", fail)
        error = self.assertRaises(Failed, self.end, "rm", image="alpine")
        self.assertIn("cannot remove it", error.message)
        self.assertGreater(len(self.forgotten()), 1)

    def test_hot(self) -> None:
        """One of the most pulled tags that `[[keep]]` keeps is removed by neither; the words say how it may be."""
        self.catalog.facts.keep(FACT, shown([(HUB, "library/alpine", "3.20")]))
        self.end("rm", image="alpine:3.19")
        self.policy = Policy(keeps=(Keep(hot=5),))
        error = self.assertRaises(Failed, self.end, "rm", image="alpine:3.20")
        self.assertIn("alpine:3.20 is pinned: it is one of the most pulled tags", error.message)
        self.clock.advance(400 * DAY)
        self.end("gc", unused=1)
        self.assertEqual(self.tags(), ["docker.io/library/alpine:3.20"])
        self.policy = Policy()
        self.end("rm", image="alpine:3.20")
        self.assertEqual(self.tags(), [])

    def kinds(self, **given: Any) -> dict[str, int]:
        return {told["kind"]: told["blobs"] for told in self.items("gc", **given)}

    def test_gc_nothing(self) -> None:
        """What tags lead to stays, however old."""
        self.clock.advance(400 * DAY)
        self.assertEqual(self.end("gc")["blobs"], 0)
        self.assertEqual(len(self.tags()), 3)

    def test_gc(self) -> None:
        """What a tag led to before goes when nobody pulled it for a while; blobs of nothing go at once."""
        loose = self.keep(b"z" * 700)
        self.image("library/alpine", ["3.19"], [b"new"])
        self.clock.advance(GRACE + 1)
        self.assertEqual(self.kinds(dry_run=True), {"unnamed": 1})
        self.clock.advance(UNTAGGED)
        self.assertEqual(self.kinds(dry_run=True), {"unnamed": 1, "untagged": 1})
        self.assertTrue(self.is_kept(loose))
        self.assertEqual(self.kinds(), {"unnamed": 1, "untagged": 1})
        self.assertFalse(self.is_kept(loose) or self.is_kept(self.two))
        self.assertTrue(self.is_kept(Digest.of(self.shared)), "3.20 has it")
        self.assertEqual(self.forgotten(), {str(loose), str(self.two)})

    def test_gc_grace(self) -> None:
        """What was used a moment ago may belong to a pull that is under way."""
        loose = self.keep(b"z" * 700)
        self.clock.advance(GRACE - 1)
        self.assertEqual(self.kinds(), {})
        self.clock.advance(2)
        self.assertEqual(self.kinds(), {"unnamed": 1})
        self.assertFalse(self.is_kept(loose))

    def test_gc_pulled_by_digest(self) -> None:
        """A manifest without a tag that somebody pulls stays."""
        self.image("library/alpine", ["3.19"], [b"new"])
        self.clock.advance(UNTAGGED)
        self.store.touch(self.two)
        self.clock.advance(GRACE + 1)
        self.assertEqual(self.kinds(), {})

    def test_gc_unused(self) -> None:
        """Tags go only when that is asked for, and only those that nobody pulled."""
        self.clock.advance(30 * DAY)
        self.store.touch(self.three)
        self.store.touch(Digest.of(self.own))
        self.clock.advance(DAY)
        self.assertEqual(self.kinds(unused=20 * DAY), {"unused": 3})
        self.assertEqual(self.tags(), ["ghcr.io/o/i:v1"])
        self.assertTrue(self.is_kept(Digest.of(self.own)))

    def test_gc_fills(self) -> None:
        """A download that was interrupted goes after a day, unless somebody is at it."""
        ours, theirs = Digest.of(b"a" * 9000), Digest.of(b"b" * 9000)

        async def begin(digest: Digest) -> Any:
            joined = await self.store.join(digest)
            joined.reader.close()
            assert joined.writer is not None
            await joined.writer.announce(9000)
            await joined.writer.write(b"x" * 5000)
            return joined.writer

        finish(finish(begin(ours)).release())
        running = finish(begin(theirs))
        for name in os.listdir(os.path.join(self.directory, "incoming")):
            path = os.path.join(self.directory, "incoming", name)
            os.utime(path, (self.clock.seconds() - 2 * DAY,) * 2)
        self.assertEqual(self.kinds(dry_run=True), {"interrupted": 1})
        self.assertEqual(self.kinds(), {"interrupted": 1})
        self.assertEqual(os.listdir(os.path.join(self.directory, "incoming")), [f"sha256-{theirs.hex}"])
        finish(running.cancel())

"""What `docxy gc --archive` removes from a bucket, and what it leaves."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import obstore
from obstore.store import MemoryStore
from twisted.trial.unittest import SynchronousTestCase

from docxy.archive import cleaning
from docxy.archive.cleaning import Cleaned, clean
from docxy.archive.interfaces import ArchiveError
from docxy.names import Digest

USED, UNUSED = Digest.of(b"used"), Digest.of(b"unused")
DAYS = 30


def key(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex[:2]}/{digest.hex}"


class CleaningTests(SynchronousTestCase):
    """All was written today; it is cleaned in 40 days."""

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.now = datetime.now(timezone.utc) + timedelta(days=40)
        for digest in (USED, UNUSED):
            self.put(key(digest), b"blob")
        self.put("tags/docker.io/library/alpine/latest", b"{}")
        self.mark(41, UNUSED)
        self.mark(29, USED)

    def put(self, name: str, data: bytes) -> None:
        obstore.put(self.store, name, data)

    def mark(self, days: int, *digests: Digest) -> None:
        """That these were used so many days ago."""
        day = (self.now - timedelta(days=days)).date()
        self.put(f"seen/{day}/node-1", "".join(f"{digest}\n" for digest in digests).encode())

    def clean(self, days: int = DAYS, dry_run: bool = False) -> Cleaned:
        return clean(self.store, days, self.now, dry_run, lambda count: None)

    def names(self) -> set[str]:
        return {each["path"] for page in obstore.list(self.store) for each in page}

    def test_unused(self) -> None:
        """What no mark of that time names goes, with the tags that nobody pulled; what was used stays."""
        self.assertEqual(self.clean(), Cleaned(blobs=1, frees=4, tags=1, kept=1))
        self.assertEqual({name for name in self.names() if not name.startswith("seen/")}, {key(USED)})

    def test_dry_run(self) -> None:
        """The same is said, and nothing done."""
        before = self.names()
        self.assertEqual(self.clean(dry_run=True), Cleaned(blobs=1, frees=4, tags=1, kept=1))
        self.assertEqual(self.names(), before)

    def test_young(self) -> None:
        """What is younger than that stays, whether or not anybody used it."""
        self.mark(60)
        self.assertEqual(self.clean(days=50), Cleaned())

    def test_marks(self) -> None:
        """Marks go when they say nothing any more, but for those that show how far back marks go."""
        self.mark(50)
        self.mark(60)
        self.clean()
        days = {name.split("/")[1] for name in self.names() if name.startswith("seen/")}
        self.assertEqual(days, {str((self.now - timedelta(days=n)).date()) for n in (41, 29)})
        self.clean()

    def test_others(self) -> None:
        """What docxy did not write is nobody's business."""
        for name in ("blobs/readme", "other/x", "blobs/sha256/ab/short", "seen/readme"):
            self.put(name, b"x")
        self.clean()
        self.assertTrue({"blobs/readme", "other/x", "blobs/sha256/ab/short", "seen/readme"} <= self.names())

    def test_no_marks(self) -> None:
        """Without marks for all of the time nothing goes: what nobody told of is not what nobody used."""
        for day in (41, 29):
            before = self.names()
            for name in [each for each in before if each.startswith("seen/")]:
                obstore.delete(self.store, name)
            if day == 29:
                self.mark(29, USED)
            with self.assertRaisesRegex(ArchiveError, "nothing was removed: the marks of use"):
                self.clean()
            self.assertIn(key(UNUSED), self.names())

    def test_too_many(self) -> None:
        """More used blobs than can be remembered: nothing goes."""
        self.patch(cleaning, "MOST_USED", 1)
        self.mark(28, UNUSED)
        with self.assertRaisesRegex(ArchiveError, "lifecycle rule"):
            self.clean()
        self.assertIn(key(UNUSED), self.names())

    def test_many(self) -> None:
        """They are removed some at a time."""
        self.patch(cleaning, "AT_ONCE", 3)
        for number in range(10):
            self.put(key(Digest.of(bytes([number]))), b"blob")
        self.assertEqual(self.clean().blobs, 11)
        self.assertEqual({name for name in self.names() if name.startswith("blobs/")}, {key(USED)})

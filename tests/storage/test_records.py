"""One upstream's records: what is noted under one key is found under that key alone."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.names import Digest
from docxy.storage.catalog import Catalog
from docxy.storage.records import HeldManifest, ListingRecord, TagRecord, UpstreamCatalog

ONE, TWO = Digest.of(b"one"), Digest.of(b"two", "sha512")


class Records(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        catalog = Catalog(":memory:", self.clock.seconds)
        self.addCleanup(catalog.close)
        self.known = UpstreamCatalog(catalog, "u")
        self.other = UpstreamCatalog(catalog, "other")

    def test_held(self) -> None:
        """A blob is held by its repository of its upstream, and is no manifest."""
        self.known.hold("r", ONE)
        self.assertTrue(self.known.holds_blob("r", ONE))
        self.assertIsNone(self.known.held_manifest("r", ONE))
        for known, repository, digest in ((self.known, "s", ONE), (self.known, "r", TWO), (self.other, "r", ONE)):
            self.assertFalse(known.holds_blob(repository, digest))

    def test_held_manifest(self) -> None:
        """A manifest has its type and size, is no blob, and may be both."""
        self.known.hold("r", TWO, "type", 7)
        self.assertEqual(self.known.held_manifest("r", TWO), HeldManifest("type", 7, 1000))
        self.assertFalse(self.known.holds_blob("r", TWO))
        self.assertIsNone(self.other.held_manifest("r", TWO))
        self.known.hold("r", TWO)
        self.assertTrue(self.known.holds_blob("r", TWO))
        self.assertIsNotNone(self.known.held_manifest("r", TWO))

    def test_use_keeps_age(self) -> None:
        """Being used does not make a manifest younger."""
        self.known.hold("r", ONE, "type", 7)
        self.clock.advance(100_000)
        for _ in range(2):
            self.assertEqual(self.known.held_manifest("r", ONE), HeldManifest("type", 7, 1000))

    def test_any_manifest(self) -> None:
        """The one seen last; never a blob, never another repository's; none once dropped."""
        self.assertIsNone(self.known.any_manifest("r"))
        self.known.hold("r", ONE, "type", 7)
        self.clock.advance(1)
        self.known.hold("r", TWO, "type", 7)
        self.clock.advance(1)
        self.known.hold("r", Digest.of(b"blob"))
        self.known.hold("s", Digest.of(b"theirs"), "type", 7)
        self.assertEqual(self.known.any_manifest("r"), TWO)
        self.known.drop("r", TWO)
        self.assertEqual(self.known.any_manifest("r"), ONE)
        self.other.drop("r", ONE)
        self.assertEqual(self.known.any_manifest("r"), ONE)

    def test_tag(self) -> None:
        """A tag's record: kept, postponed, kept anew, dropped."""
        self.assertIsNone(self.known.tag("r", "t"))
        self.known.keep_tag("r", "t", ONE, "type", 7)
        self.known.postpone_tag("r", "t", 1010)
        self.assertEqual(self.known.tag("r", "t"), TagRecord(ONE, "type", 7, 1000, 1010))
        self.clock.advance(5)
        self.known.keep_tag("r", "t", TWO, "other", 8)
        self.assertEqual(self.known.tag("r", "t"), TagRecord(TWO, "other", 8, 1005, 0))
        for known, repository, tag in ((self.other, "r", "t"), (self.known, "s", "t"), (self.known, "r", "T")):
            self.assertIsNone(known.tag(repository, tag))
            known.drop_tag(repository, tag)
        self.assertIsNotNone(self.known.tag("r", "t"))
        self.known.drop_tag("r", "t")
        self.assertIsNone(self.known.tag("r", "t"))

    def test_missed(self) -> None:
        """A miss stands for one credential, until its time is over."""
        self.known.miss("r", "t", "c", "not there", 1010)
        self.assertEqual(self.known.missed("r", "t", "c"), "not there")
        for known, repository, reference, credential in (
            (self.other, "r", "t", "c"),
            (self.known, "s", "t", "c"),
            (self.known, "r", "u", "c"),
            (self.known, "r", "t", ""),
        ):
            self.assertIsNone(known.missed(repository, reference, credential))
        self.clock.advance(10)
        self.assertIsNone(self.known.missed("r", "t", "c"))

    def test_listing(self) -> None:
        """A page as it came, with and without a Link; dropped alone."""
        self.known.keep_listing("r", "p", "type", b"\x00body", "<next>")
        self.known.keep_listing("r", "q", "type", b"", None)
        self.assertEqual(self.known.listing("r", "p"), ListingRecord("type", b"\x00body", "<next>", 1000))
        self.assertEqual(self.known.listing("r", "q"), ListingRecord("type", b"", None, 1000))
        self.assertIsNone(self.other.listing("r", "p"))
        self.known.drop_listing("r", "p")
        self.assertIsNone(self.known.listing("r", "p"))
        self.assertIsNotNone(self.known.listing("r", "q"))

    def test_verdict(self) -> None:
        """A verdict is one credential's, for one repository, and can be taken back."""
        self.known.allow("r", "c")
        self.assertEqual(self.known.allowed_at("r", "c"), 1000)
        for known, repository, credential in (
            (self.other, "r", "c"),
            (self.known, "s", "c"),
            (self.known, "r", "d"),
            (self.known, "r", ""),
        ):
            self.assertIsNone(known.allowed_at(repository, credential))
            known.revoke(repository, credential)
        self.assertEqual(self.known.allowed_at("r", "c"), 1000)
        self.known.revoke("r", "c")
        self.assertIsNone(self.known.allowed_at("r", "c"))

    def test_public(self) -> None:
        """That strangers were let in is one repository's."""
        self.known.publish("r")
        self.assertEqual(self.known.public_at("r"), 1000)
        self.assertIsNone(self.known.public_at("s"))
        self.assertIsNone(self.other.public_at("r"))
        self.known.unpublish("r")
        self.assertIsNone(self.known.public_at("r"))

"""The catalog: small facts that processes share, and that it may forget."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.names import Digest
from docxy.storage.catalog import Catalog
from docxy.storage.records import UpstreamCatalog


class CatalogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.path = self.mktemp()

    def open(self, path: str | None = None) -> Catalog:
        catalog = Catalog(path or self.path, self.clock.seconds)
        self.addCleanup(catalog.close)
        return catalog

    def test_facts(self) -> None:
        """Facts are replaced or settled once and for all, and outlive the process."""
        catalog = self.open()
        self.assertIsNone(catalog.fact("a"))
        catalog.keep_fact("a", "1")
        catalog.keep_fact("a", "2")
        self.assertEqual(catalog.settle_fact("key", "mine"), "mine")
        catalog.close()
        again = self.open()
        self.assertEqual((again.fact("a"), again.settle_fact("key", "theirs")), ("2", "mine"))

    def test_shared(self) -> None:
        """What one process notes, another one sees at once."""
        one, two = self.open(), self.open()
        one.keep_fact("a", "1")
        self.assertEqual(two.fact("a"), "1")

    def test_claims(self) -> None:
        """One asker at a time, until it is done or its time is over."""
        one, two = self.open(), self.open()
        self.assertTrue(one.claim("k", 30))
        self.assertFalse(two.claim("k", 30))
        self.assertTrue(two.claim("other", 30))
        self.assertTrue(two.claimed("k"))
        one.release("k")
        self.assertFalse(two.claimed("k"))
        self.assertTrue(two.claim("k", 30))
        self.clock.advance(31)
        self.assertFalse(one.claimed("k"))
        self.assertTrue(one.claim("k", 30))

    def test_strangers(self) -> None:
        """A stranger's credential is one for as long as it lives."""
        catalog = self.open()
        catalog.stranger("c", self.clock.seconds() + 60)
        self.assertTrue(catalog.is_stranger("c"))
        self.assertFalse(catalog.is_stranger("d"))
        self.clock.advance(61)
        self.assertFalse(catalog.is_stranger("c"))

    def test_purge(self) -> None:
        """What is past its use is forgotten; what was used since is not, though it was noted long ago."""
        catalog = self.open()
        known = UpstreamCatalog(catalog, "u")
        old, used = Digest.of(b"old"), Digest.of(b"used")
        for digest in (old, used):
            known.hold("r", digest)
        known.keep_tag("r", "old", old, "t", 3)
        known.keep_listing("r", "p", "t", b"{}", None)
        known.publish("r")
        known.allow("r", "c")
        known.miss("r", "x", "c", "no", self.clock.seconds() + 10)
        catalog.stranger("c", self.clock.seconds() + 10)
        catalog.claim("k", 10)
        self.clock.advance(80_000)
        self.assertTrue(known.holds_blob("r", used))
        known.keep_tag("r", "new", used, "t", 4)
        self.clock.advance(20_000)
        catalog.purge(unseen=90_000, short=3600)
        self.assertEqual([known.holds_blob("r", old), known.holds_blob("r", used)], [False, True])
        self.assertIsNone(known.tag("r", "old"))
        self.assertIsNotNone(known.tag("r", "new"))
        for table in ("listings", "public", "verdicts", "missing", "strangers", "claims"):
            self.assertEqual(catalog.rows(f"SELECT * FROM {table}"), [], table)

    def told(self) -> list[str]:
        """What operators are told from now on."""
        told: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            told.append(str(event.get("log_format")))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return told

    def test_not_a_database(self) -> None:
        """A file that is none, and a directory that is not there, are replaced by memory; the operator is told."""
        with open(self.path, "wb") as file:
            file.write(b"no database " * 1000)
        told = self.told()
        for path in (self.path, os.path.join(self.mktemp(), "catalog")):
            catalog = self.open(path)
            catalog.keep_fact("a", "1")
            self.assertEqual(catalog.fact("a"), "1")
        self.assertEqual(len(told), 2)

    def test_breaks(self) -> None:
        """A catalog that breaks finds nothing and keeps nothing, and complains now and then."""
        catalog = self.open()
        known = UpstreamCatalog(catalog, "u")
        catalog.close()
        told = self.told()
        digest = Digest.of(b"x")
        for _ in range(3):
            known.hold("r", digest)
            self.assertFalse(known.holds_blob("r", digest))
            self.assertIsNone(known.tag("r", "t"))
            self.assertFalse(catalog.claim("k", 10))
            self.assertFalse(catalog.claimed("k"))
            self.assertEqual(catalog.settle_fact("a", "mine"), "mine")
            self.assertEqual(catalog.rows("SELECT 1"), [])
        self.assertEqual(len(told), 1)
        self.clock.advance(61)
        self.assertIsNone(catalog.fact("a"))
        self.assertEqual(len(told), 2)

    def test_no_table(self) -> None:
        """A database of another make is one that breaks."""
        catalog = self.open()
        catalog.run("DROP TABLE facts")
        self.assertIsNone(catalog.fact("a"))

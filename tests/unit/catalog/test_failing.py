"""The catalog's file when it is damaged, removed, locked or stuck: docxy goes on, and the file mends."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import sqlite3
from typing import Any

from twisted.internet.defer import Deferred

from docxy.catalog import behind
from docxy.catalog.behind import LAG, MAX_WRITES, PATIENCE, RETRY
from docxy.names import Digest
from tests.unit.catalog.case import ONE, TWO
from tests.unit.catalog.fixtures import FileCase, at_once


class Failures(FileCase):
    """Files that fail."""

    def test_not_a_database(self) -> None:
        """A file that is none is moved aside once for all processes, the operator told; what follows is shared."""
        with open(self.path, "wb") as file:
            file.write(b"no database " * 1000)
        told = self.told()
        one, two = self.open(), self.open()
        one.upstream("u").tags.keep("r", "t", ONE, "type", 7)
        self.assertIsNotNone(self.now(two.upstream("u").tags.get("r", "t")))
        self.assertEqual(len(told), 1)
        self.assertIn(f"{self.path}.damaged", told[0])
        self.assertTrue(os.path.exists(f"{self.path}.damaged"))

    def test_damaged_while_running(self) -> None:
        """Damage found by one of two processes is mended once; both go on with one new file."""
        one, two = self.open(), self.open()
        known = one.upstream("u")
        for number in range(300):
            known.held.hold_blob("r", Digest.of(str(number).encode()))
        database = sqlite3.connect(self.path)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        with open(self.path, "r+b") as file:
            file.seek(100)
            file.write(b"\xff" * (os.path.getsize(self.path) - 100))
        told = self.told()
        self.clock.advance(LAG)
        self.assertFalse(self.now(two.upstream("u").held.blob("r", Digest.of(b"250"))))
        self.assertFalse(self.now(known.held.blob("r", Digest.of(b"251"))))
        known.tags.keep("r", "t", ONE, "type", 7)
        self.assertIsNotNone(self.now(two.upstream("u").tags.get("r", "t", latest=True)))
        self.assertEqual(len([line for line in told if "is damaged" in line]), 1)

    def test_no_table(self) -> None:
        """Tables that are missing are there again without a restart."""
        catalog = self.open()
        database = sqlite3.connect(self.path)
        database.execute("DROP TABLE tags")
        database.close()
        known = catalog.upstream("u")
        self.assertIsNone(self.now(known.tags.get("r", "t")))
        known.tags.keep("r", "t", ONE, "type", 7)
        self.assertIsNotNone(self.now(known.tags.get("r", "t", latest=True)))

    def test_removed(self) -> None:
        """A directory that was emptied under a running docxy is filled again."""
        known = self.open().upstream("u")
        for name in os.listdir(self.directory):
            os.unlink(os.path.join(self.directory, name))
        known.tags.keep("r", "t", ONE, "type", 7)
        self.assertIsNotNone(self.now(self.open().upstream("u").tags.get("r", "t")))

    def test_locked(self) -> None:
        """While another process holds the write lock, nothing waits: reads go on, writes are kept for later."""
        catalog = self.open()
        known = catalog.upstream("u")
        known.tags.keep("r", "old", ONE, "type", 7)
        told = self.told()
        locking = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(locking.close)
        locking.execute("BEGIN IMMEDIATE")
        known.tags.keep("r", "t", TWO, "type", 7)
        self.clock.advance(3 * RETRY)
        self.assertIsNotNone(self.now(known.tags.get("r", "old", latest=True)))
        self.assertIsNotNone(self.now(known.tags.get("r", "t", latest=True)))
        self.assertEqual(len(told), 1)
        self.assertIn(self.path, told[0])
        locking.execute("ROLLBACK")
        self.clock.advance(RETRY)
        self.assertIsNotNone(self.now(self.open().upstream("u").tags.get("r", "t")))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_while_locked(self) -> None:
        """A stop waits for no lock; what could not be written is told."""
        catalog = self.open()
        locking = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(locking.close)
        locking.execute("BEGIN IMMEDIATE")
        catalog.upstream("u").tags.keep("r", "t", TWO, "type", 7)
        told = self.told()
        self.now(catalog.close())
        self.assertTrue(any("could not be written" in line for line in told), told)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stuck(self) -> None:
        """A disk that does not answer: a read finds nothing after a moment, and what was written is read."""
        stuck = [False]

        def in_thread(work: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            return Deferred() if stuck[0] else at_once(work, *args, **kwargs)

        known = self.open(in_thread).upstream("u")
        stuck[0] = True
        reading = Deferred.fromCoroutine(known.tags.get("r", "t"))
        self.clock.advance(PATIENCE - 0.1)
        self.assertNoResult(reading)
        self.clock.advance(0.2)
        self.assertIsNone(self.successResultOf(reading))
        known.tags.keep("r", "t", ONE, "type", 7)
        self.assertIsNotNone(self.now(known.tags.get("r", "t")))
        stuck[0] = False

    def test_writes_are_bounded(self) -> None:
        """While nothing can be written, what waits has a bound; the oldest is forgotten."""
        self.patch(behind, "RETRY", 1e6)
        catalog = self.open()
        known = catalog.upstream("u")
        locking = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(locking.close)
        locking.execute("BEGIN IMMEDIATE")
        for number in range(MAX_WRITES + 10):
            known.tags.keep("r", str(number), ONE, "type", 7)
        locking.execute("ROLLBACK")
        self.now(catalog.close())
        kept = self.open().upstream("u")
        self.assertIsNone(self.now(kept.tags.get("r", "5")))
        self.assertIsNotNone(self.now(kept.tags.get("r", str(MAX_WRITES))))

"""The catalog in a file: the contract, several processes, restarts, bounds, damage, and who may read it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import sqlite3
import stat
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from docxy.catalog import history, rows, schema
from docxy.catalog.behind import LAG, Broken
from docxy.catalog.interfaces import Sighting
from docxy.catalog.rows import UNREAD
from docxy.catalog.sqlite import SLICE, SqliteCatalog
from docxy.names import Digest
from tests.unit.catalog.case import ONE, TWO
from tests.unit.catalog.contract import CatalogContract
from tests.unit.catalog.fixtures import BUDGET, FileCase, at_once
from tests.unit.catalog.history_contract import HistoryContract


def in_memory(known: Any, tag: str) -> Any:
    """What this process's memory has of a tag; UNREAD where only the file can tell."""
    return known.tags._rows.peek(("u", "r", tag))


class FileContractTests(CatalogContract, HistoryContract, SynchronousTestCase):
    """The contract, in a file."""

    def make_catalog(self) -> SqliteCatalog:
        directory = self.mktemp()
        os.mkdir(directory)
        catalog = SqliteCatalog(directory, BUDGET, at_once, self.clock, self.clock.seconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(catalog.close()))
        return catalog


class Processes(FileCase):
    """What several catalogs of one directory see of each other."""

    def test_restart(self) -> None:
        """What was known is known after a restart, a secret too."""
        one = self.open()
        one.upstream("u").tags.keep("r", "t", ONE, "type", 7)
        one.facts.keep("a", "1")
        credential = one.secret.credential("Bearer x")
        self.now(one.close())
        again = self.open()
        self.assertIsNotNone(self.now(again.upstream("u").tags.get("r", "t")))
        self.assertEqual((again.facts.get("a"), again.secret.credential("Bearer x")), ("1", credential))

    def test_latest_fact(self) -> None:
        """Another process's fact is read when it is asked for; while the file cannot be read, the one from before."""
        one, two = self.open(), self.open()
        one.facts.keep("a", "1")
        self.now(one.flushed())
        self.assertIsNone(two.facts.get("a"))
        self.assertEqual(self.now(two.facts.latest("a")), "1")
        self.assertEqual(two.facts.get("a"), "1")

        one.facts.keep("a", "2")
        self.now(one.flushed())
        self.patch(two._behind, "read", self.broken)
        self.assertEqual(self.now(two.facts.latest("a")), "1")

    def test_lag(self) -> None:
        """Another process's word is heard after LAG at the latest; at once by who asks for the latest."""
        one, two = (self.open().upstream("u") for _ in range(2))
        one.tags.keep("r", "t", ONE, "type", 7)
        self.assertIsNotNone(self.now(two.tags.get("r", "t")))
        one.tags.drop("r", "t")
        one.verdicts.allow("r", "c")
        self.assertIsNotNone(in_memory(two, "t"))
        self.assertIsNone(self.now(two.tags.get("r", "t", latest=True)))
        self.assertIs(in_memory(two, "gone"), UNREAD)
        one.tags.keep("r", "t", TWO, "type", 7)
        self.clock.advance(LAG)
        self.assertIs(in_memory(two, "t"), UNREAD)
        self.assertEqual(self.now(two.tags.get("r", "t")).digest, TWO)  # type: ignore[union-attr]  # it is there

    def test_looks_are_shared(self) -> None:
        """One look at the file a LAG is enough for all rows while nobody else writes."""
        reads = 0

        def counting(work: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            nonlocal reads
            reads += getattr(work, "__name__", "") == "read"
            return at_once(work, *args, **kwargs)

        known = self.open(counting).upstream("u")
        for number in range(10):
            known.tags.keep("r", str(number), ONE, "type", 7)
            self.now(known.tags.get("r", str(number), latest=True))
        for _ in range(5):
            self.clock.advance(LAG)
            reads = 0
            for number in range(10):
                self.assertIsNotNone(self.now(known.tags.get("r", str(number))))
            self.assertEqual(reads, 1)

    def test_one_look_for_all(self) -> None:
        """A look that finds the file changed makes every row in memory one to read again."""
        one, two = (self.open().upstream("u") for _ in range(2))
        for tag in ("a", "b"):
            one.tags.keep("r", tag, ONE, "type", 7)
            self.assertIsNotNone(self.now(two.tags.get("r", tag)))
        one.tags.drop("r", "b")
        self.clock.advance(LAG)
        self.assertIsNotNone(self.now(two.tags.get("r", "a")))
        self.assertIs(in_memory(two, "b"), UNREAD)
        self.assertIsNone(self.now(two.tags.get("r", "b")))

    def test_clock_set_back(self) -> None:
        """A look from before the clock was set back is none."""
        known = self.open().upstream("u")
        known.tags.keep("r", "t", ONE, "type", 7)
        self.now(known.tags.get("r", "t", latest=True))
        self.assertIsNot(in_memory(known, "t"), UNREAD)
        self.clock.rightNow -= 3600
        self.assertIs(in_memory(known, "t"), UNREAD)

    def test_claims(self) -> None:
        """One process asks; the first that waits in another is next, once what the first wrote can be read."""
        one, two = self.open(), self.open()
        self.assertTrue(self.now(one.claims.claim("k", 30)))
        waiting = [Deferred.fromCoroutine(two.claims.claim("k", 30)) for _ in range(500)]
        self.assertEqual(len([each for each in self.clock.getDelayedCalls() if each.getTime() < 1_800_000_001]), 1)
        self.assertTrue(self.now(two.claims.claim("other", 30)))
        self.clock.advance(1)
        for each in waiting:
            self.assertNoResult(each)
        one.claims.release("k")
        self.clock.advance(1)
        self.assertTrue(self.successResultOf(waiting[0]))
        two.claims.release("k")
        self.assertEqual({self.successResultOf(each) for each in waiting[1:]}, {False})
        self.assertTrue(self.now(one.claims.claim("k", 30)))

    def test_release_after_writing(self) -> None:
        """Another process may claim what we asked once it can read what we wrote."""
        jobs: list[Deferred[Any]] = []

        def held_up(work: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            job: Deferred[Any] = Deferred()
            jobs.append(job)
            return job.addCallback(lambda _: work(*args, **kwargs))

        one, two = self.open(held_up), self.open()
        self.assertTrue(self.now(one.claims.claim("k", 30)))
        one.upstream("u").tags.keep("r", "t", ONE, "type", 7)
        one.claims.release("k")
        waiting = Deferred.fromCoroutine(two.claims.claim("k", 30))
        self.clock.advance(1)
        self.assertNoResult(waiting)
        jobs.pop().callback(None)
        self.clock.advance(1)
        self.assertTrue(self.successResultOf(waiting))
        self.assertIsNotNone(self.now(two.upstream("u").tags.get("r", "t", latest=True)))
        closing = Deferred.fromCoroutine(one.close())
        jobs.pop().callback(None)
        self.successResultOf(closing)

    def test_one_change_one_row(self) -> None:
        """Processes that learn of a change at the same moment make one row of it; the first sight of all stands."""
        one, two = (self.open().upstream("u") for _ in range(2))
        for each in (one, two):
            each.history.changed("r", "t", ONE)
            self.now(each.history.seen("r", ONE))
            self.clock.advance(0.5)
        one.history.changed("r", "t", TWO)
        two.history.changed("r", "t", TWO)
        self.clock.advance(LAG)
        for each in (one, two, self.open().upstream("u")):
            changes = self.now(each.history.changes("r", "t", 10))
            self.assertEqual([change.digest for change in changes], [TWO, ONE])
            self.assertEqual(self.now(each.history.sighting("r", ONE)), Sighting(1_800_000_000))

    def test_first_sight_of_a_process_that_could_not_read(self) -> None:
        """A process that takes a digest for new, because it could not read the file, does not make it younger."""
        one = self.open().upstream("u")
        self.now(one.history.seen("r", ONE))
        self.clock.advance(86400)
        blind = self.open()
        self.patch(blind._behind, "read", self.broken)
        self.now(blind.upstream("u").history.seen("r", ONE))
        self.clock.advance(LAG)
        self.assertEqual(self.now(one.history.sighting("r", ONE)), Sighting(1_800_000_000))

    async def broken(self, *_: object) -> Any:
        raise Broken


class Bounds(FileCase):
    """What clients can make grow."""

    def test_listings(self) -> None:
        """150 pages of a megabyte under random names take no more disk than what may be kept of them."""
        catalog = self.open()
        for number in range(150):
            self.clock.advance(1)
            catalog.upstream("u").listings.keep("r", f"tags/list?last={number}", "t", bytes(1 << 20), None)
        # What is kept, what one transaction adds before it is cut, and the write-ahead log.
        files = FilePath(self.directory).children()
        self.assertLess(sum(each.getsize() for each in files), 2 * schema.MAX_PAGE_BYTES)

    def test_rows(self) -> None:
        """Beyond so many rows the ones used least recently go, a slice at a time."""
        for table in schema.TABLES:
            self.patch_most(table, 700)
        self.patch(rows, "TRIM_EVERY", 1 << 30)
        jobs = 0

        def counting(work: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            nonlocal jobs
            jobs += 1
            return at_once(work, *args, **kwargs)

        catalog = self.open(counting)
        known = catalog.upstream("u")
        for number in range(700 + 3 * SLICE):
            self.clock.advance(1)
            known.held.hold_blob("r", Digest.of(str(number).encode()))
        jobs = 0
        self.now(catalog.purge(1e9, 1e9, 1e9))
        self.assertGreaterEqual(jobs, 3)
        database = sqlite3.connect(self.path)
        self.addCleanup(database.close)
        self.assertEqual(database.execute("SELECT count(*) FROM held").fetchone(), (700,))
        self.assertFalse(self.now(known.held.blob("r", Digest.of(b"1499"))))
        self.assertTrue(self.now(known.held.blob("r", Digest.of(b"1500"))))

    def test_names_that_never_come_again(self) -> None:
        """A small cache's catalog keeps to its share while it grows, not only when it is seen to; the newest stay."""
        budget = 16 << 20
        catalog = self.open(budget=budget)
        known = catalog.upstream("u")
        for number in range(12_000):
            self.clock.advance(0.01)
            known.held.hold_blob(f"churn/{number}", Digest.of(str(number).encode()))
            known.tags.keep(f"churn/{number}", "latest", ONE, "type", 7)
        files = FilePath(self.directory).children()
        self.assertLess(sum(each.getsize() for each in files), budget * schema.CATALOG_SHARE + (1 << 20))
        self.assertTrue(self.now(known.held.blob("churn/11999", Digest.of(b"11999"))))
        database = sqlite3.connect(self.path)
        self.addCleanup(database.close)
        for table in (schema.HELD, schema.TAGS):
            (count,) = database.execute(f"SELECT count(*) FROM {table.name}").fetchone()
            most = table.within(budget).most
            self.assertIn(count, range(most, most + 2 * rows.TRIM_EVERY))
        self.assertEqual(schema.HELD.within(20 << 30), schema.HELD, "a cache of an ordinary size limits nothing")

    def test_history(self) -> None:
        """However many tags move, so many changes of an upstream are kept, the newest; removed a slice at a time."""
        self.patch(history, "MOST", 100)
        self.patch(history, "FEWEST", 100)
        catalog = self.open()
        for name in ("u", "v"):
            for number in range(100 + 3 * SLICE):
                self.clock.advance(1)
                catalog.upstream(name).history.changed("r", str(number), ONE)
        self.now(catalog.purge(1e9, 1e9, 1e9))
        for name in ("u", "v"):
            changes = self.now(catalog.upstream(name).history.changes("r", None, 10_000))
            self.assertEqual([each.tag for each in changes], [str(number) for number in range(1599, 1499, -1)])

    def test_history_of_all(self) -> None:
        """However many registries clients name, so many changes are kept of all together, the newest."""
        self.patch(history, "MOST_OF_ALL", 100)
        self.patch(history, "FEWEST", 100)
        catalog = self.open()
        for number in range(150):
            self.clock.advance(1)
            catalog.upstream(f"r{number}.example").history.changed("r", "latest", ONE)
        self.now(catalog.purge(1e9, 1e9, 1e9))
        known = [self.now(catalog.upstream(f"r{n}.example").history.changes("r", None, 9)) for n in range(150)]
        self.assertEqual([len(changes) for changes in known], [0] * 50 + [1] * 100)

    def patch_most(self, table: Any, most: int) -> None:
        before = table.most
        object.__setattr__(table, "most", most)
        self.addCleanup(object.__setattr__, table, "most", before)

    def test_gives_back(self) -> None:
        """What a purge removes, the file system gets back."""
        catalog = self.open()
        known = catalog.upstream("u")
        for number in range(5000):
            known.held.hold_blob("r", Digest.of(str(number).encode()))
        self.clock.advance(100)
        checkpoint = sqlite3.connect(self.path)
        self.addCleanup(checkpoint.close)
        checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = os.path.getsize(self.path)
        self.now(catalog.purge(10, 10, 10))
        checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.assertLess(os.path.getsize(self.path), before / 4)


class Readers(FileCase):
    """Who may read it."""

    def test_modes(self) -> None:
        """Whatever the umask, nobody else may read any of its files; what was open before is closed."""
        os.umask(before := os.umask(0))
        self.addCleanup(os.umask, before)
        os.umask(0)
        with open(self.path, "wb"):
            pass
        self.open().upstream("u").tags.keep("r", "t", ONE, "type", 7)
        names = os.listdir(self.directory)
        self.assertLessEqual({"catalog.sqlite", "catalog.sqlite-wal", "secret", "catalog.claims"}, set(names))
        for name in names:
            mode = stat.S_IMODE(os.stat(os.path.join(self.directory, name)).st_mode)
            self.assertEqual(mode & 0o077, 0, name)

    def test_secret(self) -> None:
        """What credentials are known by differs from cache to cache, keys from purpose to purpose."""
        one = self.open()
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        two = self.open()
        self.assertNotEqual(one.secret.credential("Basic eDp5"), two.secret.credential("Basic eDp5"))
        self.assertNotEqual(one.secret.derive("a"), one.secret.derive("b"))
        self.assertEqual(one.secret.credential(None), "")

    def test_not_a_secret(self) -> None:
        """A secret that was cut is an error that says what to do."""
        with open(os.path.join(self.directory, "secret"), "wb") as file:
            file.write(b"short")
        self.assertIn("remove it", str(self.assertRaises(OSError, self.open)))

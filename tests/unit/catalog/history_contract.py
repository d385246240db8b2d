"""What every catalog promises of history: when digests were first seen, and where tags led."""

from __future__ import annotations

from docxy.catalog import history as memory_of_changes
from docxy.catalog.history import USE_NOTED
from docxy.catalog.interfaces import Change, Sighting
from docxy.names import Digest
from tests.unit.catalog.case import ONE, TWO, CatalogCase


class HistoryContract(CatalogCase):
    """By the clock of docxy."""

    def told(self, tag: str | None = "t", limit: int = 10) -> list[tuple[str, Digest | None, float, float]]:
        """The changes of a tag of `r`, the newest first, without what only orders them."""
        changes = self.now(self.known.history.changes("r", tag, limit))
        return [(each.tag, each.digest, round(each.at, 3), each.first) for each in changes]

    def sighted(self, digest: Digest) -> Sighting | None:
        return self.now(self.known.history.sighting("r", digest))

    def test_first_sight(self) -> None:
        """The first sight of a digest stands, for each repository and upstream; asking for it makes none."""
        history = self.known.history
        self.assertIsNone(self.sighted(ONE))
        self.assertEqual(self.now(history.seen("r", ONE)), Sighting(1000))
        self.clock.advance(USE_NOTED)
        self.assertEqual(self.now(history.seen("r", ONE)), Sighting(1000))
        self.now(history.flushed())
        self.assertEqual(self.sighted(ONE), Sighting(1000))
        for other, repository, digest in ((history, "s", ONE), (self.other.history, "r", ONE), (history, "r", TWO)):
            self.assertIsNone(self.now(other.sighting(repository, digest, latest=True)))

    def test_first_sight_in_the_future(self) -> None:
        """A first sight from before the clock was set back is now."""
        self.now(self.known.history.seen("r", ONE))
        self.clock.rightNow = 10
        self.assertEqual(self.now(self.known.history.seen("r", ONE)), Sighting(10))
        self.now(self.catalog.flushed())
        self.assertEqual(self.sighted(ONE), Sighting(10))

    def test_children(self) -> None:
        """What an index names is as old as the index, unless it was there before; what is excused stays so."""
        history = self.known.history
        self.now(history.seen("r", ONE))
        self.clock.advance(100)
        history.lists("r", Sighting(1050), [ONE, TWO])
        history.lists("r", Sighting(1080, excused=True), [TWO])
        history.lists("r", Sighting(1090), [TWO])
        for _ in range(2):
            self.assertEqual(self.sighted(ONE), Sighting(1000))
            self.assertEqual(self.now(history.seen("r", TWO)), Sighting(1050, excused=True))
            self.now(self.catalog.flushed())

    def test_asking_keeps_a_sighting(self) -> None:
        """The first sight of what is pulled now and then is never forgotten."""
        for digest in (ONE, TWO):
            self.now(self.known.history.seen("r", digest))
        for _ in range(4):
            self.clock.advance(50_000)
            self.assertEqual(self.sighted(ONE), Sighting(1000))
            self.now(self.catalog.purge(unseen=90_000, short=90_000, history=90_000))
        self.assertIsNone(self.sighted(TWO))

    def test_changes(self) -> None:
        """A tag's changes, the newest first, with the first sight of what it led to; one change is one row."""
        history = self.known.history
        history.lists("r", Sighting(900), [ONE])
        history.changed("r", "t", ONE)
        history.changed("r", "t", ONE)
        self.clock.advance(10)
        history.changed("r", "t", ONE)
        history.changed("r", "t", TWO)
        history.changed("r", "t", ONE)
        self.clock.advance(10)
        history.changed("r", "t", None)
        history.changed("r", "t", None)
        history.changed("r", "u", TWO)
        rows = [("t", None, 1020, 1020), ("t", ONE, 1010, 900), ("t", TWO, 1010, 1010), ("t", ONE, 1000, 900)]
        found = [(tag, digest, at, round(first, 3)) for tag, digest, at, first in self.told()]
        self.assertEqual(found, rows)
        self.assertEqual(len(self.told(limit=2)), 2)
        self.assertEqual({each[0] for each in self.told(None)}, {"t", "u"})
        self.assertEqual(self.now(self.other.history.changes("r", "t", 10)), [])
        self.assertEqual(self.now(history.changes("s", "t", 10)), [])

    def test_learn(self) -> None:
        """What another node saw fills what this one did not see, with its first sights; the same twice is nothing."""
        history = self.known.history
        three = Digest.of(b"three")
        history.lists("r", Sighting(300), [three])
        self.clock.rightNow = 5000
        for digest in (ONE, TWO):
            self.now(history.seen("r", digest))
        history.changed("r", "t", ONE)
        theirs = [Change("t", TWO, 500, 400), Change("t", ONE, 1000, 900), Change("t", three, 6000, 6000)]
        for _ in range(2):
            self.now(history.learn("r", "t", theirs, None))
            self.assertEqual(self.told(), [("t", ONE, 1000, 900), ("t", TWO, 500, 400)])
            self.assertEqual(self.now(history.as_of("r", "t", 700)).change.digest, TWO)
            self.assertEqual([self.sighted(each) for each in (TWO, three)], [Sighting(400), Sighting(300)])
            self.now(self.catalog.flushed())
        self.assertEqual(self.now(history.changes("r", "u", 10)), [])
        self.assertEqual(self.now(self.other.history.changes("r", "t", 10)), [])

    def test_learn_is_bounded(self) -> None:
        """Of one tag no more is learnt than is kept, the newest."""
        self.patch(memory_of_changes, "MOST_OF_TAG", 5)
        digests = [Digest.of(str(number).encode()) for number in range(9)]
        self.now(self.known.history.learn("r", "t", [Change("t", each, n, n) for n, each in enumerate(digests)], None))
        self.assertEqual([each[1] for each in self.told()], digests[:3:-1])

    def test_never_there(self) -> None:
        """Of a tag that docxy never saw, nothing says that it is gone."""
        self.known.history.changed("r", "t", None)
        self.assertEqual(self.told(), [])

    def test_late_note(self) -> None:
        """A note that comes after a later one, from a clock set back, adds no row that says what is known."""
        history = self.known.history
        history.changed("r", "t", ONE)
        self.clock.advance(20)
        history.changed("r", "t", TWO)
        for digest in (ONE, TWO):
            self.clock.rightNow = 1010
            history.changed("r", "t", digest)
        self.assertEqual([each[1:3] for each in self.told()], [(TWO, 1020), (ONE, 1000)])

    def test_as_of(self) -> None:
        """Where a tag led at any time, and since when it is known."""
        history = self.known.history
        history.changed("r", "t", ONE)
        self.clock.advance(10)
        history.changed("r", "t", TWO)
        self.clock.advance(10)
        history.changed("r", "t", None)
        for at, digest in ((1000, ONE), (1009, ONE), (1010, TWO), (1019, TWO), (1020, None), (9000, None)):
            found = self.now(history.as_of("r", "t", at))
            assert found.change is not None
            self.assertEqual((found.change.digest, found.began), (digest, 1000), at)
        before, unknown = self.now(history.as_of("r", "t", 999)), self.now(history.as_of("r", "u", 9000))
        self.assertEqual((before.change, before.began), (None, 1000))
        self.assertEqual((unknown.change, unknown.began), (None, None))

    def test_purge_of_history(self) -> None:
        """What is older than it has to be goes, but for where a tag still led then; a tag that is unknown goes too."""
        history = self.known.history
        for tag, digests in (("t", (ONE, TWO, ONE)), ("quiet", (ONE,)), ("forgotten", (ONE,)), ("gone", (ONE, None))):
            for digest in digests:
                history.changed("r", tag, digest)
                self.clock.advance(10)
            if tag in ("t", "quiet"):
                self.known.tags.keep("r", tag, ONE, "type", 7)
        self.clock.advance(1000)
        history.changed("r", "t", TWO)
        self.now(self.catalog.purge(unseen=90_000, short=90_000, history=500))
        self.assertEqual([each[1] for each in self.told("t")], [TWO, ONE])
        self.assertEqual([len(self.told(tag)) for tag in ("quiet", "forgotten", "gone")], [1, 0, 0])
        self.assertEqual(self.now(history.as_of("r", "t", self.clock.seconds() - 500)).change.digest, ONE)

    def test_history_is_bounded(self) -> None:
        """However often tags move, so many changes of one and so many of an upstream are kept, the newest."""
        self.patch(memory_of_changes, "MOST_OF_TAG", 5)
        history = self.known.history
        self.known.tags.keep("r", "t", ONE, "type", 7)
        for number in range(12):
            history.changed("r", "t", Digest.of(str(number).encode()))
            self.clock.advance(1)
        self.now(self.catalog.purge(unseen=90_000, short=90_000, history=90_000))
        self.assertEqual([each[1] for each in self.told()], [Digest.of(str(n).encode()) for n in range(11, 6, -1)])

    def test_in_use(self) -> None:
        """Tags whose manifest was pulled lately and that were not asked for lately, the stalest first."""
        history, tags, held = self.known.history, self.known.tags, self.known.held
        old = Digest.of(b"old")
        held.hold_manifest("r", old, "type", 7)
        self.clock.advance(1000)
        held.hold_manifest("r", ONE, "type", 7)
        for tag, digest in (("t", ONE), ("moved", ONE), ("idle", old), ("u", ONE), ("t docker-list", ONE)):
            history.changed("r", tag, digest)
            tags.keep("r", tag, digest, "type", 7)
            self.clock.advance(1)
        history.changed("r", "moved", TWO)
        tags.keep("r", "moved", TWO, "type", 7)
        self.now(self.catalog.flushed())
        found = self.now(history.in_use(1900, self.clock.seconds(), 10))
        self.assertEqual(found, [("r", "t"), ("r", "u")])
        self.clock.advance(1)
        found = self.now(history.in_use(1900, self.clock.seconds(), 10))
        self.assertEqual(found, [("r", "t"), ("r", "u"), ("r", "moved")])
        self.assertEqual(self.now(history.in_use(1900, self.clock.seconds(), 1)), [("r", "t")])

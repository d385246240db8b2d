"""What two nodes saw of one tag, made one history."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from docxy.catalog.interfaces import Change
from docxy.catalog.merging import SKEW, first_sights, lasting, merged
from docxy.names import Digest

A, B, C, D = (Digest.of(bytes([n])) for n in range(4))
NOW = 1e6
Row = tuple[float, Digest | None]


def changes(*rows: Row) -> list[Change]:
    return [Change("t", digest, at, at) for at, digest in rows]


class MergingTests(SynchronousTestCase):
    def check(self, ours: Sequence[Row], theirs: Sequence[Row], told: Row | None, wanted: Sequence[Row]) -> None:
        """Of these comes that, and nothing more when it is merged again."""
        end = None if told is None else changes(told)[0]
        found = merged(changes(*ours), changes(*theirs), end, NOW)
        self.assertEqual([(each.at, each.digest) for each in found], list(wanted))
        self.assertEqual(merged(found, changes(*theirs), end, NOW), found)

    def test_new_node(self) -> None:
        """A node that knows nothing takes all, but for what has not happened yet."""
        theirs = [(0, A), (50, B), (60, None), (5000, C)]
        self.check([], [*theirs, (NOW + 1, D)], None, theirs)

    def test_gap(self) -> None:
        """What happened while nobody asked this node is filled in."""
        self.check([(0, A), (9000, D)], [(0, A), (1000, B), (2000, C)], None, [(0, A), (1000, B), (2000, C), (9000, D)])

    def test_earlier(self) -> None:
        """A change that another node saw first counts from then on, and is no second one."""
        self.check([(0, A), (9000, B)], [(0, A), (1000, B)], None, [(0, A), (1000, B)])
        self.check([(9000, B)], [(1000, A), (5000, B)], None, [(1000, A), (5000, B)])

    def test_later(self) -> None:
        """One that another node saw later is none."""
        self.check([(0, A), (1000, B)], [(0, A), (9000, B)], None, [(0, A), (1000, B)])

    def test_clocks(self) -> None:
        """By a clock that is a minute ahead or behind nothing changes its order, and the end stays the end."""
        ours = [(0, A), (1000, B), (1030, C)]
        for theirs in ([(60, A), (1060, B)], [(-60, A), (945, B), (970, C)], [(970, C)], [(1089, B)]):
            self.check(ours, theirs, None, ours)

    def test_told(self) -> None:
        """Where the registry just said that it leads, it leads, whatever another node saw last."""
        self.check([(0, A)], [(5000, B)], (9000, A), [(0, A), (5000, B), (9000, A)])
        self.check([(0, A)], [(8990, B)], (9000, A), [(0, A)])
        self.check([(0, A)], [(5000, None)], (9000, None), [(0, A), (5000, None)])

    def test_never_there(self) -> None:
        """Of a tag that nobody saw, nothing says that it is gone."""
        self.check([], [(0, None)], None, [])

    def test_any(self) -> None:
        """Two nodes that look now and then, by clocks of their own: each one's own sights stand."""
        random = Random(1)
        for _ in range(300):
            truth = self.moves(random)
            off = random.uniform(-SKEW / 2, SKEW / 2)
            ours, theirs = self.looked(random, truth, 0.0), self.looked(random, truth, off)
            found = merged(ours, theirs, None, NOW)
            for change in ours:
                self.assertEqual(self.at(found, change.at), change.digest)
            for change in found:
                # What is in it was true then, by one clock or the other.
                near = (change.at, change.at - off)
                self.assertIn(change.digest, [self.at(truth, at) for at in near])
            # A change of ours that another node saw earlier is none any more, and then keeps nothing of theirs away.
            for _ in range(5):
                before, found = found, merged(found, theirs, None, NOW)
            self.assertEqual(found, before)

    def moves(self, random: Random) -> list[Change]:
        at, rows = 0.0, []
        for _ in range(12):
            at += random.choice((5.0, 50.0, 500.0, 5000.0)) * random.random()
            rows.append((at, random.choice((A, B, C, D))))
        return changes((-1e4, A), *rows)

    def looked(self, random: Random, truth: Sequence[Change], off: float) -> list[Change]:
        rows: list[tuple[float, Digest | None]] = []
        for at in sorted(random.uniform(0, truth[-1].at + 600) for _ in range(15)):
            digest = self.at(truth, at)
            if not rows or rows[-1][1] != digest:
                rows.append((at + off, digest))
        return changes(*rows)

    def at(self, history: Sequence[Change], at: float) -> Digest | None:
        return [each.digest for each in history if each.at <= at][-1]


class PartsTests(SynchronousTestCase):
    def test_lasting(self) -> None:
        """Of what is older than history is kept, where the tag led then stays."""
        rows = changes((0, A), (10, B), (20, C))
        for since, left in ((0, 3), (5, 3), (10, 2), (15, 2), (21, 1), (99, 1)):
            self.assertEqual(lasting(rows, since), rows[-left:], since)
        self.assertEqual(lasting([], 5), [])

    def test_first_sights(self) -> None:
        """The first of each digest; what is gone has none."""
        rows = [Change("t", A, 10, 5), Change("t", None, 20, 20), Change("t", A, 30, 3), Change("t", B, 40, 40)]
        self.assertEqual(first_sights(rows), {A: 3, B: 40})

"""Pulls of the last days, on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe import history, sums
from docxy.observe.history import EVERY, KEPT, PullHistory
from docxy.observe.ledger import WINDOW, Charge
from docxy.observe.sums import Sums
from docxy.observe.traffic import Share


def at_once(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """In the place of a thread."""
    return maybeDeferred(work, *args)


def pull(id: str, started: float, repository: str = "library/alpine") -> dict[str, Any]:
    return {"id": id, "upstream": "docker.io", "repository": repository, "started": started}


class HistoryTests(SynchronousTestCase):
    """What is kept, and for how long."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(10 * KEPT)
        self.path = self.mktemp()
        self.budget = 1 << 40
        self.history = self.open()

    def open(self) -> PullHistory:
        return PullHistory(self.path, self.budget, at_once, self.clock)

    def ids(self, *repository: str) -> list[str]:
        found = self.successResultOf(self.history.recent(100, repository or None))  # type: ignore[arg-type]  # two
        return [each["id"] for each in found]

    def test_survives(self) -> None:
        """What was kept is there after a restart, the newest first."""
        now = self.clock.seconds()
        self.history.keep(pull("a", now - 10))
        self.history.keep(pull("b", now - 5, "library/busybox"))
        self.successResultOf(self.history.close())
        self.history = self.open()
        self.assertEqual(self.ids(), ["b", "a"])
        self.assertEqual(self.ids("docker.io", "library/alpine"), ["a"])

    def test_sums(self) -> None:
        """Sums survive a restart; those of two docxys that write beside each other add up; what is old goes."""
        now = self.clock.seconds()
        minute, charge = int(now // 60), Charge(now // 60 * 60, "docker.io", "ci", "library/alpine", "devs")
        one = Share(answers=3, hits=1, joined=1, sent=300, saved=100, received=200)
        other = self.open()
        for each in (self.history, other):
            each.keep_sums(Sums({minute: one, minute - 7 * 24 * 60: one}, Counter({charge: 2})))
        self.history.keep_sums(Sums({}, Counter({evolve(charge, at=now - WINDOW - 60): 5})))
        self.successResultOf(other.close())
        self.successResultOf(self.history.close())
        self.history = self.open()
        twice = Share(answers=6, hits=2, joined=2, sent=600, saved=200, received=400)
        self.assertEqual(self.successResultOf(self.history.sums()), Sums({minute: twice}, Counter({charge: 4})))

    def test_no_sums(self) -> None:
        """Where nothing was counted nothing is written, and to look makes no file."""
        self.history.keep_sums(Sums({}, Counter()))
        self.assertEqual(self.successResultOf(self.history.sums()), Sums({}, Counter()))
        self.assertFalse(os.path.exists(self.path))

    def test_many_charges(self) -> None:
        """No more rows of charges are kept than their bound, the newest."""
        self.patch(sums, "MOST_CHARGES", 3)
        now = self.clock.seconds() // 60 * 60
        made = [Charge(now - 60 * minutes, "docker.io", "ci", "library/alpine", "") for minutes in range(5)]
        self.history.keep_sums(Sums({}, Counter(made)))
        kept = self.successResultOf(self.history.sums()).charges
        self.assertEqual(sorted(kept.elements(), key=lambda each: -each.at), made[:4])

    def test_behind(self) -> None:
        """Nothing is written until a moment later, all in one transaction."""
        self.history.keep(pull("a", self.clock.seconds()))
        self.assertFalse(os.path.exists(self.path))
        self.clock.advance(EVERY)
        self.assertEqual(self.ids(), ["a"])

    def test_looking_makes_nothing(self) -> None:
        """Reading what nobody wrote makes no file."""
        self.assertEqual(self.ids(), [])
        self.assertFalse(os.path.exists(self.path))

    def test_age(self) -> None:
        """After a week a pull is forgotten; one from a clock that was far ahead too."""
        now = self.clock.seconds()
        for id, started in (("old", now - KEPT - 1), ("new", now), ("ahead", now + 2 * KEPT)):
            self.history.keep(pull(id, started))
        self.clock.advance(EVERY)
        self.assertEqual(self.ids(), ["new"])

    def test_bound(self) -> None:
        """No more than the bound are kept, and no more wait."""
        self.patch(history, "MOST", 3)
        self.patch(history, "WAITING", 5)
        now = self.clock.seconds()
        for n in range(10):
            self.history.keep(pull(str(n), now - 10 + n))
        self.clock.advance(EVERY)
        self.assertEqual(self.ids(), ["4", "3", "2", "1"])

    def test_bytes(self) -> None:
        """In a small cache the file stays within its share, however many pulls come, and the newest are in it."""
        self.budget = 8 << 20
        self.history = self.open()
        now = self.clock.seconds()
        for n in range(3000):
            self.history.keep({**pull(f"{n:05}", now - 3000 + n), "words": "x" * 1000})
            if n % 500 == 499:
                self.clock.advance(EVERY)
        self.assertEqual(self.ids()[0], "02999")
        self.successResultOf(self.history.close())
        size = os.path.getsize(self.path)
        self.assertLess(size, self.budget * history.SHARE + 500 * 1500)
        self.assertGreater(size, self.budget * history.SHARE / 2)

    def test_damaged(self) -> None:
        """A file that is no database is moved aside, and a new one begins."""
        with open(self.path, "w") as file:
            file.write("this is not a database" * 100)
        self.assertEqual(self.ids(), [])
        self.assertTrue(os.path.exists(f"{self.path}.damaged"))
        self.history.keep(pull("a", self.clock.seconds()))
        self.clock.advance(EVERY)
        self.assertEqual(self.ids(), ["a"])

    def test_unusable(self) -> None:
        """Where nothing can be kept, nothing is found and nothing fails."""
        self.path = os.path.join(self.mktemp(), "missing", "pulls.sqlite")
        self.history = self.open()
        self.history.keep(pull("a", self.clock.seconds()))
        self.clock.advance(EVERY)
        self.assertEqual(self.ids(), [])

    def test_private(self) -> None:
        """Only docxy's user can read it."""
        self.history.keep(pull("a", self.clock.seconds()))
        self.clock.advance(EVERY)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.successResultOf(self.history.close())

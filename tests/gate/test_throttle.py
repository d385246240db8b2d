"""Pauses after failures."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.gate import throttle
from docxy.gate.throttle import FREE, LONGEST, MAX_ADDRESSES, WINDOW, Throttle


class ThrottleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.throttle = Throttle(self.clock)

    def failures(self, times: int, address: str = "a", user: str = "alice") -> None:
        for _ in range(times):
            self.throttle.failed(address, user)

    def test_pauses_grow(self) -> None:
        """Some failures are free; then each doubles the pause, up to a minute, for ever."""
        self.failures(FREE - 1)
        self.assertEqual(self.throttle.pause("a"), 0)
        pauses = []
        for _ in range(9):
            self.failures(1)
            pauses.append(self.throttle.pause("a"))
            self.clock.advance(pauses[-1])
            self.assertEqual(self.throttle.pause("a"), 0)
        self.assertEqual(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60])
        self.failures(5000)
        self.assertEqual(self.throttle.pause("a"), LONGEST)

    def test_one_address(self) -> None:
        """No other address has to wait."""
        self.failures(20)
        self.assertEqual(self.throttle.pause("b"), 0)

    def test_forgotten(self) -> None:
        """Who has been quiet for long starts afresh."""
        self.failures(FREE)
        self.clock.advance(WINDOW)
        self.failures(1)
        self.assertEqual(self.throttle.pause("a"), 0)

    def test_success(self) -> None:
        """A success forgets that user's failures, and only that user's."""
        self.failures(FREE)
        self.throttle.succeeded("a", "alice")
        self.assertEqual(self.throttle.pause("a"), 0)
        for _ in range(FREE):
            self.failures(1, user="bob")
            self.throttle.succeeded("a", "alice")
        self.assertGreater(self.throttle.pause("a"), 0)
        self.throttle.succeeded("never seen", "alice")

    def test_bounded(self) -> None:
        """Neither addresses nor user names are kept without end; those that failed last are."""
        self.patch(throttle, "MAX_ADDRESSES", 100)
        self.failures(FREE, "first")
        for n in range(99):
            self.failures(1, f"a{n}")
        self.failures(1, "first")
        for n in range(99):
            self.failures(1, f"b{n}")
        self.assertGreater(self.throttle.pause("first"), 0)
        self.failures(1, "last")
        self.assertEqual(self.throttle.pause("first"), 0)
        self.assertGreaterEqual(MAX_ADDRESSES, 1000)
        for n in range(1000):
            self.failures(1, "many", user=f"user{n}" * 100)
        kept = self.throttle._addresses["many"]
        self.assertLess(len(kept.by_user), 20)
        self.assertLess(max(map(len, kept.by_user)), 100)
        self.assertEqual(kept.count, 1000)

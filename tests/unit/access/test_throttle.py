"""Pauses after failures."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.access import throttle
from docxy.access.throttle import ADDRESS_FREE, FREE, KNOWN_FOR, LONGEST, MAX_KEPT, TRUSTED, WINDOW, Throttle
from docxy.broadcast import Broadcast, to_nobody


class ThrottleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.throttle = Throttle(self.clock, Broadcast(to_nobody))

    def failures(self, times: int, address: str = "a", user: str = "alice") -> None:
        for _ in range(times):
            self.throttle.failed(address, user)

    def pause(self, address: str = "a", user: str = "alice") -> float:
        return self.throttle.pause(address, user)

    def test_pauses_grow(self) -> None:
        """Some failures are free; then each doubles the pause, up to a minute, for ever."""
        self.failures(FREE - 1)
        self.assertEqual(self.pause(), 0)
        pauses = []
        for _ in range(9):
            self.failures(1)
            pauses.append(self.pause())
            self.clock.advance(pauses[-1])
            self.assertEqual(self.pause(), 0)
        self.assertEqual(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60])
        self.failures(5000)
        self.assertEqual(self.pause(), LONGEST)

    def test_one_user(self) -> None:
        """Neither another user at this address has to wait, nor this user at another one."""
        self.failures(FREE + 3)
        self.assertEqual([self.pause("a", "bob"), self.pause("b", "alice")], [0, 0])

    def test_one_address(self) -> None:
        """After failures under many names all wait at this address but those that logged in from it lately."""
        self.throttle.succeeded("a", "bob")
        for n in range(ADDRESS_FREE):
            self.failures(1, user=f"user{n}")
        self.assertEqual([self.pause(), self.pause("a", "bob"), self.pause("b")], [1, 0, 0])
        self.clock.advance(KNOWN_FOR)
        self.assertFalse(self.throttle.knows("a", "bob"))

    def test_forgotten(self) -> None:
        """Who has been quiet for long starts afresh; each failure begins the time again."""
        for _ in range(FREE):
            self.clock.advance(WINDOW - 1)
            self.failures(1)
        self.assertGreater(self.pause(), 0)
        self.clock.advance(WINDOW)
        self.failures(1)
        self.assertEqual(self.pause(), 0)

    def test_success(self) -> None:
        """A success forgets that user's failures, at the address too, and only that user's."""
        self.failures(ADDRESS_FREE)
        self.throttle.succeeded("a", "alice")
        self.assertEqual([self.pause(), self.pause("a", "carol")], [0, 0])
        for _ in range(FREE):
            self.failures(1, user="bob")
            self.throttle.succeeded("a", "alice")
        self.assertGreater(self.pause("a", "bob"), 0)
        self.throttle.succeeded("never seen", "alice")

    def test_trusted(self) -> None:
        """A known user's password stays good whatever fails, until too much was tried, in pauses too."""
        self.assertFalse(self.throttle.trusts("a", "alice"))
        self.throttle.succeeded("a", "alice")
        self.failures(FREE)
        for _ in range(TRUSTED - FREE):
            self.assertTrue(self.throttle.trusts("a", "alice"))
            self.throttle.turned_away("a", "alice")
        self.assertFalse(self.throttle.trusts("a", "alice"))
        self.clock.advance(WINDOW)
        self.assertTrue(self.throttle.trusts("a", "alice"))

    def test_bounded(self) -> None:
        """Users, addresses and logins are kept up to a bound, the last ones; long names cost no more than others."""
        self.patch(throttle, "MAX_KEPT", 100)
        self.throttle = Throttle(self.clock, Broadcast(to_nobody))
        self.failures(FREE, "first")
        for n in range(99):
            self.failures(1, f"a{n}")
        self.failures(1, "first")
        for n in range(99):
            self.failures(1, f"b{n}", user="x" * 10_000)
            self.throttle.succeeded("c", f"user{n}")
        self.assertGreater(self.pause("first"), 0)
        for n in range(100):
            self.failures(1, f"d{n}")
            self.throttle.succeeded("d", f"user{n}")
        self.assertEqual(self.pause("first"), 0)
        kept = (self.throttle._users, self.throttle._addresses, self.throttle._known)
        self.assertEqual([len(each) for each in kept], [100] * 3)
        self.assertGreaterEqual(MAX_KEPT, 1000)
        self.assertNotIn("x" * 100, repr(kept))

    def test_told(self) -> None:
        """Other processes hear of failures and logins; what they hear is short, whatever a client calls itself."""
        sent: list[tuple[str, str]] = []
        other = Broadcast(to_nobody)
        there = Throttle(self.clock, other)
        here = Throttle(self.clock, Broadcast(lambda topic, facts: sent.append((topic, facts))))
        name = "ü" * 12_000
        for _ in range(FREE):
            here.failed("a", name)
        here.succeeded("a", "alice")
        self.assertLess(max(len(facts) for _, facts in sent), 100)
        for topic, facts in sent:
            other.received(topic, facts)
        self.assertGreater(there.pause("a", name), 0)
        self.assertTrue(there.knows("a", "alice"))

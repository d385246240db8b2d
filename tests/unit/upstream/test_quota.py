"""What an upstream says of its limits, and for how long it counts."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.broadcast import Broadcast, to_nobody
from docxy.upstream.quota import LONGEST_WAIT, Quota


class Scarce(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.quota = Quota(self.clock.seconds, Broadcast(to_nobody), "quota", lambda limit, remaining: None)

    def test_nothing_said(self) -> None:
        """An upstream that says nothing is not scarce, whatever it sends for headers."""
        for limit, remaining in (
            (None, None),
            ("100", None),
            (None, "1"),
            ("", ""),
            ("many", "few"),
            ("-1", "-1"),
            ("0;w=60", "0;w=60"),
            ("9" * 400, "0"),
        ):
            self.quota.observe(limit, remaining)
            self.assertFalse(self.quota.scarce, (limit, remaining))

    def test_threshold(self) -> None:
        """Less than a tenth left is scarce; a tenth is not."""
        for remaining, scarce in (("100", False), ("10", False), ("9", True), ("0", True)):
            self.quota.observe("100;w=21600", f"{remaining};w=21600")
            self.assertEqual(self.quota.scarce, scarce, remaining)

    def test_window(self) -> None:
        """What was said counts for the window it was said of, whichever header names it."""
        for limit, remaining in (("100;w=21600", "3;w=21600"), ("100", "3;w=21600"), ("100;w=21600", "3")):
            self.quota.observe(limit, remaining)
            self.clock.advance(21599)
            self.assertTrue(self.quota.scarce, (limit, remaining))
            self.clock.advance(1)
            self.assertFalse(self.quota.scarce, (limit, remaining))

    def test_no_window(self) -> None:
        """Without a window it counts until something else is said; a response without headers says nothing."""
        self.quota.observe("100", "3")
        self.clock.advance(10**6)
        self.quota.observe(None, None)
        self.assertTrue(self.quota.scarce)
        self.quota.observe("100", "50")
        self.assertFalse(self.quota.scarce)

    def test_further_parameters(self) -> None:
        """Parameters that are not known do not hide what is."""
        self.quota.observe("100; policy=x; w=60", "3; policy=x; w=60")
        self.assertTrue(self.quota.scarce)
        self.clock.advance(60)
        self.assertFalse(self.quota.scarce)


class Shared(SynchronousTestCase):
    """Several processes of one docxy."""

    def test_left(self) -> None:
        """What one process hears of the rest, all know: a reserve holds in each of them."""
        clock = Clock()
        there = Broadcast(to_nobody)
        here = Broadcast(there.received)
        ours, theirs = (Quota(clock.seconds, each, "quota", lambda limit, left: None) for each in (here, there))
        ours.observe("100;w=21600", "3;w=21600")
        self.assertEqual((ours.left, theirs.left, theirs.scarce), (0.03, 0.03, True))
        clock.advance(21600)
        self.assertEqual(theirs.left, 1.0)


class Waiting(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.quota = Quota(self.clock.seconds, Broadcast(to_nobody), "quota", lambda limit, remaining: None)

    def test_retry_after(self) -> None:
        """A 429 is obeyed for as long as it says, for its kind of request and no other."""
        self.assertEqual(self.quota.wait("GET manifests"), 0.0)
        self.quota.limited("GET manifests", "30")
        self.assertEqual(self.quota.wait("GET manifests"), 30.0)
        self.assertEqual(self.quota.wait("HEAD manifests"), 0.0)
        self.clock.advance(30)
        self.assertEqual(self.quota.wait("GET manifests"), 0.0)

    def test_unreadable(self) -> None:
        """Without seconds that can be read it is a minute."""
        for n, told in enumerate((None, "", "soon", "-1", "1.5", "\u00b2", "Fri, 31 Dec 1999 23:59:59 GMT")):
            self.quota.limited(str(n), told)
            self.assertEqual(self.quota.wait(str(n)), 60.0, told)

    def test_capped(self) -> None:
        """Nobody makes docxy wait for ever."""
        for n, told in enumerate(("86400", "9" * 400)):
            self.quota.limited(str(n), told)
            self.assertEqual(self.quota.wait(str(n)), LONGEST_WAIT)

    def test_longest_counts(self) -> None:
        """A later 429 that says less does not shorten the wait."""
        self.quota.limited("GET blobs", "100")
        self.quota.limited("GET blobs", "5")
        self.assertEqual(self.quota.wait("GET blobs"), 100.0)

"""One piece of work for all who ask meanwhile."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from docxy.single_flight import SingleFlight


class Work:
    """Work that ends when a test says so."""

    def __init__(self) -> None:
        self.started: list[Deferred[str]] = []
        self.cancelled = 0

    async def __call__(self) -> str:
        waiting: Deferred[str] = Deferred(self._cancel)
        self.started.append(waiting)
        return await waiting

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class FlightTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.flight: SingleFlight[str, str] = SingleFlight()
        self.work = Work()

    def do(self, key: str = "k") -> Deferred[str]:
        return self.flight.do(key, self.work)

    def test_joined(self) -> None:
        """All who ask while it runs get its outcome; it ran once."""
        asked = [self.do() for _ in range(3)]
        self.assertIn("k", self.flight)
        self.work.started[0].callback("x")
        self.assertEqual([self.successResultOf(each) for each in asked], ["x"] * 3)
        self.assertEqual(len(self.work.started), 1)

    def test_keys(self) -> None:
        """Each key has its own work."""
        one, two = self.do("1"), self.do("2")
        self.work.started[1].callback("two")
        self.assertEqual(self.successResultOf(two), "two")
        self.assertNoResult(one)
        self.work.started[0].callback("one")
        self.assertEqual(self.successResultOf(one), "one")

    def test_not_kept(self) -> None:
        """Once done, the next who asks starts anew, after a failure too."""
        first = self.do()
        self.work.started[0].errback(LookupError())
        self.failureResultOf(first, LookupError)
        self.assertNotIn("k", self.flight)
        second = self.do()
        self.work.started[1].callback("x")
        self.assertEqual(self.successResultOf(second), "x")

    def test_failure_reaches_all(self) -> None:
        """What the work raises, every waiter gets."""
        asked = [self.do() for _ in range(3)]
        self.work.started[0].errback(LookupError("x"))
        for each in asked:
            self.failureResultOf(each, LookupError)

    def test_waiter_leaves(self) -> None:
        """A waiter that goes away, the first too, leaves the work to the others."""
        first, second = self.do(), self.do()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.work.cancelled, 0)
        self.work.started[0].callback("x")
        self.assertEqual(self.successResultOf(second), "x")

    def test_all_leave(self) -> None:
        """The work goes on when nobody waits any more."""
        asked = self.do()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertIn("k", self.flight)
        self.work.started[0].callback("x")
        self.assertNotIn("k", self.flight)

    def test_done_at_once(self) -> None:
        """Work that need not wait is done at once, and leaves nothing."""

        async def now() -> str:
            return "x"

        self.assertEqual(self.successResultOf(self.flight.do("k", now)), "x")
        self.assertNotIn("k", self.flight)
        self.successResultOf(Deferred.fromCoroutine(self.flight.stop()))

    def test_asked_again_by_a_waiter(self) -> None:
        """Who asks again when told the outcome starts new work."""
        asked = self.do().addCallback(lambda _: self.do())
        self.work.started[0].callback("x")
        self.assertEqual(len(self.work.started), 2)
        self.work.started[1].callback("y")
        self.assertEqual(self.successResultOf(asked), "y")

    def test_stop(self) -> None:
        """The end cancels what runs, and waits for it."""
        asked = self.do()
        stopped = Deferred.fromCoroutine(self.flight.stop())
        self.successResultOf(stopped)
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.work.cancelled, 1)

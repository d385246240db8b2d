"""How fast bytes come, by a clock of the tests'."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from docxy.siblings import LocalSlots
from docxy.upstream.body import HIGH_WATER, ResponseBody
from docxy.upstream.pace import AT_ONCE, Pace, Paying

RATE = 1_000_000
PIECE = 30_000
"""Bytes that a connection reads at once."""


class PaceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.slots = LocalSlots(AT_ONCE)
        self.read: Counter[str] = Counter()
        self.running: list[Deferred[None]] = []

    def pace(self, rate: int = RATE, slots: Any = None) -> Pace:
        """The limit in one process."""
        return Pace(rate, "rate of x", slots or self.slots, self.clock)

    def fetch(self, who: str, *paces: Pace, blob: str | None = None, piece: int = PIECE) -> None:
        """Read a blob that comes as fast as it may."""
        paying = Paying(paces, blob or who)

        async def read() -> None:
            while True:
                await paying.pay(piece)
                self.read[who] += piece

        running = Deferred.fromCoroutine(read())
        running.addErrback(lambda failure: failure.trap(CancelledError))
        self.running.append(running)
        self.addCleanup(running.cancel)

    def go(self, seconds: float) -> Counter[str]:
        """What each read meanwhile."""
        before = self.read.copy()
        for _ in range(round(seconds * 200)):
            self.clock.advance(0.005)
        return self.read - before

    def near(self, count: int, wanted: float, share: float = 0.06) -> None:
        self.assertLess(abs(count - wanted), share * wanted + PIECE, (count, wanted))


class Rates(PaceCase):
    def test_rate(self) -> None:
        """One blob gets all of the rate, and no second brings more than that and what is on its way at once."""
        self.fetch("a", self.pace())
        seconds = [self.go(1.0)["a"] for _ in range(10)]
        self.near(sum(seconds), 10 * RATE, 0.02)
        self.assertLessEqual(max(seconds), RATE + AT_ONCE * RATE // 40 + PIECE)

    def test_idle(self) -> None:
        """A second in which nobody fetched is not made up for."""
        pace = self.pace()
        self.go(10.0)
        self.fetch("a", pace)
        self.near(self.go(1.0)["a"], RATE, 0.15)

    def test_fair(self) -> None:
        """Each blob gets as much as any other: over several connections, with larger pieces, and in another process."""
        one, other = self.pace(), self.pace()
        self.fetch("a1", one, blob="a")
        self.fetch("a2", one, blob="a")
        self.fetch("a3", one, blob="a")
        self.fetch("b", one, piece=8 * PIECE)
        self.fetch("c", other)
        read = self.go(10.0)
        shares = [read["a1"] + read["a2"] + read["a3"], read["b"], read["c"]]
        self.near(sum(shares), 10 * RATE)
        for share in shares:
            self.assertLess(abs(share - 10 * RATE / 3), 0.1 * RATE * 10 / 3 + 8 * PIECE, shares)

    def test_late_timers(self) -> None:
        """Timers that are late, as on a busy machine, cost nothing of the rate."""
        self.fetch("a", self.pace())
        for _ in range(90):
            self.clock.advance(0.11)
        self.near(self.read["a"], 9.9 * RATE, 0.05)

    def test_what_is_left(self) -> None:
        """When one ends, or is given up while it waits, the others get its share."""
        pace = self.pace()
        self.fetch("a", pace)
        self.fetch("b", pace)
        self.near(self.go(2.0)["a"], RATE)
        self.running[1].cancel()
        self.near(self.go(2.0)["a"], 2 * RATE)

    def test_both(self) -> None:
        """The limit of an upstream and that of all hold together; the smaller one is the rate."""
        everything = self.pace(2 * RATE, LocalSlots(AT_ONCE))
        slow, fast = self.pace(), self.pace(10 * RATE, LocalSlots(AT_ONCE))
        self.fetch("slow", slow, everything)
        self.near(self.go(2.0)["slow"], 2 * RATE)
        self.fetch("fast", fast, everything)
        read = self.go(4.0)
        self.near(read["slow"], 4 * RATE, 0.1)
        self.near(read["fast"], 4 * RATE, 0.1)

    def test_given_up(self) -> None:
        """Whoever gives up a fetch that waits for both limits is told so, and what it waited for is not taken."""
        paces = self.pace(), self.pace(2 * RATE, LocalSlots(AT_ONCE))
        waiting = Deferred.fromCoroutine(Paying(paces, "a").pay(10 * RATE))
        self.go(0.5)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.go(0.5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.fetch("b", *paces)
        self.near(self.go(1.0)["b"], RATE, 0.1)

    def test_stopped(self) -> None:
        """At the stop nothing waits, no clock runs on, and other processes have all portions."""
        pace = self.pace()
        waiting = Deferred.fromCoroutine(Paying([pace], "a").pay(10 * RATE))
        pace.stop()
        self.successResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.fetch("b", self.pace())
        self.near(self.go(1.0)["b"], RATE)

    def test_nobody_counts(self) -> None:
        """When the process that counts is gone, nothing hangs: this one will be gone soon."""

        class Gone:
            def acquire(self, key: str) -> Deferred[None]:
                return fail(ConnectionError("gone"))

            def release(self, key: str) -> None:
                raise AssertionError

        self.successResultOf(Deferred.fromCoroutine(Paying([self.pace(RATE, Gone())], "a").pay(RATE)))


class Bodies(PaceCase):
    def test_paused(self) -> None:
        """Who owes reads no further: the connection is paused, and what waits in memory has its bound."""
        body = ResponseBody(self.clock, 60.0, "them", None, lambda count: None, Paying([self.pace()], "a"))
        transport = StringTransport()
        body.makeConnection(transport)
        body.dataReceived(b"x" * HIGH_WATER)
        reading = Deferred.fromCoroutine(body.read())
        self.assertEqual(transport.producerState, "paused")
        self.assertNoResult(reading)
        self.go(0.3)
        self.assertEqual(len(self.successResultOf(reading)), HIGH_WATER)
        more = Deferred.fromCoroutine(body.read())
        self.assertEqual(transport.producerState, "producing")
        body.dataReceived(b"y")
        self.go(0.1)
        self.assertEqual(self.successResultOf(more), b"y")
        body.close()

    def test_closed(self) -> None:
        """A body that is closed while it owes gives nothing more."""
        body = ResponseBody(self.clock, 60.0, "them", None, lambda count: None, Paying([self.pace()], "a"))
        body.makeConnection(StringTransport())
        body.dataReceived(b"x" * 10 * PIECE)
        reading = Deferred.fromCoroutine(body.read())
        body.close()
        self.go(1.0)
        self.assertEqual(self.successResultOf(reading), b"")

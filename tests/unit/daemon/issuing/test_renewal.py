"""When docxy gets its certificate, what it does after failures, and that what is served is never lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.daemon.certificates import KeyPair
from docxy.daemon.issuing.issuer import IIssuer, IssueError, RenewalPlan, by_life
from docxy.daemon.issuing.renewal import (
    BUSY_PAUSE,
    FIRST_PAUSE,
    LONGEST_ASKED,
    LONGEST_PAUSE,
    LONGEST_SLEEP,
    Renewal,
    obtain,
    pause,
    standing_pair,
)
from docxy.daemon.issuing.state import IssuingRecord, StateDirectory
from tests.harness.certificates import issue
from tests.harness.mirror import Logged

NAME = "mirror.example"
DAY = 24 * 3600.0
BEGIN = datetime.now(timezone.utc).timestamp()


def in_thread(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """At once."""
    try:
        return succeed(work(*args, **kwargs))
    except Exception:
        return fail(Failure())


@implementer(IIssuer)
class Fake:
    """Issues what a test wants."""

    def __init__(self, clock: Clock, source: str = "https://ca.example") -> None:
        self.clock = clock
        self.source = source
        self.error: Exception | None = None
        self.names = [NAME]
        self.skew = 0.0
        """Days by which its clock is wrong."""
        self.issued = 0
        self.planned: RenewalPlan | None = None

    def issue(self) -> bytes:
        self.issued += 1
        if self.error is not None:
            raise self.error
        begins = (self.clock.seconds() - BEGIN) / DAY + self.skew
        made = issue(*self.names, days=begins + 30, begins=begins)
        return made.pem + made.key_pem()

    def plan(self, pem: bytes, pair: KeyPair, now: float) -> RenewalPlan:
        return self.planned or RenewalPlan(by_life(pair), now + DAY)


class RenewalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = StateDirectory(os.path.abspath(self.mktemp()))
        self.clock = Clock()
        self.clock.advance(BEGIN)
        self.issuer = Fake(self.clock)
        self.told = 0
        self.log = Logged()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        self.renewal = self.make()

    def make(self) -> Renewal:
        """A docxy that starts, or starts again."""

        def told() -> None:
            self.told += 1

        return Renewal(self.issuer, self.state, [NAME], told, in_thread, self.clock, lambda: 0.0)

    def start(self) -> None:
        self.renewal.startService()
        self.addCleanup(self.renewal.stopService)

    def advance(self, seconds: float) -> None:
        """Time passes, as a docxy sees it that looks at its clock now and then."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(600.0, end - self.clock.seconds()))

    def test_first(self) -> None:
        """Without a certificate one is got at once, is on the disk before anybody is told, and stands for it all."""
        self.start()
        pair = standing_pair(self.state)
        assert pair is not None
        self.assertEqual((self.issuer.issued, self.told, pair.dns_names), (1, 1, (NAME,)))
        self.assertEqual(self.renewal.standing.renews, by_life(pair))
        self.assertIsNone(self.renewal.standing.to_json()["error"])

    def test_renewed_in_time(self) -> None:
        """At two thirds of its life and no earlier, once."""
        self.start()
        self.advance(19 * DAY)
        self.assertEqual(self.issuer.issued, 1)
        self.advance(2 * DAY)
        self.assertEqual((self.issuer.issued, self.told), (2, 2))

    def test_the_issuer_names_the_time(self) -> None:
        """What it says at the next look counts: also that it is now, as when it revokes what it issued."""
        self.start()
        self.issuer.planned = RenewalPlan(self.clock.seconds() + 1.5 * DAY, self.clock.seconds() + 3 * DAY)
        self.advance(1.1 * DAY)
        self.assertEqual(self.issuer.issued, 1)
        self.advance(0.5 * DAY)
        self.assertEqual(self.issuer.issued, 2)

    def test_a_drawn_time_holds(self) -> None:
        """A server whose every answer is a later time, as of a span out of which one is drawn, is not put off by it."""
        self.start()
        now = self.clock.seconds()
        self.advance(1.1 * DAY)
        self.issuer.plan = lambda pem, pair, at: RenewalPlan(at + 2 * DAY, at + DAY)  # type: ignore[method-assign]  # from now on
        self.advance(1.0 * DAY)
        drawn = self.renewal.standing.renews
        assert drawn is not None
        self.assertLess(drawn, now + 5 * DAY)
        self.issuer.error = IssueError("down")
        self.advance(drawn - self.clock.seconds() + 60)
        self.assertEqual((self.issuer.issued, self.told), (2, 1))
        self.issuer.error = None
        self.advance(2 * FIRST_PAUSE)
        self.assertEqual((self.issuer.issued, self.told), (3, 2))

    def test_a_restart_gets_nothing_new(self) -> None:
        """A certificate that is there is used on."""
        self.start()
        self.renewal.stopService()
        self.renewal = self.make()
        self.start()
        self.assertEqual((self.issuer.issued, self.told), (1, 1))

    def test_wrong_clocks(self) -> None:
        """An issuer whose certificates are always due, as where one of the clocks is wrong, is asked once a day."""
        self.issuer.skew = -25.0
        self.start()
        for _ in range(3):
            self.renewal.stopService()
            self.renewal = self.make()
            self.start()
        self.advance(2.5 * DAY)
        self.assertEqual(self.issuer.issued, 3)

    def test_other_names(self) -> None:
        """Another name in the configuration, or one less, is a reason for a new one; so is another issuer."""
        self.issuer.names = [NAME, "old.example"]
        self.assertTrue(obtain(self.issuer, self.state, self.issuer.names, BEGIN)[1])
        self.issuer.names = [NAME]
        self.start()
        self.assertEqual(self.issuer.issued, 2)
        self.renewal.stopService()
        self.issuer = Fake(self.clock, "https://staging.example")
        self.renewal = self.make()
        self.start()
        self.assertEqual(self.issuer.issued, 1)

    def test_failures(self) -> None:
        """Each waits longer than the one before, and is told; the certificate in use is not touched."""
        self.start()
        before = self.state.read(self.state.certificate)
        self.issuer.error = IssueError("the CA is down")
        self.advance(21 * DAY)
        tried = self.issuer.issued
        self.assertGreater(tried, 2)
        self.assertEqual(self.state.read(self.state.certificate), before)
        told = self.renewal.standing.to_json()
        self.assertEqual((told["error"], told["failures"]), ("the CA is down", tried - 1))
        self.assertIn("the CA is down; the one in use stays", self.log.text)
        self.issuer.error = None
        self.advance(LONGEST_PAUSE)
        self.assertNotEqual(self.state.read(self.state.certificate), before)
        self.assertIsNone(self.renewal.standing.to_json()["error"])
        self.assertEqual(self.state.record().failures, 0)

    def test_never_pressed(self) -> None:
        """The first hour of failures has five attempts, every later one has one; restarts add none."""
        self.issuer.error = IssueError("refused")
        self.start()
        for _ in range(30):
            self.clock.advance(119.0)
            self.renewal.stopService()
            self.renewal = self.make()
            self.start()
        self.assertEqual(self.issuer.issued, 5)
        self.advance(4 * 3600)
        self.assertLessEqual(self.issuer.issued, 10)

    def test_pauses(self) -> None:
        """They double, end at an hour, heed the issuer for a day at most, and are never shortened by chance."""
        self.assertEqual(
            [pause(n, 0.0, lambda: 0.0) for n in (1, 2, 3)], [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
        )
        self.assertEqual(pause(10_000, 0.0, lambda: 0.0), LONGEST_PAUSE)
        self.assertEqual(pause(1, 7200.0, lambda: 0.0), 7200.0)
        self.assertEqual(pause(1, 1e9, lambda: 0.0), LONGEST_ASKED)
        self.assertGreater(pause(1, 0.0, lambda: 1.0), FIRST_PAUSE)

    def test_asked_to_wait(self) -> None:
        """A rate limit's Retry-After counts."""
        self.issuer.error = IssueError("rateLimited", 5 * 3600.0)
        self.start()
        self.advance(4.9 * 3600)
        self.assertEqual(self.issuer.issued, 1)
        self.advance(0.2 * 3600)
        self.assertEqual(self.issuer.issued, 2)

    def test_the_operator_asks(self) -> None:
        """After a failure a reload tries at once; without a failure it asks nobody."""
        self.issuer.error = IssueError("no DNS")
        self.start()
        self.issuer.error = None
        (told,) = self.renewal.at_once()
        self.assertTrue(told.ok)
        self.assertEqual((self.issuer.issued, self.told), (2, 1))
        self.assertEqual(self.renewal.at_once(), [])
        self.assertEqual(self.issuer.issued, 2)

    def test_a_full_disk(self) -> None:
        """A certificate that cannot be written is a failure as any other, and the line names the directory."""
        self.start()
        before = self.state.read(self.state.certificate)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(StateDirectory, "write", full)
        self.advance(21 * DAY)
        self.assertIn(f"cannot write to {self.state.directory}: No space left on device", self.log.text)
        self.assertEqual(self.state.read(self.state.certificate), before)

    def test_what_is_issued_is_tried(self) -> None:
        """Neither a certificate for other names, nor one that has ended, nor rubbish takes the old one's place."""
        self.start()
        before = self.state.read(self.state.certificate)
        self.clock.rightNow += 25 * DAY
        for break_it, why in (
            (lambda: setattr(self.issuer, "names", ["other.example"]), "does not cover mirror.example"),
            (lambda: setattr(self.issuer, "skew", -40.0), "is not valid now"),
            (lambda: setattr(self.issuer, "skew", 10.0), "is not valid now"),
            (lambda: setattr(self.issuer, "issue", lambda: b"rubbish"), "cannot be served"),
        ):
            break_it()
            self.assertRaisesRegex(IssueError, why, obtain, self.issuer, self.state, [NAME], self.clock.seconds())
            self.issuer.names, self.issuer.skew = [NAME], 0.0
        self.assertEqual(self.state.read(self.state.certificate), before)

    def test_another_docxy_is_at_it(self) -> None:
        """Two with one directory ask once; the second looks again, and finds what the first got."""
        with self.state.alone():
            self.start()
            self.assertEqual(self.issuer.issued, 0)
        made = issue(NAME, begins=0)
        self.state.write(self.state.certificate, made.pem + made.key_pem())
        self.clock.advance(BUSY_PAUSE)
        self.assertEqual(self.issuer.issued, 0)
        self.assertIsNotNone(self.renewal.standing.renews)

    def test_left_open(self) -> None:
        """A challenge of an order that ended with its process is answered no more after the next start."""
        self.start()
        self.renewal.stopService()
        self.state.offer("abc", b"answer")
        self.renewal = self.make()
        self.start()
        self.assertIsNone(self.state.challenge("abc"))

    def test_a_broken_file(self) -> None:
        """A certificate that cannot be read is as none."""
        self.state.write(self.state.certificate, b"rubbish")
        self.start()
        self.assertEqual(self.issuer.issued, 1)

    def test_the_clock_is_set_back(self) -> None:
        """A pause that would end in years is not waited for."""
        self.state.remember(IssuingRecord(self.issuer.source, 1, BEGIN + 1000 * DAY, "x", BEGIN))
        self.start()
        self.assertEqual(self.issuer.issued, 1)

    def test_a_bug_does_not_end_it(self) -> None:
        """An error that nobody thought of is logged, and an hour later docxy tries again."""
        self.issuer.error = ZeroDivisionError()
        self.start()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.issuer.error = None
        self.clock.advance(LONGEST_SLEEP)
        self.assertEqual(self.told, 1)

    def test_stop_while_asking(self) -> None:
        """A stop does not wait for the issuer, and nothing is planned afterwards."""
        waiting: Deferred[Any] = Deferred()
        self.renewal = Renewal(
            self.issuer, self.state, [NAME], lambda: None, lambda *_: waiting, self.clock, lambda: 0.0
        )
        self.renewal.startService()
        self.renewal.stopService()
        waiting.errback(RuntimeError())
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LifeTests(SynchronousTestCase):
    def test_short(self) -> None:
        """Six days are renewed after four."""
        made = issue(NAME, begins=0, days=6)
        state = StateDirectory(os.path.abspath(self.mktemp()))
        state.write(state.certificate, made.pem + made.key_pem())
        pair = standing_pair(state)
        assert pair is not None
        left = datetime.fromtimestamp(by_life(pair), timezone.utc) - pair.begins
        self.assertAlmostEqual(left / timedelta(days=4), 1, places=1)

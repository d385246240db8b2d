"""A clock that is set back, as time synchronisation and administrators do it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import time
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from docxy.daemon.clock import WallClock, wait_monotonically


class ClockTests(SynchronousTestCase):
    """A reactor of its own."""

    def setUp(self) -> None:
        self.reactor: Any = SelectReactor()
        self.addCleanup(self.reactor.disconnectAll)
        wait_monotonically(self.reactor)
        self.clock = WallClock(self.reactor)

    def test_set_back(self) -> None:
        """A delayed call comes in its time though the clock was set back by an hour meanwhile."""
        called: list[float] = []
        self.clock.callLater(0.01, lambda: called.append(self.clock.seconds()))
        now = time.time
        self.patch(time, "time", lambda: now() - 3600)
        while not called:
            self.assertLess(self.reactor.timeout(), 1)
            self.reactor.doIteration(self.reactor.timeout())
            self.reactor.runUntilCurrent()
        self.assertLess(abs(called[0] - (now() - 3600)), 60)

    def test_wall_clock(self) -> None:
        """It dates by the time since the epoch, and shows what waits."""
        verifyObject(IReactorTime, self.clock)
        self.assertLess(abs(self.clock.seconds() - time.time()), 60)
        waiting = self.clock.callLater(10, lambda: None)
        self.assertEqual(list(self.clock.getDelayedCalls()), [waiting])
        waiting.cancel()

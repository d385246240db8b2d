"""Signals that end a process, raised by the test itself."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.signals import StopSignals, held_back


class Reactor:
    """Runs what it gets at once, and counts how often it is stopped."""

    def __init__(self) -> None:
        self.stopped = 0

    def callWhenRunning(self, work: Callable[[], object]) -> None:
        work()

    callFromThread = callWhenRunning

    def stop(self) -> None:
        self.stopped += 1


class StopTests(SynchronousTestCase):
    def setUp(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.signal(number, self.began))
        self.begun: list[int] = []
        self.aborted: list[None] = []
        self.reactor = Reactor()

    def began(self, number: int, frame: Any) -> None:
        self.begun.append(number)

    def listen(self, leads: bool) -> StopSignals:
        signals = StopSignals(lambda: self.aborted.append(None), leads, self.reactor)
        signals.startService()
        return signals

    def raised(self, *numbers: signal.Signals) -> tuple[list[int], int]:
        """The signals that began a stop, and how often it was cut short."""
        for number in numbers:
            signal.raise_signal(number)
        return self.begun, len(self.aborted)

    def test_twice(self) -> None:
        """The first signal begins the stop; SIGTERM changes nothing then, SIGINT ends it at once."""
        self.listen(True)
        self.assertEqual(self.raised(signal.SIGTERM, signal.SIGTERM), ([signal.SIGTERM], 0))
        self.assertEqual(self.raised(signal.SIGINT), ([signal.SIGTERM], 1))

    def test_led(self) -> None:
        """A worker leaves a first SIGINT to its supervisor; during the stop it ends the worker at once."""
        self.listen(False)
        self.assertEqual(self.raised(signal.SIGINT), ([], 0))
        self.assertEqual(self.raised(signal.SIGTERM, signal.SIGINT), ([signal.SIGTERM], 1))

    def test_before(self) -> None:
        """A SIGINT that comes while a worker begins is held back, and forgotten once it listens."""
        with held_back():
            self.assertEqual(self.raised(signal.SIGINT), ([], 0))
            self.assertIn(signal.SIGINT, signal.sigpending())
            self.listen(False)
            self.assertNotIn(signal.SIGINT, signal.pthread_sigmask(signal.SIG_BLOCK, []))
            self.assertEqual((self.begun, self.aborted), ([], []))
            self.assertEqual(self.raised(signal.SIGTERM, signal.SIGINT), ([signal.SIGTERM], 1))
        self.assertNotIn(signal.SIGINT, signal.pthread_sigmask(signal.SIG_BLOCK, []))

    def test_hangup(self) -> None:
        """SIGHUP ends nobody: before a stop, and during it."""
        self.listen(True)
        self.assertEqual(self.raised(signal.SIGHUP), ([], 0))
        self.assertEqual(self.raised(signal.SIGTERM, signal.SIGHUP), ([signal.SIGTERM], 0))

    def test_without_signal(self) -> None:
        """A stop that something else began is not begun again."""
        signals = self.listen(True)
        signals.stop()
        signals.stop()
        self.assertEqual(self.reactor.stopped, 1)
        self.assertEqual(self.raised(signal.SIGTERM), ([], 0))

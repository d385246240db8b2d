"""Signals that end a process, and SIGHUP and SIGUSR2, which do not.

The law: the first one begins the stop, and one SIGINT more ends it at once; nothing else that comes
during the stop changes it.  SIGHUP and SIGUSR2 end nothing, whether or not something listens to them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

_log = Logger()


@contextmanager
def held_back() -> Iterator[None]:
    """A worker that begins meanwhile gets no SIGINT until its `StopSignals` start.

    Python would end it with a traceback, were a terminal's Ctrl-C to reach it while it imports.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopSignals(Service):
    """Listens as soon as the reactor runs, until the process has ended."""

    def __init__(self, abort: Callable[[], object], leads: bool, reactor: Any) -> None:
        """`abort`: ends the stop at once; `leads`: whether a first SIGINT begins the stop.

        A terminal's Ctrl-C reaches workers too, whose supervisor tells them when to stop.
        """
        self._abort = abort
        self._leads = leads
        self._reactor = reactor
        self._stopping = False
        self._before: dict[int, Any] = {}

    def startService(self) -> None:
        Service.startService(self)
        # What loads something at a SIGHUP puts its own handler here as long as it runs.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if not self._leads:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `held_back`
        self._reactor.callWhenRunning(self._listen)

    def stopService(self) -> None:
        """The stop has begun, by a signal or otherwise; signals are still listened to."""
        Service.stopService(self)
        self._stopping = True

    def stop(self) -> None:
        """Begin the stop, unless it has begun."""
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def _listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        before = self._before[number]
        if self._stopping:
            if number == signal.SIGINT:
                self._reactor.callFromThread(self._abort)
        elif callable(before):
            self._stopping = True
            before(number, frame)  # Twisted's, which ends the process by the same signal

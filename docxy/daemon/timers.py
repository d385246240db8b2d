"""Work that is done now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


def every(seconds: float, clock: Any, work: Callable[[], object], name: str) -> TimerService:
    """Calls `work` now and then; a call that fails is logged, and the next one comes in its time."""

    def attempt() -> Deferred[Any]:
        return maybeDeferred(work).addErrback(failed)

    def failed(why: Failure) -> None:
        _log.failure("{name} failed", why, name=name)

    timer = TimerService(seconds, attempt)
    timer.clock = clock
    return timer

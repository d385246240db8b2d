"""Two clocks: one dates what is kept, the other one waits.

The law: *a clock that is set stops no time-out.*  What waits, waits by the machine's monotonic clock; what is compared
with a time that another process or an earlier run wrote down is dated by the time since the epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


def wait_monotonically(reactor: Any) -> None:
    """Have a reactor time its delayed calls by the monotonic clock.

    Twisted's times them by the time since the epoch: set back by an hour, all of them come an hour late.  To be called
    before the first delayed call; `reactor.seconds` is no date after it.
    """
    reactor.seconds = time.monotonic


@implementer(IReactorTime)
@frozen
class WallClock:
    """The time since the epoch, and the delayed calls of a reactor."""

    _reactor: Any

    def seconds(self) -> float:
        return time.time()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> IDelayedCall:
        return cast(IDelayedCall, self._reactor.callLater(delay, callable, *args, **kw))

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return cast(Sequence[IDelayedCall], self._reactor.getDelayedCalls())

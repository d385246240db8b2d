"""One more request to a server that broke off.

The law: most such faults are gone a moment later, so docxy asks once more.  Each server has a retry of its
own: what the token service took leaves the registry its own.  No retry begins later than one answer may take
after the first request, for by then clients have given up.

Pure but for the clock it is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import frozen

from docxy.errors import UpstreamBroke, UpstreamError, UpstreamUnavailable

T = TypeVar("T")


def broke_off(error: UpstreamError) -> bool:
    """Whether it did, so that the same request may well succeed now."""
    return isinstance(error, UpstreamBroke)


def stumbled(error: UpstreamError) -> bool:
    """Whether a server that no other one stands in for is worth a retry: after a 503 too, if it did not say when."""
    return broke_off(error) or (isinstance(error, UpstreamUnavailable) and error.retry_after is None)


@frozen
class Retry:
    """When to ask again."""

    seconds: Callable[[], float]
    within: float
    """Seconds that one answer may take."""

    def begin(self) -> Callable[[], bool]:
        """Whether a retry of what begins now may still begin."""
        until = self.seconds() + self.within
        return lambda: self.seconds() < until

    async def of(self, ask: Callable[[], Awaitable[T]], worth: Callable[[UpstreamError], bool] = broke_off) -> T:
        """What it answers, at the second time where the first failure is worth it."""
        in_time = self.begin()
        try:
            return await ask()
        except UpstreamError as error:
            if not worth(error) or not in_time():
                raise
        return await ask()

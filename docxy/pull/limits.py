"""An upstream's 429 answers for it, for a moment: some clients ask again five times at once.

The law: what one client was told is never held against another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from docxy.errors import TooManyRequests

LIMITED_FOR = 5.0
"""Seconds, unless the upstream says less."""
PAUSE = 10.0
"""Seconds for which an upstream that failed is not asked the same again, unless it says how long."""
LONGEST_PAUSE = 300.0

K = TypeVar("K", bound=Hashable)


def pause(error: Exception) -> float:
    """Seconds for which not to ask again after this."""
    told = error.retry_after if isinstance(error, TooManyRequests) else None
    return PAUSE if told is None else min(told, LONGEST_PAUSE)


class Limits(Generic[K]):
    """The 429s of the last moments; a key names what was asked and by whom."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._told: dict[K, tuple[TooManyRequests, float]] = {}

    def check(self, key: K) -> None:
        """Raises the upstream's last 429 for this while it is recent."""
        told = self._told.get(key)
        if told is not None and told[1] > self._seconds():
            raise TooManyRequests(told[0].message, headers=told[0].headers)

    def note(self, key: K, error: TooManyRequests) -> None:
        """The upstream just said so."""
        now = self._seconds()
        self._told = {each: told for each, told in self._told.items() if told[1] > now}
        self._told[key] = (error, now + min(pause(error), LIMITED_FOR))

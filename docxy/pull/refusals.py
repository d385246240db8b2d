"""An upstream's 429 answers for it, for a moment: some clients ask again five times at once.

The law: a refusal of one client is never held against another; how many are kept is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import TLRUCache

from docxy.errors import TooManyRequests

LIMITED_FOR = 5.0
"""Seconds for which a 429 is given again, unless the upstream says less."""
PAUSE = 10.0
"""Seconds for which an upstream that failed is not asked the same again, unless it says how long."""
LONGEST_PAUSE = 300.0
MAX_KEPT = 10_000
"""Refusals, and pauses, of one kind of question; the oldest go first."""

K = TypeVar("K", bound=Hashable)


def pause(error: Exception) -> float:
    """Seconds for which not to ask again after this."""
    wanted = error.retry_after if isinstance(error, TooManyRequests) else None
    return PAUSE if wanted is None else min(wanted, LONGEST_PAUSE)


class RecentRefusals(Generic[K]):
    """The 429s of the last moments; a key names the question and the client."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        def until(key: K, error: TooManyRequests, now: float) -> float:
            return now + min(pause(error), LIMITED_FOR)

        self._kept: TLRUCache[K, TooManyRequests] = TLRUCache(MAX_KEPT, until, timer=seconds)

    def check(self, key: K) -> None:
        """Raises the upstream's last 429 for this key while it is recent."""
        error = self._kept.get(key)
        if error is not None:
            raise type(error)(error.message, headers=error.headers)

    def note(self, key: K, error: TooManyRequests) -> None:
        """The upstream just answered 429."""
        self._kept[key] = error


class Pauses(Generic[K]):
    """What an upstream is not asked again for a while, because it failed to answer."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        def until(key: K, error: Exception, now: float) -> float:
            return now + pause(error)

        self._kept: TLRUCache[K, Exception] = TLRUCache(MAX_KEPT, until, timer=seconds)

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def note(self, key: K, error: Exception) -> None:
        """The upstream just failed like this."""
        self._kept[key] = error

"""How long a fill, or a client past the cache, waits before an upstream that broke off is asked again.

Pure but for chance.  The law: what the upstream asked for, within reason; else longer each time, and never all
of them at once.
"""

from __future__ import annotations

from random import Random

from attrs import frozen

from docxy.errors import RegistryError, TooManyRequests

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 15.0


@frozen
class Backoff:
    """How long to wait before an attempt; pure."""

    random: Random

    def delay(self, attempt: int, error: RegistryError | None = None) -> float:
        """Seconds before attempt number `attempt` (from 1); what the upstream asked for, within reason."""
        told = error.retry_after if isinstance(error, TooManyRequests) else None
        if told is not None:
            return min(told, 2 * _LONGEST_DELAY)
        return min(_FIRST_DELAY * 3.0 ** (attempt - 1), _LONGEST_DELAY) * self.random.uniform(0.5, 1.0)

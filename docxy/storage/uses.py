"""When each blob was used last, on its way into the index.

The law: a use costs no disk and no lock; it is written down a few seconds later, with all others.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from docxy.names import Digest

FLUSH_INTERVAL = 5.0
"""Seconds within which a use is written down."""


@define(eq=False)
class Uses:
    """Those of one process."""

    _clock: IReactorTime
    _write: Callable[[dict[Digest, float]], object]
    """Write these down: digest -> seconds since the epoch."""
    _noted: dict[Digest, float] = field(init=False, factory=dict)
    _last: float = field(init=False, default=0.0)
    _flush: IDelayedCall | None = field(init=False, default=None)

    def now(self) -> float:
        """Seconds since the epoch, never the same twice: the order of uses must be clear."""
        self._last = max(self._clock.seconds(), self._last + 1e-6)
        return self._last

    def note(self, digest: Digest) -> None:
        """It is used now."""
        self._noted[digest] = self.now()
        if self._flush is None:
            self._flush = self._clock.callLater(FLUSH_INTERVAL, self.flush)

    def last(self, digest: Digest) -> float:
        """The last use that is not written down yet; 0 without one."""
        return self._noted.get(digest, 0.0)

    def take(self) -> dict[Digest, float]:
        """All that is not written down yet, for the caller to write down."""
        noted, self._noted = self._noted, {}
        return noted

    def flush(self) -> None:
        """Write all down now."""
        if self._flush is not None and self._flush.active():
            self._flush.cancel()
        self._flush = None
        self._write(self.take())

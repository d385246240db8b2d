"""What one process tells the read model.

The laws: *telling costs a request next to nothing*: an exchange goes into a list, and the list goes
out once every `EVERY`; *the list has a bound*: what does not fit is dropped and counted; *a flood of
hits is counted, not told*: `BURST` of them are told at once and `HITS` a second after that, all else
always; nothing waits for the model, and a lost batch is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Attribute, Interface, implementer

from docxy.observe.exchange import Exchange

EVERY = 0.5
"""Seconds between two batches."""
MOST = 5_000
"""Exchanges of a batch."""
BURST = 1_000
HITS = 50.0
"""Exchanges of a process after which hits are no longer told, and how many more may be each second."""

Told = Mapping[str, Any]


class Dropped(NamedTuple):
    """What was answered and not told."""

    exchanges: int = 0
    hits: int = 0
    """How many of them were whole contents from the cache."""
    sent: int = 0
    """Bytes of those."""


class IModel(Interface):
    """Where the news of all processes meet, as one process has it."""

    def take(exchanges: Sequence[Exchange], dropped: Dropped) -> None:
        """Exchanges, in order; and what there was besides."""

    def sampled(state: Told) -> None:
        """What this process is at; see `docxy.observe.model`."""

    def happened(event: Told) -> None:
        """Something happened to a tag; as `docxy.observe.alerts.Event.to_json` makes it."""


class IRecorder(Interface):
    """Takes exchanges."""

    is_flooded: bool = Attribute("Whether hits are no longer told: `drop` takes them.")

    def drop(head: bool, sent: int) -> None:
        """A request was answered from the cache, by HEAD or with `sent` bytes."""

    def record(exchange: Exchange) -> None:
        """A request for a manifest or a blob was answered."""


@implementer(IRecorder)
class Recorder:
    """Tells in batches."""

    def __init__(self, clock: IReactorTime, send: Callable[[Sequence[Exchange], Dropped], object]) -> None:
        """`send`: takes a batch, and what was dropped."""
        self._clock = clock
        self._send = send
        self._batch: list[Exchange] = []
        self._dropped = self._hits = self._sent = 0
        self._room = float(BURST)
        self._filled = clock.seconds()
        self._due: IDelayedCall | None = None

    @property
    def is_flooded(self) -> bool:
        return self._room <= 0

    def record(self, exchange: Exchange) -> None:
        self._schedule()
        self._room -= 1
        if len(self._batch) >= MOST:
            self._dropped += 1
        else:
            self._batch.append(exchange)

    def drop(self, head: bool, sent: int) -> None:
        self._dropped += 1
        if not head:
            self._hits += 1
            self._sent += sent
        self._schedule()

    def _schedule(self) -> None:
        if self._due is None:
            self._fill()
            self._due = self._clock.callLater(EVERY, self.flush)

    def flush(self) -> None:
        """Send what is collected."""
        if self._due is not None and self._due.active():
            self._due.cancel()
        self._due = None
        self._fill()
        batch, self._batch = self._batch, []
        dropped = Dropped(self._dropped, self._hits, self._sent)
        self._dropped = self._hits = self._sent = 0
        if batch or dropped.exchanges:
            self._send(batch, dropped)

    def _fill(self) -> None:
        """Make room for as many hits as the time since the last call gives."""
        now = self._clock.seconds()
        self._room = min(BURST, max(0.0, self._room) + HITS * max(0.0, now - self._filled))
        self._filled = now

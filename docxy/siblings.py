"""What the processes of one docxy have in common, as one of them sees it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore
from zope.interface import Interface, implementer

from docxy.broadcast import Broadcast, to_nobody
from docxy.questions import Questions


class ISlots(Interface):
    """How many connections to something there may be at once."""

    def acquire(key: str) -> Deferred[Any]:
        """Fires when a slot is free, which is then taken; may be cancelled until then."""

    def release(key: str) -> None:
        """Frees a slot."""


@implementer(ISlots)
@define
class LocalSlots:
    """Of this process alone; `limit` for each key."""

    limit: int
    _slots: dict[str, DeferredSemaphore] = field(factory=dict)

    def acquire(self, key: str) -> Deferred[Any]:
        slots = self._slots.get(key)
        if slots is None:
            slots = self._slots[key] = DeferredSemaphore(self.limit)
        return slots.acquire()

    def release(self, key: str) -> None:
        slots = self._slots[key]
        slots.release()
        if slots.tokens == self.limit:
            # Hosts that redirects lead to come and go.
            del self._slots[key]


@frozen
class Siblings:
    """One process among those that serve."""

    first: bool
    """Whether this is the process that does what only one should do."""
    secret: str = field(repr=False)
    """A key that all of them have: one issues tokens, another reads them; hexadecimal, 32 bytes."""
    broadcast: Broadcast
    slots: Callable[[int], ISlots]
    """Makes slots, given the limit for each key."""
    questions: Questions
    """What the steward may ask this process."""

    @classmethod
    def alone(cls) -> Siblings:
        """There is one process."""
        return cls(True, secrets.token_hex(32), Broadcast(to_nobody), LocalSlots, Questions())

"""What the processes of one docxy have in common, as one of them sees it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore
from zope.interface import Interface, implementer

from docxy.gossip import Gossip
from docxy.metrics import IMeter, NoMeter


class ISlots(Interface):
    """How many connections to something there may be at once."""

    def acquire(key: str) -> Deferred[Any]:
        """Fires when there is one to be had; may be cancelled until then."""

    def release(key: str) -> None:
        """One is free again."""


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
        self._slots[key].release()


@frozen
class Shared:
    """Left as it is, there is one process."""

    first: bool = True
    """Whether this is the process that does what one is enough for."""
    secret: str = field(factory=lambda: secrets.token_hex(32), repr=False)
    """A key that all of them have, for what one issues and another is shown; hexadecimal."""
    gossip: Gossip = field(factory=Gossip)
    slots: Callable[[int], ISlots] = LocalSlots
    """Slots of which there are so many for each key."""
    meter: IMeter = field(factory=NoMeter)

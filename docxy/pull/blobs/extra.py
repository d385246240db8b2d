"""How many connections the blobs of one upstream may take besides the first of each.

The law: they are counted over all processes, and taken only where the upstream is known to bear it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred

from docxy.siblings import ISlots


@define(eq=False)
class ExtraConnections:
    """The connections that blobs of one upstream may take besides the first of each."""

    connections: int
    """For one blob, with its first."""
    _slots: ISlots
    """How many there are for all blobs together, of all processes."""
    _upstream: str
    _calm: Callable[[], bool] | None = None
    """Whether the upstream can be asked for more now."""
    refused: bool = False
    """Whether it was seen not to send parts."""

    @property
    def may(self) -> bool:
        """Whether to try for one more."""
        return not self.refused and (self._calm is None or self._calm())

    def take(self) -> Deferred[Any]:
        """Fires when one is free, which must be given back; may be cancelled until then."""
        return self._slots.acquire(self._key)

    def give_back(self) -> None:
        """One that `take` gave."""
        self._slots.release(self._key)

    @property
    def _key(self) -> str:
        return f"{self._upstream} parts"

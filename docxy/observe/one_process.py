"""The read model as one of the processes tells it what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from zope.interface import implementer

from docxy.observe.exchange import Exchange
from docxy.observe.model import ReadModel
from docxy.observe.recorder import Dropped, IModel


@implementer(IModel)
@frozen
class OneProcess:
    """The model as the process with this number has it."""

    model: ReadModel
    number: int

    def take(self, exchanges: Sequence[Exchange], dropped: Dropped) -> None:
        self.model.take(exchanges, dropped)

    def sampled(self, state: Mapping[str, Any]) -> None:
        self.model.sampled(self.number, state)

    def happened(self, event: Mapping[str, Any]) -> None:
        self.model.happened(event)

"""The catalog in memory keeps the promises of every catalog."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.catalog.memory import MemoryCatalog
from tests.unit.catalog.contract import CatalogContract
from tests.unit.catalog.history_contract import HistoryContract


class MemoryContractTests(CatalogContract, HistoryContract, SynchronousTestCase):
    """The contract, in memory."""

    def make_catalog(self) -> MemoryCatalog:
        return MemoryCatalog(self.clock, self.clock.seconds)

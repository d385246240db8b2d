"""The store in memory keeps the promises of every store."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from docxy.storage.large import Large
from docxy.storage.memory import MemoryStore
from tests.unit.storage.contract import StoreCase
from tests.unit.storage.contract_budget import BudgetContract
from tests.unit.storage.contract_large import LargeContract
from tests.unit.storage.contract_reading import ReadingContract
from tests.unit.storage.contract_verifying import VerifyingContract
from tests.unit.storage.contract_writing import WritingContract


class InMemory(StoreCase):
    """Makes them."""

    def make_store(self, budget: int, large: Large | None = None) -> MemoryStore:
        return MemoryStore(budget, self.clock, large)


class MemoryContractTests(InMemory, ReadingContract, VerifyingContract, WritingContract, BudgetContract, TestCase):
    """The contract, in memory."""


class MemoryLargeTests(InMemory, LargeContract, TestCase):
    """What it says of large blobs."""

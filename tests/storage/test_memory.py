"""The store in memory keeps the promises of every store."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from docxy.storage.memory import MemoryStore
from tests.storage.contract_budget import BudgetContract


class MemoryContractTests(BudgetContract, TestCase):
    """The contract, in memory."""

    def make_store(self, budget: int) -> MemoryStore:
        return MemoryStore(budget, self.clock)

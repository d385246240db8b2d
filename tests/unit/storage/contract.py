"""What the parts of every store's contract need: a store, and a fill in it.

The parts are in `contract_reading`, `contract_verifying`, `contract_writing` and `contract_budget`, mixed into one
TestCase for each store, and in `contract_large`.  They see one process only.  What several processes on one directory
promise each other is in `test_processes.py`; disks that fail are in `test_limits.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from docxy.storage.interfaces import IBlobWriter
from docxy.storage.large import Large
from tests.unit.storage.fixtures import KIB, blob, claim

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

BUDGET = 1000 * KIB


class StoreCase(Base):
    """Needs `make_store`."""

    def make_store(self, budget: int, large: Large | None = None) -> Any:
        """A started store, stopped when the test ends; `large`: what large blobs may hold, None: the usual."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.store = self.make_store(BUDGET)

    async def started(self, size: int = 100 * KIB, seed: int = 0) -> tuple[IBlobWriter, bytes]:
        """A writer that was told the size, and the right bytes."""
        digest, data = blob(size, seed)
        writer = await claim(self.store, digest)
        await writer.announce(size)
        return writer, data

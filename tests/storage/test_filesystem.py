"""The store on disk keeps the promises of every store, and some that only files can break."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from docxy.storage.filesystem import FilesystemStore
from tests.storage.contract import StoreContract
from tests.storage.fixtures import in_thread


class FilesystemContractTests(StoreContract, TestCase):
    """The contract, on disk, with real threads."""

    def make_store(self, budget: int) -> FilesystemStore:
        store = FilesystemStore(self.mktemp(), budget, self.clock, in_thread())
        store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store

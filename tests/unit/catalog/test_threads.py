"""The catalog in front of a real thread and a real lock: the reactor goes on, whatever the file does."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from docxy.catalog.interfaces import TagRecord
from docxy.catalog.sqlite import SqliteCatalog
from docxy.names import Digest
from docxy.threads import Threads
from tests.unit.catalog.fixtures import BUDGET

reactor: Any = _reactor


class Threaded(TestCase):
    """A catalog as a process opens it."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        thread = Threads(reactor, 1, "catalog")
        thread.startService()
        self.addCleanup(thread.stopService)
        self.catalog = SqliteCatalog(self.directory, BUDGET, thread.in_thread, reactor, time.time)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.catalog.close()))
        self.database = sqlite3.connect(os.path.join(self.directory, "catalog.sqlite"), isolation_level=None)
        self.addCleanup(self.database.close)

    async def test_locked(self) -> None:
        """While another process writes and does not end, what was kept is read, and what was written is read back."""
        tags = self.catalog.upstream("u").tags
        tags.keep("r", "old", Digest.of(b"old"), "type", 7)
        await self.catalog.flushed()
        self.database.execute("BEGIN IMMEDIATE")
        tags.keep("r", "new", Digest.of(b"new"), "type", 7)
        found = await gatherResults(
            [Deferred.fromCoroutine(tags.get("r", each, latest=True)) for each in ("old", "new")]
        )
        self.assertEqual([type(each) for each in found], [TagRecord, TagRecord])
        self.assertEqual(self.database.execute("SELECT count(*) FROM tags").fetchone(), (1,))
        self.database.execute("ROLLBACK")

    async def test_purge(self) -> None:
        """A purge of many rows goes in slices: between them clients are answered, and the reactor goes on."""
        old = time.time() - 1000
        self.database.execute("BEGIN")
        self.database.executemany(
            "INSERT INTO held VALUES ('u', 'r', ?, 'blob', '', 0, ?, ?)",
            ((f"sha256:{number:064x}", old, old) for number in range(5_000)),
        )
        self.database.execute("COMMIT")
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        turning = LoopingCall(turn)
        turning.start(0)
        tags = self.catalog.upstream("u").tags
        purging = Deferred.fromCoroutine(self.catalog.purge(100, 100, 100))
        left = []
        while not purging.called:
            await tags.get("r", "t", latest=True)
            left += self.database.execute("SELECT count(*) FROM held").fetchone()
        turning.stop()
        await purging
        # 5,000 rows are 10 slices.
        self.assertGreater(len(set(left)), 5)
        self.assertEqual(left[-1], 0)
        self.assertGreater(turns, 5)

"""The store on disk keeps the promises of every store, and some that only files can break."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from docxy.storage.filesystem import FilesystemStore
from docxy.storage.large import Large
from docxy.storage.shares import USUAL
from tests.unit.storage.contract import StoreCase
from tests.unit.storage.contract_budget import BudgetContract
from tests.unit.storage.contract_large import LargeContract
from tests.unit.storage.contract_reading import ReadingContract
from tests.unit.storage.contract_verifying import VerifyingContract
from tests.unit.storage.contract_writing import WritingContract
from tests.unit.storage.fixtures import KIB, blob, claim, count_blobs_only, fetch, in_thread, keep, opened


class OnDisk(StoreCase):
    """Makes them."""

    def make_store(self, budget: int, large: Large | None = None) -> FilesystemStore:
        count_blobs_only(self)
        store = FilesystemStore(self.mktemp(), budget, self.clock, in_thread(), evolve(USUAL, large=large or Large()))
        store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store


class FilesystemContractTests(OnDisk, ReadingContract, VerifyingContract, WritingContract, BudgetContract, TestCase):
    """The contract, on disk, with real threads."""

    async def settled(self) -> None:
        await self.store._upkeep.ended()
        self.store._remembered._counted = float("-inf")


class FilesystemLargeTests(OnDisk, LargeContract, TestCase):
    """What it says of large blobs."""


class ThreadTests(TestCase):
    """What is done where, and who waits for what."""

    def setUp(self) -> None:
        self.stuck: list[Callable[[], object]] | None = None
        self.store = FilesystemStore(self.mktemp(), 1 << 30, Clock(), self.in_thread)
        self.store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.store.stop()))

    def in_thread(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Real threads, unless they are made to be stuck."""
        if self.stuck is None:
            return in_thread()(work, *args, **kwargs)
        result: Deferred[Any] = Deferred()
        self.stuck.append(lambda: in_thread()(work, *args, **kwargs).chainDeferred(result))
        return result

    async def test_nothing_large_on_the_reactor(self) -> None:
        """Bytes are written, hashed and synced in other threads than the reactor's."""
        threads: dict[str, set[bool]] = {}

        def watched(name: str) -> Any:
            real = getattr(os, name)

            def call(*args: Any) -> Any:
                threads.setdefault(name, set()).add(threading.current_thread() is threading.main_thread())
                return real(*args)

            return mock.patch.object(os, name, call)

        with watched("pwritev"), watched("fsync"), watched("rename"), watched("unlink"):
            digest, data = blob(3 << 20)
            await keep(self.store, digest, data)
            await self.store.delete(digest)
        self.assertEqual(threads, {name: {False} for name in ("pwritev", "fsync", "rename", "unlink")})

    async def test_backpressure(self) -> None:
        """When the disk is stuck, `write` stops returning after a megabyte or two, and goes on with the disk."""
        digest, data = blob(8 << 20)
        writer = await claim(self.store, digest)
        await writer.announce(len(data))
        self.stuck = []
        taken = 0
        for start in range(0, len(data), 256 * KIB):
            waiting = Deferred.fromCoroutine(writer.write(data[start : start + 256 * KIB]))
            taken += 256 * KIB
            if not waiting.called:
                break
        self.assertLessEqual(taken, 2 << 20)
        self.assertEqual(len(self.stuck), 1)
        self.assertEqual(writer.offset, taken)
        stuck, self.stuck = self.stuck, None
        stuck[0]()
        await waiting
        for start in range(taken, len(data), 256 * KIB):
            await writer.write(data[start : start + 256 * KIB])
        await writer.commit()
        self.assertEqual(await fetch(self.store, digest), data)

    async def test_commit_not_cut_short(self) -> None:
        """Who stops waiting for a commit does not stop it."""
        digest, data = blob(KIB)
        writer = await claim(self.store, digest)
        await writer.announce(len(data))
        await writer.write(data)
        commit = Deferred.fromCoroutine(writer.commit())
        commit.addErrback(lambda reason: None)
        commit.cancel()
        await writer.cancel()
        self.assertEqual(await fetch(self.store, digest), data)

    async def test_large_resume(self) -> None:
        """An interrupted fill that is much larger than what is hashed at once is verified as a whole."""
        digest, data = blob(40 << 20)
        for end in (36 << 20, 37 << 20, 40 << 20):
            writer = await claim(self.store, digest)
            await writer.announce(len(data))
            while writer.offset < end:
                await writer.write(data[writer.offset : min(end, writer.offset + 256 * KIB)])
            if end < len(data):
                await writer.release()
        await writer.commit()
        self.assertIs(await self.store.verify(digest), True)

    async def test_one_descriptor(self) -> None:
        """Any number of readers of a blob use one descriptor."""
        digest, data = blob(KIB)
        await keep(self.store, digest, data)
        readers = [await opened(self.store, digest) for _ in range(50)]
        self.assertEqual(len({reader.fileno() for reader in readers}), 1)
        for reader in readers:
            reader.close()

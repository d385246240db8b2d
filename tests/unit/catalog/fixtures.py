"""What the tests of the catalog's file have in common: threads that work at once, and what operators are told."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.catalog.sqlite import SqliteCatalog
from docxy.threads import InThread

T = TypeVar("T")
BUDGET = 1 << 40
"""Bytes: a cache so large that it limits no table."""


def at_once(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """An `InThread` without a thread."""
    return maybeDeferred(work, *args, **kwargs)


class FileCase(SynchronousTestCase):
    """A directory and catalogs in it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, "catalog.sqlite")

    def open(self, in_thread: InThread = at_once, budget: int = BUDGET) -> SqliteCatalog:
        """A catalog of the directory, as each process has its own; closed when the test ends."""
        catalog = SqliteCatalog(self.directory, budget, in_thread, self.clock, self.clock.seconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(catalog.close()))
        return catalog

    def now(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome, which has to be there."""
        outcome: T = self.successResultOf(Deferred.fromCoroutine(work))
        return outcome

    def told(self) -> list[str]:
        """What operators are told from now on."""
        told: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            told.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return told

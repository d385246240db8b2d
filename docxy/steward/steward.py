"""The steward: a cache that is open, and those who serve from it.

The laws: in a docxy with workers the steward is in the supervisor, whose reactor no client waits for, and works in
threads of its own, with its own connections to index and catalog: both are made for several processes.  It opens
the cache when the first act asks for it.  *What it removed is served by nobody from then on*: an act that
removes ends with `Steward.forget`, which returns when every process that serves has forgotten it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from docxy.catalog.sqlite import SqliteCatalog
from docxy.database import NewerVersion
from docxy.names import Digest
from docxy.observe.history import PullHistory
from docxy.observe.view import IView
from docxy.questions import IWorkers, Unanswered
from docxy.settings.model import Config
from docxy.settings.policy import Policy
from docxy.settings.presets import preset
from docxy.steward.lines import Failed
from docxy.steward.names import Names
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import StorageError
from docxy.storage.paths import Tree
from docxy.storage.shares import Shares
from docxy.threads import InThread, Threads

THREADS = 2
"""Few, so that what is served from the same disk goes before."""
UNKNOWN_BUDGET = 1 << 62
"""Bytes, where nobody says: nothing is evicted or forgotten for it."""
FORGET = "forget"
"""The question under which a process drops digests from its memory."""
_AT_ONCE = 500
"""Digests of one question."""


@frozen
class Steward:
    """What acts work with."""

    store: FilesystemStore
    catalog: SqliteCatalog
    workers: IWorkers
    """The processes that serve."""
    view: IView | None
    """What docxy does now and did lately; None where none runs."""
    config: Config | None
    """Of the docxy that runs, or of one that would; None where that is not known."""
    policy: Callable[[], Policy]
    """The one in force."""
    in_thread: InThread
    clock: IReactorTime
    """Of the time since the epoch."""
    directory: str

    def names(self, cached: Sequence[str]) -> Names:
        """What repositories may be called; `cached`: the registries of which something is cached."""
        others = [preset(name) for name in cached]
        return Names.over(others) if self.config is None else Names.over(self.config.upstreams, others)

    async def pulls(self, most: int, repository: tuple[str, str] | None) -> list[dict[str, Any]]:
        """The newest pulls of a repository, by its registry and name, or of all."""
        if self.view is not None:
            return await self.view.pulls(most, repository)
        path = Tree(self.directory).history
        if not os.path.exists(path):
            return []
        history = PullHistory(path, UNKNOWN_BUDGET, self.in_thread, self.clock)
        try:
            return await history.recent(most, repository)
        finally:
            await history.close()

    async def forget(self, digests: Iterable[Digest]) -> None:
        """Returns when no process serves these from its memory.  Raises Failed when one does not say so.

        What the catalog says is written down before, so that other processes read it.
        """
        await self.catalog.flushed()
        rest = iter(digests)
        while some := [str(digest) for digest in islice(rest, _AT_ONCE)]:
            for number, answer in (await self.workers.ask_all(FORGET, some)).items():
                if isinstance(answer, Unanswered):
                    raise Failed(
                        f"it is removed from the disk, but worker {number} may serve it from its memory for a while: "
                        f"{answer}; run the command again"
                    )


def open_cache(
    directory: str, budget: int, shares: Shares, clock: IReactorTime, store_thread: InThread, one: InThread
) -> Any:
    """Store and catalog of a directory; `one`: one thread, nobody else's.  Raises Failed."""
    try:
        store = FilesystemStore(directory, budget, clock, store_thread, shares)
        store.start()
        return store, SqliteCatalog(directory, budget, one, clock, clock.seconds)
    except (StorageError, OSError, NewerVersion, sqlite3.Error) as error:
        raise Failed(f"the cache {directory} cannot be used: {error}") from None


class Stewardship:
    """The steward of a docxy that runs, which opens the cache when it is needed, and closes it."""

    def __init__(
        self,
        config: Config,
        policy: Callable[[], Policy],
        directory: str,
        budget: int,
        workers: IWorkers,
        view: IView,
        clock: IReactorTime,
        reactor: Any,
    ) -> None:
        """`policy`: the one in force; `budget`: bytes; `clock`: of the time since the epoch."""
        self._config = config
        self._policy = policy
        self._directory = directory
        self._budget = budget
        self._workers = workers
        self._view = view
        self._clock = clock
        self._threads = Threads(reactor, THREADS, "steward")
        self._catalog_thread = Threads(reactor, 1, "steward's catalog")
        self._steward: Steward | None = None

    def steward(self) -> Steward:
        """Raises Failed."""
        if self._steward is None:
            started = [self._threads, self._catalog_thread]
            for threads in started:
                threads.startService()
            try:
                store, catalog = open_cache(
                    self._directory,
                    self._budget,
                    Shares.of(self._config),
                    self._clock,
                    self._threads.in_thread,
                    self._catalog_thread.in_thread,
                )
            except BaseException:
                for threads in started:
                    threads.stopService()
                raise
            self._steward = Steward(
                store,
                catalog,
                self._workers,
                self._view,
                self._config,
                self._policy,
                self._threads.in_thread,
                self._clock,
                self._directory,
            )
        return self._steward

    async def stop(self) -> None:
        """Close the cache; acts have ended."""
        steward, self._steward = self._steward, None
        if steward is not None:
            await steward.store.stop()
            await steward.catalog.close()
            self._threads.stopService()
            self._catalog_thread.stopService()

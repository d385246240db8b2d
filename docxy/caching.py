"""The cache as a service: opened after privileges are dropped, closed when the last request has ended.

The law: a cache that cannot be used is no reason not to serve; the operator is told, and
docxy goes on as a pure proxy.
"""

from __future__ import annotations

import functools
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from docxy.assembly import Cache
from docxy.config import Config
from docxy.storage.budget import default_budget
from docxy.storage.catalog import Catalog
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import StorageError
from docxy.storage.paths import Tree
from docxy.storage.scrub import Scrubber

THREADS = 8
_PURGE_INTERVAL = 3600.0
_UNSEEN = 90 * 24 * 3600.0
_SHORT = 24 * 3600.0
"""Seconds: see `Catalog.purge`."""


class CacheService(Service):
    """Blobs on disk, what is known of upstreams, and their upkeep."""

    _log = Logger()

    def __init__(self, config: Config, directory: str, reactor: Any, first: bool) -> None:
        """`first`: whether this is the process that sees to the upkeep.  Raises StorageError."""
        budget = config.cache_size if config.cache_size is not None else default_budget(directory)
        self._pool = ThreadPool(0, THREADS, name="storage")
        in_thread = functools.partial(deferToThreadPool, reactor, self._pool)
        self._store = FilesystemStore(directory, budget, reactor, in_thread)
        self._pool.start()
        try:
            self._store.start()
        except BaseException:
            self._pool.stop()
            raise
        self._catalog = Catalog(Tree(directory).catalog, reactor.seconds)
        self._scrubber = Scrubber(self._store, reactor, config.scrub_interval)
        self._purge = LoopingCall(self._catalog.purge, _UNSEEN, _SHORT)
        self._purge.clock = reactor
        self._first = first
        self.budget = budget
        """Bytes."""
        self.cache = Cache.of(self._store, self._catalog, reactor)
        if first:
            self._log.info("cache in {directory}, at most {budget} bytes", directory=directory, budget=budget)

    def startService(self) -> None:
        Service.startService(self)
        if not self._first:
            return
        self._scrubber.start()
        self._purge.start(_PURGE_INTERVAL).addErrback(lambda why: self._log.failure("catalog upkeep", why))

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def used(self) -> int:
        """Bytes that are kept or reserved, by all processes.  Raises StorageError."""
        return await self._store.used()

    async def _stop(self) -> None:
        if self._purge.running:
            self._purge.stop()
        await self._scrubber.stop()
        await self.cache.fills.stop()
        await self._store.stop()
        self._catalog.close()
        self._pool.stop()


def open_cache(config: Config, reactor: Any, first: bool = True) -> CacheService | None:
    """The cache, or None when it is off or cannot be used."""
    if config.cache is None:
        return None
    try:
        return CacheService(config, config.cache, reactor, first)
    except (StorageError, OSError) as error:
        CacheService._log.error("going on WITHOUT a cache: {error}", error=error)
        return None

"""One process that serves: options and open doors -> what answers behind them.

The law: this is where collaborators are made and put together, for the only process as for each of
several workers; what differs is passed in.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet import task
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.web.iweb import IAgent
from twisted.web.server import Site

from docxy import tls
from docxy.accesslog import Lines, open_lines
from docxy.allocator import give_back
from docxy.assembly import build_site
from docxy.caching import CacheService, open_cache
from docxy.config import Config, Upstream
from docxy.doors import Doors
from docxy.gate.open import OpenGate
from docxy.gate.threads import PasswordThreads
from docxy.metrics import IMeter
from docxy.serving import Here, Watched
from docxy.shared import Shared
from docxy.storage.interfaces import StorageError
from docxy.upstream.agent import LARGE_READS, SMALL_READS, make_agent
from docxy.web.redirect import Redirect
from docxy.web.site import LoggedSite

SAMPLE_INTERVAL = 5.0
"""Seconds."""
RELOAD_INTERVAL = 60.0
"""Seconds between two looks at the certificate's files."""

_log = Logger()


def serve(
    config: Config, public_url: str, doors: Doors, context: tls.ReloadingContext | None, shared: Shared, reactor: Any
) -> Here:
    """Serve behind the doors from now on, with the privileges the daemon runs with.

    `context`: None for plain HTTP.  Raises ConfigError for a file that cannot be used after all.
    """
    lines = open_lines(config.access_log, reactor)
    site, depends, caching = registry(config, public_url, reactor, lines, shared)
    if context is not None:
        depends.addService(CertificateWatch(context, reactor))
    watched = Watched(site, reactor)
    if config.metrics is not None:
        depends.addService(Sampling(shared.meter, watched, caching, shared.first, reactor))
    depends.startService()
    doors.front.serve(watched if context is None else tls.TLSFactory(context, watched, reactor))
    if doors.side is not None:
        doors.side.serve(LoggedSite(Redirect(public_url), OpenGate(config.access.perimeter), lines))
    reactor.callWhenRunning(give_back)
    return Here([watched], depends)


def registry(
    config: Config, public_url: str, reactor: Any, lines: Lines, shared: Shared
) -> tuple[Site, MultiService, CacheService | None]:
    """The registry's site, the service it depends on, which closes the access log too, and of that the cache.

    The service is to be started before the site serves, and stopped when its last request has ended.
    """
    depends = MultiService()
    depends.addService(Closing(lines.close))
    reads = SMALL_READS if config.cache is None else LARGE_READS

    def agent(upstream: Upstream) -> IAgent:
        agent, pool = make_agent(reactor, config.timeouts, upstream, shared.slots, reads)
        depends.addService(Closing(pool.closeCachedConnections))
        return agent

    caching = open_cache(config, reactor, shared.first)
    if caching is not None:
        depends.addService(caching)
    cache = None if caching is None else caching.cache
    passwords = PasswordThreads(reactor)
    depends.addService(passwords)
    site = build_site(config, public_url, agent, reactor, cache, passwords.in_thread, lines, shared)
    return site, depends, caching


class Sampling(Service):
    """Tells the meter, now and then, what this process is at."""

    def __init__(
        self, meter: IMeter, watched: Watched, caching: CacheService | None, first: bool, reactor: Any
    ) -> None:
        """`first`: whether it is for this process to tell of the cache, which all share."""
        self._meter = meter
        self._watched = watched
        self._caching = caching
        self._first = first
        self._sampling = task.LoopingCall(self._sample)
        self._sampling.clock = reactor

    def startService(self) -> None:
        Service.startService(self)
        self._sampling.start(SAMPLE_INTERVAL).addErrback(lambda why: _log.failure("sampling", why))

    def stopService(self) -> None:
        Service.stopService(self)
        if self._sampling.running:
            self._sampling.stop()

    def _sample(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._take())

    async def _take(self) -> None:
        fills = 0 if self._caching is None else len(self._caching.cache.fills)
        self._meter.sampled(self._watched.in_progress, self._watched.connected, fills)
        if self._caching is not None and self._first:
            with suppress(StorageError):
                self._meter.kept(await self._caching.used(), self._caching.budget)


class Closing(Service):
    """Calls something at the stop, and waits for it."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    def stopService(self) -> Deferred[Any]:
        Service.stopService(self)
        return maybeDeferred(self._close)


class CertificateWatch(Service):
    """Loads a renewed certificate: on SIGHUP at once, else when its files change."""

    def __init__(self, context: tls.ReloadingContext, reactor: Any) -> None:
        self._context = context
        self._reactor = reactor
        self._watch = task.LoopingCall(context.check)
        self._watch.clock = reactor
        self._before: Any = None

    def startService(self) -> None:
        Service.startService(self)
        self._watch.start(RELOAD_INTERVAL, now=False).addErrback(lambda why: _log.failure("certificate watch", why))
        self._reactor.callWhenRunning(self._listen)

    def _listen(self) -> None:
        if self.running:
            self._before = signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._context.reload))

    def stopService(self) -> None:
        Service.stopService(self)
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
        if self._watch.running:
            self._watch.stop()

"""What stands behind the ports once they are open: this process, or workers.

The law: what would end each worker ends the start, before there is one.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import evolve
from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from docxy.access.htpasswd import load as load_accounts
from docxy.access.open_gate import OpenGate
from docxy.access.token_keys import load as load_keys
from docxy.addresses import Perimeter
from docxy.archive.clients import connect
from docxy.assembly import build, open_cache
from docxy.daemon.allocator import give_back
from docxy.daemon.archiving import OpenArchive
from docxy.daemon.certificates import KeyPair
from docxy.daemon.changing import reloading
from docxy.daemon.clock import WallClock
from docxy.daemon.drain import Here
from docxy.daemon.listeners import IServing, Listener, Listeners
from docxy.daemon.notify import Notices, ServiceManager, status_line
from docxy.daemon.open_files import raise_limit
from docxy.daemon.output import Output
from docxy.daemon.services import Around, OpenCache
from docxy.daemon.upgrade.handover import Handover
from docxy.daemon.upgrade.successor import Upgrades
from docxy.daemon.upgrade.takeover import Given, Passed
from docxy.daemon.webhooks import uncounted
from docxy.daemon.workers.asking import Workers
from docxy.daemon.workers.observing import Desk
from docxy.daemon.workers.start import ListenerStart, Start
from docxy.daemon.workers.supervisor import Supervisor
from docxy.database import NewerVersion
from docxy.front import own_certificate
from docxy.observatory import Observatory, Observed
from docxy.observe.access_log import Nowhere, open_lines
from docxy.observe.metrics import IMeter, NoMeter
from docxy.observe.one_process import OneProcess
from docxy.observe.prometheus import Kept, Meter, Tally, own_registry, webhook_counter
from docxy.observe.scrape import Metrics
from docxy.observe.tracing import ITracer, NoTracer
from docxy.observe.view import Reading
from docxy.orders.in_force import InForce
from docxy.orders.policies import Policies
from docxy.orders.store import orders_in
from docxy.questions import Alone
from docxy.settings.model import Config, ConfigError
from docxy.settings.parsers import shown_size
from docxy.siblings import Siblings
from docxy.storage.cache_size import SHARE, prepare
from docxy.storage.interfaces import StorageError
from docxy.web.connections import Connections
from docxy.web.guarded import Guarded
from docxy.web.site import LoggedSite

_log = Logger()
SCRAPERS = 64
"""Connections to the metrics' port."""


def launch(
    config: Config,
    pair: KeyPair | None,
    listeners: Listeners,
    metrics: Listener | None,
    output: Output,
    handover: Handover,
    reactor: Any,
) -> IServing:
    """Serve behind the listeners, which are open, with the privileges the daemon runs with.

    `config`: with its public URL; `output`: where the daemon's log goes; `handover`: to and from other docxys.
    Raises ConfigError, IssueError.
    """
    raise_limit()
    config = settled(config)
    try:
        pair = own_certificate(config, pair, time.time())
    except OSError as error:
        assert config.issuing is not None
        raise ConfigError(f"the state directory {config.issuing.state} cannot be used: {_reason(error)}") from None
    _check_orders(config)
    alone = None if config.workers == 1 else _why_alone(listeners)
    if config.workers > 1 and alone is None:
        return _supervise(config, pair, listeners, metrics, output, handover, reactor)
    if alone is not None:
        _log.warn("one process serves, not {workers}: {why}", workers=config.workers, why=alone)
    meter: IMeter = NoMeter()
    registry = own_registry()
    observatory = Observatory(evolve(config, workers=1), webhook_counter(registry), WallClock(reactor), reactor)
    in_force = InForce(config, Policies(config.policy))
    in_force.watch(lambda: observatory.take_up(in_force.config))
    if metrics is not None:
        meter = Meter(registry)
        _show(metrics, config, in_force.perimeter, observatory, registry)
    reload = reloading(handover.settings, lambda: in_force.config, in_force.put, reactor)
    reading = Reading(OneProcess(observatory.model, 1), observatory.view)
    siblings = Siblings.alone()
    serving = serve(config, pair, listeners, meter, siblings, reading, in_force, reactor)
    reload.start()
    upgrades = _upgrades(pair, listeners, metrics, observatory, handover, reactor)
    kept = Kept(registry).count
    told = [reload.reload]
    observatory.open(
        Alone(siblings.questions), lambda: in_force.policies.current, kept, upgrades, _admin(handover), told
    )
    # A process whose reactor turns tells so itself.
    notices = _notices(lambda: True, lambda: True, lambda: succeed(None), observatory, reactor)
    _lead(upgrades, succeed(None), observatory, notices, handover, reactor)
    return Observed(serving, observatory, reload, notices, upgrades)


def serve(
    config: Config,
    pair: KeyPair | None,
    listeners: Listeners,
    meter: IMeter,
    siblings: Siblings,
    reading: Reading,
    in_force: InForce,
    reactor: Any,
) -> Here:
    """Serve in this process from now on.  Raises ConfigError for a file that cannot be used after all."""
    clock = WallClock(reactor)
    lines = open_lines(config.access_log, config.log_format, clock)
    tracer, tracing = _tracing(config, clock, reactor)
    cache, failure = _cache(in_force, siblings.first, clock, reactor)
    served = build(
        evolve(config, cache_failure=failure),
        pair=pair,
        cache=cache,
        archive=None if cache is None else _archive(config, clock, reactor),
        lines=lines,
        meter=meter,
        tracer=tracer,
        siblings=siblings,
        reading=reading,
        orders=orders_in(config.orders),
        in_force=in_force,
        clock=clock,
        seconds=clock.seconds,
        reactor=reactor,
    )
    services = Around(tracing, served.services)
    services.startService()
    listeners.front.serve(served.front)
    if listeners.side is not None:
        listeners.side.serve(served.redirect)
    reactor.callWhenRunning(give_back)
    return Here([served.registry], services, served.upkeep)


def _tracing(config: Config, clock: IReactorTime, reactor: Any) -> tuple[ITracer, Service]:
    """What begins spans, and what sends them."""
    if config.collector is None:
        return NoTracer(), Service()
    from docxy.observe.otel import make_tracing  # it needs an extra

    return make_tracing(config.collector, clock.seconds, reactor)


def _archive(config: Config, clock: IReactorTime, reactor: Any) -> OpenArchive | None:
    """What is behind the cache; it is not asked for anything before its service starts."""
    settings = config.archive
    if settings is None:
        return None
    from docxy.archive.objects import ObjectArchive  # it needs an extra

    rate = None if settings.rate is None else settings.rate // settings.puts
    archive = ObjectArchive(settings.url, partial(connect, settings), rate, clock, reactor)
    return OpenArchive(archive, archive)


def _cache(in_force: InForce, first: bool, clock: IReactorTime, reactor: Any) -> tuple[OpenCache | None, str | None]:
    """The cache, or why there is none: None when it is off by choice."""
    config = in_force.config
    if config.cache is None or config.cache_size is None:
        return None, config.cache_failure
    try:
        return open_cache(config.cache, config.cache_size, in_force, first, clock, reactor), None
    except (StorageError, OSError, NewerVersion, sqlite3.Error) as error:
        if config.cache_named:
            raise _unusable(config.cache, error) from None
        _log.error(_WITHOUT, directory=config.cache, why=_reason(error))
        return None, _reason(error)


def settled(config: Config) -> Config:
    """With the cache, and its size, that all processes go by.

    Raises ConfigError for a cache that the operator named and that cannot be used.
    """
    if config.cache is None:
        return config
    try:
        room = prepare(config.cache)
    except OSError as error:
        if config.cache_named:
            raise _unusable(config.cache, error) from None
        _log.error(_WITHOUT, directory=config.cache, why=_reason(error))
        return evolve(config, cache=None, cache_failure=_reason(error))
    size = int(SHARE * room) if config.cache_size is None else config.cache_size
    _log.info("cache in {directory}, at most {size}", directory=config.cache, size=shown_size(size))
    if size > room:
        _log.warn(
            "the disk of {directory} has room for {room}, less than --cache-size {size}: it will be full before the "
            "cache is; give the cache a larger disk, or a smaller --cache-size",
            directory=config.cache,
            room=shown_size(room),
            size=shown_size(size),
        )
    return evolve(config, cache_size=size)


def _check_orders(config: Config) -> None:
    """Raises ConfigError for orders that cannot be read: without them nothing may be served."""
    problem = orders_in(config.orders).problem
    if problem is not None:
        raise ConfigError(f"what is recalled and frozen is not known: {problem}")


_WITHOUT = "going on WITHOUT a cache, as {directory} cannot be used: {why}"


def _unusable(directory: str, error: Exception) -> ConfigError:
    if isinstance(error, NewerVersion):
        return ConfigError(f"the cache {directory} cannot be used: {error}")
    return ConfigError(
        f"the cache {directory} cannot be used: {_reason(error)}; give it to the user that docxy runs as, name "
        f"another directory with --cache, or do without one with --cache off"
    )


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _supervise(
    config: Config,
    pair: KeyPair | None,
    listeners: Listeners,
    metrics: Listener | None,
    output: Output,
    handover: Handover,
    reactor: Any,
) -> IServing:
    """Workers that will serve; raises ConfigError for what would end each of them."""
    open_lines(config.access_log, config.log_format, reactor).close()
    _tracing(config, reactor, reactor)
    if config.access.htpasswd is not None:
        load_accounts(config.access.htpasswd)
    if config.access.token_key_file is not None:
        load_keys(config.access.token_key_file)
    tally = None
    counted: Callable[[str], object] = uncounted
    if metrics is not None:
        tally = Tally()
        counted = webhook_counter(tally.own)
    observatory = Observatory(config, counted, WallClock(reactor), reactor)
    if metrics is not None and tally is not None:
        # Nobody is answered before there is a supervisor.
        _show(metrics, config, lambda: supervisor.config().access.perimeter, observatory, tally.own, tally.workers)
    shares = [listener.share() for listener in listeners.all()]
    start = Start(
        number=0,
        # A worker that is started again later goes on without a cache that has failed meanwhile.
        config=evolve(config, cache_named=False),
        secret=secrets.token_hex(32),
        pem=None if pair is None else pair.pem,
        listeners=tuple(
            ListenerStart(listener.description, family)
            for listener, (_, family) in zip(listeners.all(), shares, strict=True)
        ),
        timestamps=output.own,
    )
    desk = Desk(observatory.model, observatory.view)
    supervisor = Supervisor(start, [descriptor for descriptor, _ in shares], output.prints, tally, desk, reactor)
    observatory.news.subscribe(supervisor.news)
    kept = Kept(CollectorRegistry() if tally is None else tally.own)

    def put(config: Config) -> None:
        supervisor.put_in_force(config)
        observatory.take_up(config)

    reload = reloading(handover.settings, supervisor.config, put, reactor)
    upgrades = _upgrades(pair, listeners, metrics, observatory, handover, reactor)
    workers = Workers(supervisor.ready_links, reactor)
    observatory.open(
        workers, lambda: supervisor.config().policy, kept.count, upgrades, _admin(handover), [reload.reload]
    )
    supervisor.start()
    reload.start()
    notices = _notices(supervisor.serves, supervisor.lives, supervisor.reloaded, observatory, reactor)
    _lead(upgrades, supervisor.all_ready, observatory, notices, handover, reactor)
    return Observed(supervisor, observatory, reload, notices, upgrades)


def _upgrades(
    pair: KeyPair | None,
    listeners: Listeners,
    metrics: Listener | None,
    observatory: Observatory,
    handover: Handover,
    reactor: Any,
) -> Upgrades:
    """Of this docxy, to another one, which gets all that is open."""

    def given() -> Given:
        opened = [listener.passed() for listener in [*listeners.all(), *([] if metrics is None else [metrics])]]
        return Given(
            pid=os.getpid(),
            listeners=tuple(each for each in opened if each is not None),
            admin=observatory.admin(),
            pidfile=handover.pidfile.descriptor,
            pem=None if pair is None else (pair.pem[0].decode("latin-1"), pair.pem[1].decode("latin-1")),
        )

    return Upgrades(handover.command, given, handover.refusal, observatory.upgrade_failed, reactor)


def _admin(handover: Handover) -> Passed | None:
    return None if handover.takeover is None else handover.takeover.given.admin


def _lead(
    upgrades: Upgrades,
    serves: Deferred[None],
    observatory: Observatory,
    notices: Notices,
    handover: Handover,
    reactor: Any,
) -> None:
    """Have other docxys take over from this one, and this one from another.  `serves`: fires when it does."""
    upgrades.start(notices, handover.retire)
    takeover = handover.takeover
    if takeover is None:
        notices.start()
        return

    def took() -> None:
        _log.info("took over from process {pid}", pid=takeover.given.pid)
        observatory.take_over()
        handover.pidfile.take()
        notices.start()

    takeover.begin(serves, took, reactor)


def _notices(
    serves: Callable[[], bool],
    lives: Callable[[], bool],
    reloaded: Callable[[], Deferred[None]],
    observatory: Observatory,
    reactor: Any,
) -> Notices:
    """What the service manager hears."""
    manager = ServiceManager(os.environ, os.getpid())
    return Notices(manager, serves, lives, reloaded, lambda: status_line(observatory.model.snapshot()), reactor)


def _show(
    listener: Listener,
    config: Config,
    perimeter: Callable[[], Perimeter],
    observatory: Observatory,
    *registries: CollectorRegistry,
) -> None:
    """Serve metrics, without a line in the access log for each scrape."""
    root = Guarded(Metrics(*registries, exemplars=observatory.model.exemplars), perimeter, local=True)
    connections = Connections(config.client_connections, SCRAPERS, time.time)
    listener.serve(LoggedSite(root, OpenGate(perimeter), Nowhere(), NoMeter(), connections, time.time))


def _why_alone(listeners: Listeners) -> str | None:
    """Why there can be no workers; None when there can."""
    if not all(listener.is_shareable for listener in listeners.all()):
        return "connections to a Unix socket are not shared"
    for path, how in ((sys.executable, os.X_OK), (__file__, os.R_OK), (os.__file__, os.R_OK)):
        if not os.access(path, how):
            return f"the user that docxy became may not use {path}"
    return None

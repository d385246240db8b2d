"""Where the collaborators meet: a Config becomes what one process serves.

The law: `build` makes every collaborator and hands it to those that need it; nothing below this
module knows where its collaborators come from, and none of them makes up for one it was not given.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from functools import cache as once
from functools import partial
from random import Random
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from publicsuffixlist import PublicSuffixList
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.web.resource import IResource

from docxy.access.open_gate import OpenGate
from docxy.catalog.interfaces import Stays
from docxy.catalog.sqlite import SqliteCatalog
from docxy.daemon.archiving import OpenArchive, archive_behind, state_of
from docxy.daemon.certificates import KeyPair
from docxy.daemon.contents import contents
from docxy.daemon.drain import Watched
from docxy.daemon.reloads import Reload, reload_all
from docxy.daemon.sampling import Sampling
from docxy.daemon.services import (
    Around,
    CacheUpkeep,
    Closing,
    Fillings,
    HangUp,
    OpenCache,
    Telling,
    Way,
)
from docxy.daemon.timers import every
from docxy.front import make_front
from docxy.gate import gate_of, token_keys
from docxy.observe.access_log import Lines
from docxy.observe.condition import Condition
from docxy.observe.exchange import Exchange
from docxy.observe.metrics import IMeter, NoMeter
from docxy.observe.recorder import Recorder
from docxy.observe.state import Notes
from docxy.observe.tracing import ITracer
from docxy.observe.view import IView, Reading
from docxy.orders.hottest import FACT as HOTTEST
from docxy.orders.hottest import Hottest, nobody_counts
from docxy.orders.in_force import InForce
from docxy.orders.policies import Policies
from docxy.orders.store import IOrders
from docxy.pull.blobs.archived import ArchivedBlobs
from docxy.pull.blobs.backoff import Backoff
from docxy.pull.blobs.fills import Fills
from docxy.pull.blobs.touched import Touched
from docxy.pull.gates.contents import CachedContents, IContents, NoContents
from docxy.pull.gates.gates import Gates
from docxy.pull.gates.learning import Learning
from docxy.pull.gates.pins import Pins
from docxy.pull.warming import Warmer
from docxy.pulls import Parts, SharedCache, make_paces
from docxy.registries import Pulls
from docxy.routing import Router
from docxy.settings.model import Config, JournalMode
from docxy.siblings import Siblings
from docxy.steward.orders import ORDERS
from docxy.steward.processes import RELOAD
from docxy.steward.steward import FORGET
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.memory_cache import MemoryCache
from docxy.storage.paths import Tree
from docxy.storage.presence import Presence
from docxy.storage.scrub import Scrubber
from docxy.storage.shares import Shares
from docxy.threads import Threads
from docxy.upstream.realms import Realms
from docxy.web.answers import Leaf
from docxy.web.connections import Connections, most_connections
from docxy.web.export import Export
from docxy.web.guarded import Guarded
from docxy.web.health import Health
from docxy.web.pages.page import Pages
from docxy.web.proxy_protocol import behind_balancers
from docxy.web.site import LoggedSite, RegistryRoot, RegistrySite
from docxy.web.status import Status
from docxy.web.token import Token
from docxy.web.v2 import V2

STORAGE_THREADS = 8
PIN_INTERVAL = 60.0
"""Seconds between two looks at what is pinned: tags move, and layers come."""
LOOK_INTERVAL = 1.0
"""Seconds between two looks at the orders, should no word of a change have come."""


@frozen
class Served:
    """What one process serves: wired, not started."""

    registry: Watched
    """The registry's site, with its connections."""
    front: IProtocolFactory
    """The registry for connections: under TLS, where there is a certificate."""
    redirect: IProtocolFactory
    """What is served beside HTTPS."""
    services: MultiService
    """To be started before anything is served, and stopped when the last request has ended."""
    fills: Fills | None
    """None: there is no cache."""
    recorder: Recorder
    view: IView
    gates: Gates
    pins: Pins | None
    """None: another process sees to them, or there is no cache."""
    upkeep: Sequence[IService]
    """Of `services`, what is another docxy's when that has taken over."""


def open_cache(
    directory: str, budget: int, in_force: InForce, first: bool, clock: IReactorTime, reactor: Any
) -> OpenCache:
    """Open the cache in a directory.

    `budget`: bytes it may take; `in_force`: the settings; `first`: whether this process checks and purges it.
    Raises StorageError, OSError, NewerVersion, sqlite3.Error.
    """
    config = in_force.config
    threads = Threads(reactor, STORAGE_THREADS, "storage")
    shares = Shares.of(config)
    store = FilesystemStore(directory, budget, clock, threads.in_thread, shares)
    threads.startService()
    try:
        store.start()
    except BaseException:
        threads.stopService()
        raise
    catalog_thread = Threads(reactor, 1, "catalog")
    catalog_thread.startService()
    try:
        catalog = SqliteCatalog(directory, budget, catalog_thread.in_thread, clock, clock.seconds)
    except BaseException:
        catalog_thread.stopService()
        threads.stopService()
        raise
    scrubber = Scrubber(store, clock, config.scrub_interval)
    look = partial(threads.in_thread, contents, os.path.abspath(directory), budget, shares, clock.seconds)
    staying: list[Stays] = []
    presence = Presence(Tree(os.path.abspath(directory)))
    service = CacheUpkeep(
        store,
        catalog,
        [threads, catalog_thread],
        scrubber,
        first,
        staying,
        presence,
        lambda: in_force.config.history,
        reactor,
    )
    return OpenCache(
        store, catalog, service, store.used, store.free, look, budget, store.counts, staying, store.ledger, shares
    )


def build(
    config: Config,
    *,
    pair: KeyPair | None,
    cache: OpenCache | None,
    archive: OpenArchive | None,
    lines: Lines,
    meter: IMeter,
    tracer: ITracer,
    siblings: Siblings,
    reading: Reading,
    orders: IOrders,
    in_force: InForce,
    clock: IReactorTime,
    seconds: Callable[[], float],
    reactor: Any,
) -> Served:
    """Everything that one process serves.

    `config`: with its public URL; `pair`: None for plain HTTP, or while there is no certificate; `cache`: None for a
    pure proxy; `archive`: what is behind it; `lines`: the access log; `orders`, `in_force`: what the operator wants
    done about images; `clock`: what grows old does so by it; `seconds`: the time since the epoch, which dates what is
    kept;
    `reactor`: network and threads.  Raises ConfigError.
    """
    public_url = _public_url(config)
    condition = Condition(config.cache is not None or config.cache_failure is not None)
    if config.cache_failure is not None:
        condition.cache_failure = config.cache_failure
        meter.failing()
    services = MultiService()
    services.addService(Closing(lines.close))
    recorder = Recorder(clock, reading.model.take)
    remembers = config.journal is not JournalMode.OFF
    fills = None
    if cache is not None:
        told = recorder.record if remembers else _untold
        fills = Fills(clock, Backoff(Random()), tracer, told)
    shared = None
    calm, putting = None, None
    if cache is not None and fills is not None:
        recent = MemoryCache(cache.store)
        archived, links, keeping = None, None, cache.service
        if archive is not None and config.archive is not None and cache.ledger is not None:
            behind = archive_behind(
                archive, config.archive, cache.store, cache.ledger, siblings.first, clock, seconds, reactor
            )
            calm, putting, links = behind.calm, behind.putting, behind.links
            archived, keeping = ArchivedBlobs(calm, cache.ledger), Around(cache.service, behind.service)
        touched = Touched()
        fills.fed_by(touched.stop)
        shared = SharedCache(cache.store, recent, cache.catalog, fills, touched, archived, links)
        siblings.questions.answer(FORGET, partial(_forget, recent, touched))
        services.addService(Fillings(fills, keeping))
    hottest = Hottest(nobody_counts if shared is None else partial(shared.catalog.facts.latest, HOTTEST))
    if shared is not None:
        hottest.take(shared.catalog.facts.get(HOTTEST))
        looking = every(PIN_INTERVAL, reactor, lambda: Deferred.fromCoroutine(hottest.look()), "the look at hot tags")
        looking.setServiceParent(services)
    gates = _gates(config, shared, orders, in_force.policies, hottest, services, clock, reactor)
    pins = None
    upkeep: list[IService] = []
    if cache is not None and siblings.first:
        pins = Pins(lambda: gates.standing, gates.contents, cache.store, cache.catalog, seconds)
        cache.staying.append(pins.stays)
        keep = pins.keep
        gates.watch(lambda: Deferred.fromCoroutine(keep()))
        pinning = every(PIN_INTERVAL, reactor, lambda: Deferred.fromCoroutine(keep()), "the look at what is pinned")
        pinning.setServiceParent(services)
        upkeep.append(pinning)
    siblings.questions.answer(ORDERS, partial(_look_at_orders, gates, pins))
    ours = urlsplit(public_url)
    ourselves = [name for name in (ours.netloc, ours.hostname) if name]
    router = Router(config.upstreams, ourselves, config.any_registry)
    in_force.watch(lambda: router.take_up(in_force.config.upstreams, in_force.config.any_registry))
    parts = Parts(
        config,
        public_url,
        shared,
        token_keys(config.access, shared, siblings, clock),
        Realms(once(PublicSuffixList)),
        siblings,
        meter,
        tracer,
        services,
        clock,
        seconds,
        reactor,
        Notes(clock.seconds),
        reading.model.happened,
        {},
        [],
        gates,
        in_force,
        make_paces(siblings, services, clock, config.max_rate, "all"),
        [],
    )
    unnamed_ways: dict[str, Way] = {}
    pulls = Pulls(parts, router, unnamed_ways)
    if shared is not None:
        Warmer(router, pulls).listen(siblings.questions)
    gate = gate_of(parts, router)
    v2 = V2(router, gate, pulls, clock, config.timeouts.client, config.catalog, tracer)
    in_force.watch(v2.forget)
    status = Status(reading.view, gate, pulls, config.status, Pages(), clock)
    pages: dict[bytes, IResource] = {
        name: Guarded(page, in_force.perimeter, local=False) for name, page in status.children().items()
    }
    export = Export(router, gate, pulls, clock, config.timeouts.client)
    pages[b"export"] = Guarded(Leaf(export.answer), in_force.perimeter, local=False)
    health = Health(condition)
    root = RegistryRoot(router, v2, Token(router, gate, pulls), pages, health)
    services.addService(Closing(recorder.flush))
    connections = Connections(config.client_connections, most_connections(), clock.seconds)
    registry = Watched(
        RegistrySite(root, gate, lines, meter, connections, recorder if remembers else None, clock.seconds),
        reactor,
    )
    front = make_front(
        config, in_force.perimeter, pair, registry, health, siblings, public_url, services, clock, reactor
    )
    condition.certified = front.is_certified
    parts.reloads.extend(front.reloads)
    if front.authority is not None:
        pages[b"ca.pem"] = front.authority
    services.addService(HangUp(parts.reloads, reactor))
    siblings.questions.answer(RELOAD, partial(_reload, parts.reloads))
    services.addService(
        Telling(
            reading.model,
            condition,
            fills,
            ChainMap(parts.ways, unnamed_ways),
            parts.notes,
            cache if siblings.first else None,
            pins,
            front.expires,
            front.standing,
            None if calm is None else partial(state_of, calm, putting),
            clock,
            reactor,
        )
    )
    services.addService(
        Sampling(
            meter,
            condition,
            registry,
            fills,
            cache,
            calm,
            putting,
            parts.ways,
            front.expires,
            front.standing,
            siblings.first,
            parts.seconds,
            reactor,
        )
    )
    perimeter = config.access.perimeter
    beside = LoggedSite(front.beside, OpenGate(in_force.perimeter), lines, NoMeter(), connections, clock.seconds)
    return Served(
        registry=registry,
        front=behind_balancers(front.factory, perimeter, reactor),
        redirect=behind_balancers(beside, perimeter, reactor),
        services=services,
        fills=fills,
        recorder=recorder,
        view=reading.view,
        gates=gates,
        pins=pins,
        upkeep=upkeep,
    )


def _untold(exchange: Exchange) -> None:
    """Nobody remembers pulls."""


def _gates(
    config: Config,
    cache: SharedCache | None,
    orders: IOrders,
    policies: Policies,
    hottest: Hottest,
    services: MultiService,
    clock: IReactorTime,
    reactor: Any,
) -> Gates:
    """What every pull asks before it serves anything."""
    contents: IContents = NoContents() if cache is None else CachedContents(cache.catalog, cache.store, cache.recent)
    threads = Threads(reactor, 1, "orders")
    learning = Learning(orders, contents, threads.in_thread, clock)
    gates = Gates(
        orders, policies, hottest, config.registries, contents, learning, None if cache is None else cache.fills, clock
    )
    services.addService(threads)
    services.addService(Closing(gates.stop))
    # Who asks sees an order at once; what is on its way must be cut though nobody asks.
    services.addService(every(LOOK_INTERVAL, reactor, gates.look, "the look at the orders"))
    return gates


async def _look_at_orders(gates: Gates, pins: Pins | None) -> dict[str, int]:
    """Go by all orders that there are; how much is pinned, where this process sees to that."""
    await gates.settle()
    if pins is None:
        return {}
    await pins.keep()
    return {"kept": pins.held.kept, "wanted": pins.held.wanted}


def _public_url(config: Config) -> str:
    assert config.public_url is not None, "derived once the ports are open"
    return config.public_url


async def _forget(recent: MemoryCache, touched: Touched, digests: Sequence[str]) -> None:
    touched.forget_all(digests)
    await recent.forget_all(digests)


async def _reload(reloads: Sequence[Reload]) -> list[Mapping[str, Any]]:
    """What a reload in this process tells the steward."""
    return reload_all(reloads)

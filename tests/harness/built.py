"""What tests serve: everything that `docxy.assembly.build` makes, on a store and a catalog that a test keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from zope.interface import implementer

from docxy.access.open_gate import OpenGate
from docxy.addresses import Perimeter
from docxy.assembly import Served, build
from docxy.catalog.interfaces import ICatalog
from docxy.daemon.archiving import OpenArchive
from docxy.daemon.services import OpenCache
from docxy.observe.access_line import Combined
from docxy.observe.access_log import DaemonLog
from docxy.observe.exchange import Exchange
from docxy.observe.metrics import IMeter, NoMeter
from docxy.observe.model import About, ReadModel
from docxy.observe.one_process import OneProcess
from docxy.observe.recorder import IRecorder
from docxy.observe.tracing import ITracer, NoTracer
from docxy.observe.view import LocalView, News, Reading
from docxy.orders.in_force import InForce
from docxy.orders.policies import Policies
from docxy.orders.store import IOrders, MemoryOrders
from docxy.settings.model import Config, JournalMode
from docxy.siblings import Siblings
from docxy.storage.counts import Counts
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import IBlobStore
from docxy.web.connections import Connections
from docxy.web.site import RegistrySite


def on(store: IBlobStore, catalog: ICatalog) -> OpenCache:
    """A cache that stays open when what serves it ends."""

    async def used() -> int:
        return 0

    async def contents() -> dict[str, Any]:
        return {}

    ledger = store.ledger if isinstance(store, FilesystemStore) else None
    return OpenCache(store, catalog, Service(), used, used, contents, 0, Counts(), ledger=ledger)


def built(
    config: Config,
    cache: OpenCache | None,
    clock: IReactorTime,
    seconds: Callable[[], float],
    reactor: Any,
    meter: IMeter | None = None,
    tracer: ITracer | None = None,
    orders: IOrders | None = None,
    policies: Policies | None = None,
    archive: OpenArchive | None = None,
) -> Served:
    """One process that serves plain HTTP by itself; its services are not started."""
    return build(
        config,
        pair=None,
        cache=cache,
        archive=archive,
        lines=DaemonLog(Combined()),
        meter=NoMeter() if meter is None else meter,
        tracer=NoTracer() if tracer is None else tracer,
        siblings=Siblings.alone(),
        reading=reading(config, clock),
        orders=MemoryOrders() if orders is None else orders,
        in_force=InForce(config, Policies(config.policy) if policies is None else policies),
        clock=clock,
        seconds=seconds,
        reactor=reactor,
    )


@implementer(IRecorder)
class NoRecorder:
    """Where nobody looks."""

    is_flooded = False

    def drop(self, head: bool, sent: int) -> None:
        return

    def record(self, exchange: Exchange) -> None:
        return


def read_model(config: Config, clock: IReactorTime) -> tuple[LocalView, ReadModel]:
    """A read model, and a view of it."""
    news = News(clock)
    about = About(
        "test", str(config.public_url), clock.seconds(), config.auth.value, [u.name for u in config.upstreams], None, 1
    )
    model = ReadModel(
        about, clock.seconds, lambda pull: None, news.publish, hold=0.0, names=config.journal is JournalMode.CLIENTS
    )
    return LocalView(model, None, news, clock.seconds), model


def reading(config: Config, clock: IReactorTime) -> Reading:
    """A read model as the only process has it."""
    view, model = read_model(config, clock)
    return Reading(OneProcess(model, 1), view)


def open_site(root: IResource, connections: int = 0, most: int = 0) -> Any:
    """The registry's site with this at its root, for everybody; see `Connections`."""
    limits = Connections(connections, most, time.time)
    return RegistrySite(root, OpenGate(Perimeter), DaemonLog(Combined()), NoMeter(), limits, NoRecorder(), time.time)

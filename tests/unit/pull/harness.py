"""docxy's whole site in front of the fake upstream, and clients whose every byte is accounted for.

Real sockets on loopback.  The catalog's seconds stand still unless a test moves them, so what
ages does so by a test's word; what is waited for is an event.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from attrs import define, evolve, field, frozen
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, ResponseFailed, ResponseNeverReceived
from zope.interface import implementer

from docxy.assembly import Served
from docxy.catalog.interfaces import ICatalog
from docxy.catalog.memory import MemoryCatalog
from docxy.catalog.sqlite import SqliteCatalog
from docxy.daemon.archiving import OpenArchive
from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from docxy.observe.metrics import IMeter
from docxy.observe.tracing import ITracer
from docxy.orders.policies import Policies
from docxy.orders.store import IOrders, MemoryOrders
from docxy.pull.blobs.fills import Fills
from docxy.settings.model import AccessSettings, ArchiveSettings, AuthMode, Config, Redirect, Timeouts, Upstream
from docxy.settings.policy import Policy
from docxy.storage.interfaces import IBlobStore
from docxy.storage.memory import MemoryStore
from docxy.threads import Threads
from tests import fakes
from tests.harness.built import built, on
from tests.harness.client import Answer, Client, SendHeaders, Streamed, sent, whole

reactor: Any = _reactor

NAME = "fake.test"
REPOSITORY = "team/app"
ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
BUDGET = 1 << 30
PUBLIC_URL = "https://mirror.test"


class Seconds:
    """The time as the catalog sees it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@implementer(IReactorTime)
@frozen
class ShiftedClock:
    """The reactor's, but that it is as late as a test's seconds say."""

    shifted: Seconds
    began: float = field(factory=lambda: float(reactor.seconds()))

    def seconds(self) -> float:
        return float(reactor.seconds()) - self.began + self.shifted()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> IDelayedCall:
        return cast(IDelayedCall, reactor.callLater(delay, callable, *args, **kw))

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return cast(Sequence[IDelayedCall], reactor.getDelayedCalls())


@define(eq=False)
class Mirror:
    """One docxy: a site on a port of loopback."""

    upstream: fakes.Upstream
    store: IBlobStore
    catalog: ICatalog
    seconds: Seconds
    auth: AuthMode = AuthMode.NONE
    tag_ttl: float = 60.0
    prefetch: bool = False
    fetch_connections: int = 1
    keep_gone: bool = False
    listed: bool = False
    """Whether `_catalog` is on."""
    timeouts: Timeouts = field(factory=Timeouts)
    others: tuple[Upstream, ...] = ()
    """More upstreams, after the first."""
    any_registry: Upstream | None = None
    """What holds for registries that only clients name."""
    deny: tuple[str, ...] = ()
    """Repositories of the first upstream that nobody may pull."""
    changed: Mapping[str, Any] = field(factory=dict)
    """What else of the first upstream is not as usual."""
    access: AccessSettings = field(factory=AccessSettings)
    network: Any = reactor
    """The reactor by which it reaches upstreams."""
    cached: bool = True
    meter: IMeter | None = None
    """What counts; None: nothing does."""
    tracer: ITracer | None = None
    """None: nothing is traced."""
    clock: Callable[[Seconds], ShiftedClock] = ShiftedClock
    """What it measures by."""
    orders: IOrders = field(factory=MemoryOrders)
    policies: Policies = field(factory=lambda: Policies(Policy()))
    archive: OpenArchive | None = None
    """What is behind the cache."""
    redirect: Redirect = Redirect.NEVER
    served: Served = field(init=False)
    _port: Any = field(init=False, default=None)

    def all_upstreams(self) -> tuple[Upstream, ...]:
        hosts = frozenset({"localhost"})
        first = Upstream(NAME, self.upstream.url, realm_hosts=hosts, private=True, deny=self.deny)
        return (evolve(first, **self.changed), *self.others)

    def start(self) -> None:
        config = Config(
            cert=None,
            key=None,
            https="",
            redirect=None,
            http="",
            public_url=PUBLIC_URL,
            auth=self.auth,
            upstreams=self.all_upstreams(),
            any_registry=self.any_registry,
            timeouts=self.timeouts,
            tag_ttl=self.tag_ttl,
            prefetch=self.prefetch,
            fetch_connections=self.fetch_connections,
            keep_gone=self.keep_gone,
            catalog=self.listed,
            access=self.access,
            archive=None
            if self.archive is None
            else ArchiveSettings(self.archive.archive.name, redirect=self.redirect),
        )
        cache = on(self.store, self.catalog) if self.cached else None
        clock = self.clock(self.seconds)
        self.served = built(
            config,
            cache,
            clock,
            self.seconds,
            self.network,
            self.meter,
            self.tracer,
            self.orders,
            self.policies,
            self.archive,
        )
        self.served.services.startService()
        self._port = reactor.listenTCP(0, cast(Any, self.served.registry), interface="127.0.0.1", backlog=200)

    @property
    def fills(self) -> Fills:
        assert self.served.fills is not None
        return self.served.fills

    async def stop(self) -> None:
        """End everything, and wait until it has ended.  May be called twice."""
        port, self._port = self._port, None
        if port is None:
            return
        await port.stopListening()
        # As the daemon does: its clients are gone before its fills end, or they would begin them anew.
        await self.served.registry.drain(0.0)
        if self.served.fills is not None:
            await self.served.fills.stop()
        await self.served.services.stopService()

    async def stream(
        self,
        path: str,
        headers: SendHeaders | None = None,
        method: str = "GET",
        keep: bool = True,
        paused: bool = False,
    ) -> Streamed:
        """Ask on a connection of its own; `paused`: take nothing of the body yet."""
        url = f"http://127.0.0.1:{self._port.getHost().port}{path}"
        response = await Agent(reactor).request(method.encode(), url.encode(), sent(headers))
        client = Client(keep)
        response.deliverBody(client)
        if paused and client.transport is not None:
            client.pause()
        length = response.length if isinstance(response.length, int) else None
        return Streamed(response.code, response.headers, length, client)

    async def ask(self, path: str, headers: SendHeaders | None = None, method: str = "GET") -> Answer:
        """Ask, and take all of the answer, which must be whole."""
        return await whole(path, await self.stream(path, headers, method))

    async def cut(self, path: str, headers: SendHeaders | None = None) -> int:
        """Ask for what is cut off before its end; how many bytes came, -1 when not even the headers did."""
        try:
            streamed = await self.stream(path, headers)
        except (ResponseNeverReceived, ResponseFailed):
            return -1
        await streamed.client.ended
        if streamed.client.whole:
            raise AssertionError(f"{path} came whole: {streamed.status}, {streamed.client.received} bytes")
        return streamed.client.received

    async def manifest(
        self,
        reference: object,
        token: str | None = None,
        repository: str = REPOSITORY,
        method: str = "GET",
        accept: tuple[str, ...] = ACCEPT,
    ) -> Answer:
        headers: dict[str, str | list[str]] = {"Accept": list(accept), **bearer(token)}
        return await self.ask(f"/v2/{repository}/manifests/{reference}", headers, method)

    async def blob(
        self,
        digest: object,
        token: str | None = None,
        repository: str = REPOSITORY,
        asked: str | None = None,
        method: str = "GET",
    ) -> Answer:
        headers: dict[str, str | list[str]] = {} if asked is None else {"Range": asked}
        return await self.ask(f"/v2/{repository}/blobs/{digest}", {**headers, **bearer(token)}, method)

    async def token(self, repository: str = REPOSITORY, extra: str = "") -> Answer:
        """A token request, as an anonymous client."""
        return await self.ask(f"/auth/token?scope=repository:{repository}:pull{extra}")


def bearer(token: str | None) -> dict[str, str | list[str]]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def drain(fill_of: Mirror, digest: Any) -> Deferred[None]:
    """Fires once the fill of this digest has ended, now if there is none."""
    end = fill_of.fills.end(digest)
    if end is None:
        end = Deferred()
        end.callback(None)
    return end


class MirrorCase(TestCase):
    """An upstream, a catalog whose time stands still, and a mirror in `none` mode unless a test says otherwise."""

    auth = AuthMode.NONE
    fetch_connections = 1
    """Or a large blob that comes slowly, on a busy machine, would take more requests than are counted."""
    tag_ttl = 60.0
    prefetch = False

    async def setUp(self) -> None:
        self.seconds = Seconds()
        self.upstream = fakes.Upstream(reactor)
        await self.upstream.start()
        self.addCleanup(self.upstream.stop)
        self.catalog = self.make_catalog()
        self.store = self.make_store()
        self.mirror = self.start()

    def make_store(self) -> IBlobStore:
        return MemoryStore(BUDGET, reactor)

    def make_catalog(self) -> ICatalog:
        return MemoryCatalog(reactor, self.seconds)

    def open_catalog(self, directory: str) -> SqliteCatalog:
        """A catalog in a directory, as each process has its own."""
        os.makedirs(directory, exist_ok=True)
        thread = Threads(reactor, 1, "catalog")
        thread.startService()
        self.addCleanup(thread.stopService)
        catalog = SqliteCatalog(directory, BUDGET, thread.in_thread, reactor, self.seconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(catalog.close()))
        return catalog

    def settings(self) -> dict[str, Any]:
        """What each mirror of this case shares."""
        return {
            "upstream": self.upstream,
            "store": self.store,
            "catalog": self.catalog,
            "seconds": self.seconds,
            "auth": self.auth,
            "tag_ttl": self.tag_ttl,
        }

    def start(self, **changed: Any) -> Mirror:
        """A mirror on what this case shares, or on what is changed."""
        own = {"prefetch": self.prefetch, "fetch_connections": self.fetch_connections}
        mirror = Mirror(**{**self.settings(), **own, **changed})
        mirror.start()
        self.addCleanup(mirror.stop)
        return mirror

    def counts(self) -> dict[str, int]:
        """Requests that the upstream saw, by `METHOD kind`."""
        counted: dict[str, int] = {}
        for request in self.upstream.requests:
            key = f"{request.method} {request.kind}"
            counted[key] = counted.get(key, 0) + 1
        return counted

    def saw(self, **expected: int) -> None:
        """That the upstream saw these and no more: `GET_blob=1`; forgets them."""
        self.assertEqual(self.counts(), {name.replace("_", " "): count for name, count in expected.items()})
        self.upstream.requests.clear()

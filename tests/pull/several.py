"""One docxy in front of several registries, each with a way out of its own, over a net that tests can bend.

Names of the net are the tests' to resolve; whatever docxy connects to is written down, and public
addresses lead to fake upstreams on loopback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.task import deferLater
from zope.interface import implementer

from docxy.assembly import Cache, build_site
from docxy.config import Config, Upstream
from docxy.serving import Watched
from docxy.upstream.agent import make_agent
from tests import fakes
from tests.pull.harness import PUBLIC_URL, Mirror, MirrorCase, ShiftedClock, reactor


@implementer(IHostResolution)
class Resolution:
    """One that is over at once."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        raise NotImplementedError("it is over")


def address(host: str, port: int) -> IAddress:
    family = IPv6Address if ":" in host else IPv4Address
    return cast(IAddress, family("TCP", host, port))


@implementer(IHostnameResolver)
class Names:
    """A DNS: addresses by name.  A literal address is its own."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self.table = table

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        literal = [hostName] if hostName.replace(".", "").isdigit() or ":" in hostName else []
        for host in self.table.get(hostName, literal):
            resolutionReceiver.addressResolved(address(host, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IReactorPluggableNameResolver)
class Net:
    """The reactor, but for names and where addresses lead."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.leads: dict[str, int] = {}
        """Address -> port of loopback."""
        self.connected: list[str] = []
        """Addresses, in order."""
        self.nameResolver = Names(self.names)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError("tests fill the table")

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        self.connected.append(host)
        return reactor.connectTCP("127.0.0.1", self.leads.get(host, port), factory, timeout, bindAddress)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@define(eq=False)
class Docxy(Mirror):
    """A mirror of any upstreams, the first of which is the default."""

    upstreams: tuple[Upstream, ...] = ()
    registries: Sequence[fakes.Upstream] = ()
    """The fakes that are behind them."""
    net: Any = reactor
    cached: bool = True
    _pools: list[Any] = field(init=False, factory=list)

    def start(self) -> None:
        config = Config(
            cert=None,
            key=None,
            https="",
            redirect=None,
            http="",
            public_url=PUBLIC_URL,
            auth=self.auth,
            upstreams=self.upstreams,
            timeouts=self.timeouts,
            tag_ttl=self.tag_ttl,
            prefetch=self.prefetch,
        )
        clock = ShiftedClock(self.seconds)
        agents = {}
        for upstream in self.upstreams:
            agents[upstream.name], pool = make_agent(self.net, self.timeouts, upstream)
            self._pools.append(pool)
        self._pool = self._pools[0]
        self.cache = Cache.of(self.store, self.catalog, clock)
        cache = self.cache if self.cached else None
        site = build_site(config, PUBLIC_URL, lambda upstream: agents[upstream.name], clock, cache)
        self._watched = Watched(site, reactor)
        self._port = reactor.listenTCP(0, cast(Any, self._watched), interface="127.0.0.1", backlog=200)

    async def stop(self) -> None:
        await super().stop()
        for _ in range(100):
            await gatherResults([pool.closeCachedConnections() for pool in self._pools])
            if not any(each.open_connections for each in (self.upstream, *self.registries)):
                break
            await deferLater(reactor, 0.01, lambda: None)


class SeveralCase(MirrorCase):
    """`self.upstream` and, from `another`, more registries; `serve` starts a docxy in front of them."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        await super().setUp()
        await self.mirror.stop()
        self.registries: list[fakes.Upstream] = []
        self.net = Net()

    async def another(self) -> fakes.Upstream:
        """A registry of its own; before `serve`."""
        registry = fakes.Upstream(reactor)
        await registry.start()
        self.addCleanup(registry.stop)
        self.registries.append(registry)
        return registry

    def serve(self, *upstreams: Upstream, **changed: Any) -> Docxy:
        """A docxy with these upstreams, on what this case shares."""
        settings: dict[str, Any] = {
            "upstream": self.upstream,
            "store": self.store,
            "catalog": self.catalog,
            "seconds": self.seconds,
            "auth": self.auth,
            "tag_ttl": self.tag_ttl,
            "upstreams": upstreams,
            "registries": self.registries,
        }
        docxy = Docxy(**{**settings, **changed})
        docxy.start()
        self.addCleanup(docxy.stop)
        return docxy

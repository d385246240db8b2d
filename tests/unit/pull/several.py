"""One docxy in front of several registries, each with a way out of its own, over a net that tests can bend.

Names of the net are the tests' to resolve; whatever docxy connects to is written down, and public
addresses lead to fake upstreams on loopback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from zope.interface import implementer

from docxy.settings.model import Upstream
from tests import fakes
from tests.unit.pull.harness import Mirror, MirrorCase, reactor


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

    def all_upstreams(self) -> tuple[Upstream, ...]:
        return self.upstreams


class SeveralCase(MirrorCase):
    """`self.upstream` and, from `another`, more registries; `serve` starts a docxy in front of them."""

    async def setUp(self) -> None:
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
        docxy = Docxy(**{**self.settings(), "upstreams": upstreams, "registries": self.registries, **changed})
        docxy.start()
        self.addCleanup(docxy.stop)
        return docxy

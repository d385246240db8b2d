"""Ports: opened early, served behind later, closed first.

The law: a port that cannot be opened ends the start, in one line.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    ILoggingContext,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import Interface, implementer


class CannotListen(SystemExit, Exception):
    """A port cannot be opened; the message is one line for the operator.

    An Exception, for twistd to clean up and tell the terminal it was started from; and a
    SystemExit, for the interpreter to end with this line and no traceback.
    """


def has_ipv6() -> bool:
    """Whether this machine lets us bind to IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as attempt:
            attempt.bind(("::", 0))
    except OSError:
        return False
    return True


@define
class Door:
    """An endpoint that is opened before it is known what will be served there."""

    description: str
    endpoint: IStreamServerEndpoint
    port: IListeningPort | None = field(default=None, init=False)
    _factory: LateFactory = field(factory=lambda: LateFactory(), init=False)

    def open(self) -> None:
        """Raises CannotListen."""
        opened: list[IListeningPort] = []
        failed: list[Failure] = []
        waiting = self.endpoint.listen(self._factory)
        waiting.addCallbacks(opened.append, failed.append)
        if failed:
            raise CannotListen(f"cannot listen on {shown_endpoint(self.description)}: {_why(failed[0].value)}")
        if not opened:
            waiting.cancel()
            raise CannotListen(f"cannot listen on {shown_endpoint(self.description)}: it does not open at once")
        self.port = opened[0]

    def serve(self, factory: IProtocolFactory) -> None:
        """From now on connections are the factory's."""
        self._factory.become(factory)

    @property
    def is_shareable(self) -> bool:
        """Whether other processes can serve its connections; a Unix socket's file is the concern of one."""
        return isinstance(self.port, Port) and self.port.addressFamily in (socket.AF_INET, socket.AF_INET6)

    def share(self) -> tuple[int, int]:
        """Leave its connections to others: its descriptor and address family.  It must be shareable."""
        assert isinstance(self.port, Port)
        self.port.stopReading()
        return self.port.fileno(), self.port.addressFamily

    def address(self) -> IAddress:
        """What it is bound to, once it is open."""
        assert self.port is not None
        address: IAddress = self.port.getHost()
        return address

    def close(self) -> Deferred[None]:
        port, self.port = self.port, None
        closed = None if port is None else port.stopListening()
        return succeed(None) if closed is None else closed


def _why(error: BaseException | None) -> str:
    if isinstance(error, CannotListenError):
        error = error.socketError
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def shown_endpoint(description: str) -> str:
    """An endpoint for a line to the operator: `[::]:443`."""
    tcp = re.match(r"tcp6?:(\d+)(?::interface=((?:[^:\\]|\\:)*))?", description)
    if tcp is None:
        return description
    port, interface = tcp.group(1), (tcp.group(2) or "").replace("\\:", ":")
    return _host_port(interface, port) if interface else f"port {port}"


def shown_address(address: IAddress) -> str:
    """An address as people write it: `[::]:443`."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return str(getattr(address, "name", address))
    return _host_port(host, port)


def _host_port(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@implementer(ILoggingContext)
class LateFactory(Factory[Any]):
    """Stands for a factory that is made later; connections before that are refused."""

    noisy = False
    _factory: IProtocolFactory | None = None

    def logPrefix(self) -> str:
        return "docxy"

    def become(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        factory.doStart()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._factory is None or addr is None:
            return None
        return self._factory.buildProtocol(addr)

    def stopFactory(self) -> None:
        if self._factory is not None:
            self._factory.doStop()


@frozen
class Doors:
    """The ports, and what they are for."""

    front: Door
    """HTTPS where there is a certificate, else plain HTTP."""
    side: Door | None = None
    """Plain HTTP that only redirects to HTTPS."""

    def all(self) -> list[Door]:
        return [self.front] if self.side is None else [self.front, self.side]


class IServing(Interface):
    """Whatever answers behind the doors."""

    async def stop(grace: float) -> None:
        """Let what is being answered end, within `grace` seconds, and then all it needs.

        The doors are closed already.
        """


class Front(Service):
    """Opens the doors, with privileges; serves behind them, without; ends well."""

    def __init__(self, doors: list[Door], serve: Callable[[], IServing], grace: float) -> None:
        """`serve` is called once the doors are open and privileges are dropped; `grace`: seconds."""
        self._doors = doors
        self._serve = serve
        self._grace = grace
        self._serving: IServing | None = None
        self._open = False

    def privilegedStartService(self) -> None:
        self._open = True
        for door in self._doors:
            door.open()

    def startService(self) -> None:
        if not self._open:
            self.privilegedStartService()
        Service.startService(self)
        self._serving = self._serve()

    async def _stop(self) -> None:
        await DeferredList([door.close() for door in self._doors])
        if self._serving is not None:
            await self._serving.stop(self._grace)
        self._open = False

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

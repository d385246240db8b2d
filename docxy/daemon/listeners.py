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
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from docxy.daemon.upgrade.adopted import leave
from docxy.daemon.upgrade.takeover import Passed

_log = Logger()


class CannotStart(SystemExit, Exception):
    """The daemon cannot start; the log says why, in one line.

    An Exception, for twistd to clean up and tell the terminal it was started from; and a
    SystemExit, for the interpreter to end without a traceback.
    """

    def __init__(self, line: str) -> None:
        SystemExit.__init__(self, line)
        self.code = 1
        _log.critical("{line}", line=line)


def has_ipv6() -> bool:
    """Whether this machine lets us bind to IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as attempt:
            attempt.bind(("::", 0))
    except OSError:
        return False
    return True


@define
class Listener:
    """An endpoint that is opened before it is known what will be served there."""

    description: str
    endpoint: IStreamServerEndpoint
    port: IListeningPort | None = field(default=None, init=False)
    _left: IListeningPort | None = field(default=None, init=False)
    """Keeps the socket that was left, until the process ends."""
    _factory: LateFactory = field(factory=lambda: LateFactory(), init=False)

    def open(self) -> None:
        """Raises CannotStart."""
        opened: list[IListeningPort] = []
        failed: list[Failure] = []
        waiting = self.endpoint.listen(self._factory)
        waiting.addCallbacks(opened.append, failed.append)
        if failed:
            raise CannotStart(f"cannot listen on {shown_endpoint(self.description)}: {_why(failed[0].value)}")
        if not opened:
            waiting.cancel()
            raise CannotStart(f"cannot listen on {shown_endpoint(self.description)}: it does not open at once")
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

    def passed(self) -> Passed | None:
        """Its socket, for another docxy; None: it has none that could be passed on."""
        if not isinstance(self.port, Port):
            return None
        return Passed(self.description, self.port.fileno(), self.port.addressFamily)

    def leave(self) -> None:
        """Accept no more, while another process goes on with the same socket."""
        if self.port is not None:
            leave(self.port)
            # As a port that is closed does.
            self._factory.doStop()  # type: ignore[no-untyped-call]  # not annotated
            self._left, self.port = self.port, None

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
class Listeners:
    """The ports, and what they are for."""

    front: Listener
    """HTTPS where there is a certificate, else plain HTTP."""
    side: Listener | None = None
    """Plain HTTP that only redirects to HTTPS."""

    def all(self) -> list[Listener]:
        return [self.front] if self.side is None else [self.front, self.side]


class IServing(Interface):
    """What answers behind the listeners: this process, or workers."""

    async def stop(grace: float) -> None:
        """Let what is being answered end, within `grace` seconds, and then all it needs.

        The listeners are closed already.
        """

    async def retire(grace: float) -> None:
        """Another docxy has taken over: return when nothing is being answered here, after `grace` seconds at most.

        A request on an open connection is still answered, and the connection ends with it.
        """

    def abort() -> None:
        """End now what is being answered."""


class Front(Service):
    """Opens the listeners, with privileges; serves behind them, without; ends well."""

    def __init__(self, listeners: list[Listener], serve: Callable[[], IServing], grace: float) -> None:
        """`serve` is called once the listeners are open and privileges are dropped; `grace`: seconds."""
        self._listeners = listeners
        self._serve = serve
        self._grace = grace
        self._serving: IServing | None = None
        self._open = False

    def privilegedStartService(self) -> None:
        self._open = True
        for listener in self._listeners:
            listener.open()

    def startService(self) -> None:
        if not self._open:
            self.privilegedStartService()
        Service.startService(self)
        self._serving = self._serve()

    def abort(self) -> None:
        """Give what is being answered no more time."""
        if self._serving is not None:
            self._serving.abort()

    async def retire(self, grace: float) -> None:
        """Accept no more, and go on as `IServing.retire` says."""
        for listener in self._listeners:
            listener.leave()
        if self._serving is not None:
            await self._serving.retire(grace)

    async def _stop(self) -> None:
        await DeferredList([listener.close() for listener in self._listeners])
        if self._serving is not None:
            await self._serving.stop(self._grace)
        self._open = False

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

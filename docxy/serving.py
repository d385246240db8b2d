"""Ports, the connections on them, and how they come to an end.

The law: a port that cannot be opened ends the start, in one line; at the stop, requests that
are being answered may go on for the grace, and whatever they still need runs until then.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IReactorTime,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import Interface, implementer

CLOSE_GRACE = 2.0
"""Seconds a connection that is closed with nothing left to send may take to close."""


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


@implementer(IProtocolNegotiationFactory)
class Watched(Factory[Any]):
    """A site whose connections and requests are known, so that they can be ended well.

    Stands between the transport (TLS or not) and the site's protocols, and leaves the
    transport as it is.
    """

    noisy = False

    def __init__(self, site: Site, clock: IReactorTime) -> None:
        self._site = site
        self._clock = clock
        self._connections: set[Connection] = set()
        self._requests: set[Request] = set()
        self._empty: Deferred[None] | None = None
        site.resource = Counted(site.resource, self._requests)

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only, whether or not h2 is installed."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        self._site.doStart()

    def stopFactory(self) -> None:
        self._site.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return Connection(self._site.buildProtocol(addr), self._opened, self._closed)

    def _opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._empty is not None and not self._connections:
            empty, self._empty = self._empty, None
            empty.callback(None)

    @property
    def in_progress(self) -> int:
        """Requests that are being answered."""
        return len(self._requests)

    @property
    def connected(self) -> int:
        """Connections."""
        return len(self._connections)

    def drain(self, grace: float) -> Deferred[None]:
        """Close each connection once nothing is being answered on it, at the latest after `grace` seconds.

        Fires when all are closed.
        """
        if not self._connections:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._empty = done
        for request in self._requests:
            if isinstance(request.channel, HTTPChannel):
                # The channel closes the connection after this answer.
                request.channel.persistent = 0
        for connection in self._idle():
            connection.transport.loseConnection()
        # Over TLS a close waits for the client's, which an idle client may never send.
        ends = [
            self._clock.callLater(min(CLOSE_GRACE, grace), lambda: self._abort(self._idle())),
            self._clock.callLater(grace, lambda: self._abort(list(self._connections))),
        ]

        def finished(_: None) -> None:
            for end in ends:
                if end.active():
                    end.cancel()

        return done.addCallback(finished)

    def _idle(self) -> list[Connection]:
        """Connections on which nothing is being answered."""
        busy = {request.channel.transport for request in self._requests if request.channel is not None}
        return [connection for connection in self._connections if connection.transport not in busy]

    def _abort(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.transport.abortConnection()


@implementer(IProtocol)
@define(eq=False)
class Connection:
    """Passes a transport's events on to the protocol, and says when it begins and ends."""

    _protocol: Any
    _opened: Callable[[Connection], None]
    _closed: Callable[[Connection], None]
    transport: Any = field(default=None, init=False)

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        self._opened(self)
        self._protocol.makeConnection(transport)

    def connectionMade(self) -> None:
        """`makeConnection` of the protocol has called its own."""

    def dataReceived(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:
        try:
            self._protocol.connectionLost(reason)
        finally:
            self._closed(self)


class Counted(Resource):
    """The root of a tree, with a note of the requests that pass."""

    def __init__(self, root: IResource, requests: set[Request]) -> None:
        Resource.__init__(self)
        self._root = root
        self._requests = requests
        self.isLeaf = root.isLeaf

    def _note(self, request: Request) -> None:
        self._requests.add(request)
        request.notifyFinish().addBoth(lambda _: self._requests.discard(request))

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        self._note(request)
        child: IResource = self._root.getChildWithDefault(path, request)
        return child

    def render(self, request: Request) -> Any:
        """Only for a root that is a leaf."""
        self._note(request)
        return self._root.render(request)


class IServing(Interface):
    """Whatever answers behind the doors."""

    async def stop(grace: float) -> None:
        """Let what is being answered end, within `grace` seconds, and then all it needs.

        The doors are closed already.
        """


@implementer(IServing)
class Here:
    """Sites of this process, and the service they depend on, which runs until they have been drained."""

    _log = Logger()

    def __init__(self, watched: list[Watched], depends: IService) -> None:
        self._watched = watched
        self._depends = depends

    async def stop(self, grace: float) -> None:
        running = sum(watched.in_progress for watched in self._watched)
        if running:
            self._log.info("stopping: {running} requests have {grace:g} s to finish", running=running, grace=grace)
        await DeferredList([watched.drain(grace) for watched in self._watched])
        await maybeDeferred(self._depends.stopService)


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

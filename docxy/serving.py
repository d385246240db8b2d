"""The connections of a site, and how they come to an end.

The law: at the stop, requests that are being answered may go on for the grace, and whatever they
still need runs until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.application.service import IService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolNegotiationFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from docxy.doors import IServing

CLOSE_GRACE = 2.0
"""Seconds a connection that is closed with nothing left to send may take to close."""


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

"""A TCP relay that breaks, stalls, slows or answers by itself, before a server that knows nothing of it."""

from __future__ import annotations

import re
import socket
from typing import Any

from attrs import define, field, frozen
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

_REQUEST = re.compile(rb"((?:GET|HEAD|PUT|POST|DELETE) \S+) HTTP/1\.1\r\n")


@frozen
class Trouble:
    """What is wrong with the connections from now on; all None: nothing."""

    status: int | None = None
    """Every request is answered with this, and the server hears nothing of it."""
    stall: int | None = None
    """Bytes of an answer after which no more come."""
    cut: int | None = None
    """Bytes of an answer after which the connection is closed."""
    reset: int | None = None
    """The same, by RST."""
    rate: int | None = None
    """Bytes of an answer a second."""


@define(eq=False)
class Relay:
    """On a port of loopback; to be started and stopped."""

    reactor: Any
    port: int
    """Of the server."""
    trouble: Trouble = field(factory=Trouble)
    connections: set[_Near] = field(factory=set)
    requests: list[str] = field(factory=list)
    """Method and target of each request, in order; what a request's body is sent in is none."""
    aged: int = 0
    """Connections that were reset for their age."""
    _listening: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getHost().port}"

    def start(self) -> None:
        factory: Factory[Any] = Factory.forProtocol(lambda: _Near(self))
        factory.noisy = False
        self._listening = self.reactor.listenTCP(0, factory, interface="127.0.0.1")

    def set(self, trouble: Trouble) -> None:
        """Connections that are open end, and new ones have this."""
        self.trouble = trouble
        for each in list(self.connections):
            each.abort()

    def age(self) -> None:
        """Connections that are open are reset at their next request, as by a server that closes them just then."""
        for each in self.connections:
            each.aged = True

    async def stop(self) -> None:
        self.set(Trouble())
        await self._listening.stopListening()


class _Near(Protocol):
    """The client's end."""

    transport: Any

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._trouble = relay.trouble
        self._far: _Far | None = None
        self._waiting: list[bytes] = []
        self._answered = 0
        self._open = True
        self.aged = False
        self._pause: Any = None
        """Until more of a slow answer goes out."""

    def connectionMade(self) -> None:
        self._relay.connections.add(self)
        if self._trouble.status is None:
            endpoint = TCP4ClientEndpoint(self._relay.reactor, "127.0.0.1", self._relay.port)
            connectProtocol(endpoint, _Far(self)).addErrback(lambda _: self.abort())

    def joined(self, far: _Far) -> None:
        self._far = far
        if not self._open:
            far.transport.abortConnection()
            return
        for data in self._waiting:
            far.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        asked = _REQUEST.match(data)
        if asked is not None:
            self._relay.requests.append(asked[1].decode("ascii"))
        if self._trouble.status is not None:
            head = f"HTTP/1.1 {self._trouble.status} Trouble\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self.transport.write(head.encode())
            self.transport.loseConnection()
        elif self.aged:
            self._relay.aged += 1
            self.abort()
        elif self._far is None:
            self._waiting.append(data)
        else:
            self._far.transport.write(data)

    def answer(self, data: bytes) -> None:
        trouble = self._trouble
        for most in (trouble.stall, trouble.cut, trouble.reset):
            if most is not None:
                data = data[: max(0, most - self._answered)]
        self._answered += len(data)
        self.transport.write(data)
        if trouble.rate is not None and self._far is not None:
            far = self._far
            far.transport.pauseProducing()
            self._pause = self._relay.reactor.callLater(len(data) / trouble.rate, self._go_on)
        if trouble.cut is not None and self._answered >= trouble.cut:
            self.transport.loseConnection()
        if trouble.reset is not None and self._answered >= trouble.reset:
            self.abort()

    def _go_on(self) -> None:
        if self._open and self._far is not None:
            self._far.transport.resumeProducing()

    def abort(self) -> None:
        self._stay()
        if self._open:
            linger = b"\1\0\0\0\0\0\0\0"
            self.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abortConnection()

    def _stay(self) -> None:
        if self._pause is not None and self._pause.active():
            self._pause.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._open = False
        self._stay()
        self._relay.connections.discard(self)
        if self._far is not None:
            self._far.transport.abortConnection()


class _Far(Protocol):
    """The server's end."""

    transport: Any

    def __init__(self, near: _Near) -> None:
        self._near = near

    def connectionMade(self) -> None:
        self._near.joined(self)

    def dataReceived(self, data: bytes) -> None:
        self._near.answer(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._near._open:
            self._near.transport.loseConnection()

"""A proxy on loopback that opens tunnels: whatever host a CONNECT names, its port leads to loopback."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


class _Far(Protocol):
    """The end of a tunnel."""

    def __init__(self, near: _Near) -> None:
        self._near = near

    def dataReceived(self, data: bytes) -> None:
        self._near.send(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._near.hang_up()


class _Near(Protocol):
    """The client's side."""

    def __init__(self, reactor: Any, connects: list[str]) -> None:
        self._reactor = reactor
        self._connects = connects
        self._head = b""
        self._far: Any = None

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def hang_up(self) -> None:
        self._transport.loseConnection()

    @property
    def _transport(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        if self._far is not None:
            self._far.transport.write(data)
            return
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            asked = self._head.split(b" ")[1].decode()
            self._connects.append(asked)
            endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", int(asked.rpartition(":")[2]))
            factory: Factory[Any] = Factory.forProtocol(lambda: _Far(self))
            factory.noisy = False
            endpoint.connect(factory).addCallbacks(self._opened, lambda _: self.hang_up())

    def _opened(self, far: Any) -> None:
        self._far = far
        self.send(b"HTTP/1.1 200 OK\r\n\r\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._far is not None:
            self._far.transport.loseConnection()


class TunnelProxy:
    """Listens until it is stopped."""

    def __init__(self, reactor: Any) -> None:
        self.connects: list[str] = []
        """What clients asked for: `host:port`."""
        factory: Factory[Any] = Factory.forProtocol(lambda: _Near(reactor, self.connects))
        factory.noisy = False
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"

    async def stop(self) -> None:
        await self._port.stopListening()

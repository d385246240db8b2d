"""The way out through an HTTP proxy (RFC 9110 section 9.3.6, CONNECT).

The law: the proxy sees host and port of an upstream and nothing else that is https.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.settings.proxies import Proxy

_LONGEST_ANSWER = 16 * 1024


class ProxyRefused(UpstreamError):
    """The proxy did not open a tunnel; the message names it and holds no credentials."""


@implementer(IStreamClientEndpoint)
@frozen
class TunnelEndpoint:
    """Connects to a host and port through the proxy at `proxy_endpoint`."""

    proxy_endpoint: IStreamClientEndpoint
    proxy: Proxy
    host: str
    port: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        tunnel = _Tunnel(self, protocolFactory)
        factory: Factory[Any] = Factory.forProtocol(lambda: tunnel)
        factory.noisy = False
        tunnel.connecting = self.proxy_endpoint.connect(factory)
        tunnel.connecting.addErrback(tunnel.failed)
        return tunnel.opened


class _Tunnel(Protocol):
    """Speaks to the proxy until the tunnel is open, then steps aside."""

    def __init__(self, endpoint: TunnelEndpoint, wanted: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._wanted = wanted
        self._received = b""
        self._inner: IProtocol | None = None
        self.opened: Deferred[IProtocol] = Deferred(lambda _: self._abort())
        self.connecting: Deferred[Any] | None = None
        """To the proxy."""

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
        elif self.connecting is not None:
            self.connecting.cancel()

    def failed(self, reason: Failure) -> None:
        """Connecting to the proxy failed, or the proxy did."""
        if not self.opened.called:
            self.opened.errback(reason)

    def _refused(self, why: str) -> None:
        self.failed(Failure(ProxyRefused(f"the proxy {self._endpoint.proxy.host} {why}")))
        self._abort()

    def connectionMade(self) -> None:
        endpoint = self._endpoint
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        lines = [f"CONNECT {host}:{endpoint.port} HTTP/1.1", f"Host: {host}:{endpoint.port}"]
        if endpoint.proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {endpoint.proxy.authorization}")
        cast(ITransport, self.transport).write("\r\n".join([*lines, "", ""]).encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self.opened.called:
            return  # given up, or refused
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            if len(self._received) > _LONGEST_ANSWER:
                self._refused("answered without an end")
            return
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            self._refused(f"answered {status[0].decode('ascii', 'replace') if status else 'nothing readable'}")
            return
        transport = cast(ITransport, self.transport)
        inner = self._wanted.buildProtocol(transport.getPeer())
        if inner is None:
            self._refused("has no use any more")
            return
        self._inner = inner
        inner.makeConnection(transport)
        if not self.opened.called:
            self.opened.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self._refused("closed the connection")

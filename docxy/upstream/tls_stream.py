"""TLS to upstreams, opened in large pieces.

The law: what arrives goes to OpenSSL as it came, and comes out in the same order; only how much of
it is handed on at a time is ours.  Twisted hands on each record of 16 KiB for itself, through its
whole HTTP parser, for twice the processor time that a blob costs otherwise.
"""

from __future__ import annotations

from attrs import frozen
from OpenSSL.SSL import Connection, Error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

_LARGE = 32 * 1024
"""Bytes: fewer are not worth gathering."""
_SLICE = 64 * 1024
"""Bytes given to OpenSSL at a time: it keeps memory of that size for each connection."""
_RECORD = 16 * 1024


class LargeReads(TLSMemoryBIOProtocol):
    """Hands on what many records hold at once."""

    def dataReceived(self, data: bytes) -> None:
        connection: Connection | None = self.getHandle()  # type: ignore[no-untyped-call]  # twisted's is not annotated
        if len(data) >= _LARGE and connection is not None:
            # The last byte takes Twisted's way, which sees to the handshake, to errors and to the end.
            view, data = memoryview(data)[:-1], data[-1:]
            opened: list[bytes] = []
            for start in range(0, len(view), _SLICE):
                connection.bio_write(view[start : start + _SLICE])
                try:
                    while True:
                        opened.append(connection.recv(_RECORD))
                except Error:  # no whole record is left, or what Twisted will meet again
                    pass
            if opened and self.wrappedProtocol is not None:
                self.wrappedProtocol.dataReceived(b"".join(opened))
        TLSMemoryBIOProtocol.dataReceived(self, data)


class _Factory(TLSMemoryBIOFactory):
    protocol = LargeReads


@implementer(IStreamClientEndpoint)
@frozen
class Secured:
    """Puts TLS over an endpoint's connections, as `wrapClientTLS` does."""

    creator: IOpenSSLClientConnectionCreator
    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = _Factory(self.creator, True, protocolFactory)
        return self.endpoint.connect(factory).addCallback(_wrapped)


def _wrapped(protocol: IProtocol) -> IProtocol:
    assert isinstance(protocol, TLSMemoryBIOProtocol) and protocol.wrappedProtocol is not None
    return protocol.wrappedProtocol

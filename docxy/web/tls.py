"""TLS under a connection: an answer is sealed with one call and sent with one.

The law: *what TLS says goes out in the order in which OpenSSL wrote it.*  Records go straight to the socket only
while nothing waits in its transport; what the socket does not take waits there, and so does all that follows.

Twisted's own hands each record to the transport, which asks the reactor when the socket has room: two calls into
epoll and a turn of the reactor for each small answer.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL.SSL import Error, WantReadError
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, IProtocolFactory, IReactorTime
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

RECORD = 16 * 1024
OVERHEAD = 128
"""Bytes of a TLS record's payload at most, and more than a record adds to it."""


class TLS(TLSMemoryBIOProtocol):
    """One connection."""

    def write(self, data: bytes) -> None:
        socket = self.transport
        if self.disconnecting or not self.connected or not isinstance(socket, Connection) or not is_clear(socket):
            TLSMemoryBIOProtocol.write(self, data)
            return
        try:
            records = self.seal(data)
        except Error:
            # Twisted's own meets it again, and ends the connection.
            TLSMemoryBIOProtocol.write(self, data)
            return
        try:
            sent = socket.getHandle().send(records)
        except OSError:
            # A full buffer is no error; any other one the transport meets again, and ends the connection.
            sent = 0
        if sent < len(records):
            socket.write(records[sent:])

    def seal(self, data: bytes | memoryview) -> bytes:
        """The TLS records of some bytes, and what else TLS has to send before them.

        The handshake must be over: from then on OpenSSL waits for nothing of the client's before it seals, as
        OpenSSL 3 lets no client renegotiate.  Raises SSL.Error where nothing can be sealed any more.
        """
        connection = self.getHandle()  # type: ignore[no-untyped-call]  # not annotated
        room = len(data) + (len(data) // RECORD + 2) * OVERHEAD
        records = b""
        view = memoryview(data)
        while view:
            view = view[connection.send(view) :]
        try:
            while len(records) % room == 0:  # more than once only if the client asked for records smaller than usual
                records += connection.bio_read(room)
        except WantReadError:
            pass
        return records


def is_clear(socket: Connection) -> bool:
    """Whether nothing waits in a socket's transport."""
    # The second is Twisted's own name; where it is no more, everything takes Twisted's way.
    return not socket.dataBuffer and getattr(socket, "_tempDataLen", 1) == 0


class TLSFactory(TLSMemoryBIOFactory):
    """Puts TLS under a factory's connections.

    Twisted's own holds back what is written for the rest of the reactor's turn, in case more comes; docxy writes
    an answer in one or two pieces.
    """

    protocol = TLS

    def __init__(
        self,
        context: IOpenSSLServerConnectionCreator,
        served: IProtocolFactory,
        clock: IReactorTime,
        is_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """`is_ready`: whether there is a certificate; connections before that are closed at once."""
        TLSMemoryBIOFactory.__init__(self, context, False, served, clock)
        self._is_ready = is_ready

    def buildProtocol(  # type: ignore[override]  # None is what IProtocolFactory has for "close it"
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        return TLSMemoryBIOFactory.buildProtocol(self, addr) if self._is_ready() else None

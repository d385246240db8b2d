"""TLS in large pieces: what a server sealed comes out whole, in order, few pieces at a time, and ends as it ended."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.upstream.tls_stream import LargeReads, Secured
from tests.harness.certificates import issue

DATA = hashlib.shake_128(b"opened").digest(3_000_000)


class Reader(Protocol):
    """Notes each piece, and how it all ended."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason


@implementer(IOpenSSLClientConnectionCreator)
class Trusting:
    """Takes any certificate."""

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)


class Endpoint:
    """Connects to the test's transport."""

    def __init__(self, transport: StringTransport) -> None:
        self.transport = transport
        self.protocol: Any = None

    def connect(self, factory: Any) -> Any:
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)


class LargeReadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        issued = issue("upstream.test")
        options = PrivateCertificate.loadPEM(issued.pem + issued.key_pem()).options()
        self.server = SSL.Connection(options.getContext(), None)
        self.server.set_accept_state()
        self.transport = StringTransport()
        endpoint = Endpoint(self.transport)
        self.reader: Reader = self.successResultOf(
            Secured(Trusting(), endpoint).connect(Factory.forProtocol(Reader))  # type: ignore[arg-type]  # as much of one as is needed
        )
        self.protocol: LargeReads = endpoint.protocol
        for _ in range(4):
            self.server_reads()
            with contextlib.suppress(SSL.WantReadError):
                self.server.do_handshake()
            if said := self.sealed():
                self.protocol.dataReceived(said)

    def server_reads(self) -> None:
        if self.transport.value():
            self.server.bio_write(self.transport.value())
            self.transport.clear()

    def sealed(self, data: bytes = b"") -> bytes:
        """What the server has to say, after it said this."""
        while data:
            data = data[self.server.send(data[:16384]) :]
        out = b""
        while True:
            try:
                out += self.server.bio_read(1 << 20)
            except SSL.WantReadError:
                return out

    @property
    def received(self) -> bytes:
        return b"".join(self.reader.pieces)

    def test_large(self) -> None:
        """Of megabytes that arrive at once nearly all is handed on at once."""
        records = self.sealed(DATA)
        self.protocol.dataReceived(records)
        self.assertEqual(self.received, DATA)
        self.assertLess(len(self.reader.pieces), 4)

    def test_any_pieces(self) -> None:
        """However the network cuts it, the same bytes come out."""
        records, sizes = self.sealed(DATA), [1, 5, 16, 700, 32 * 1024, 32 * 1024 + 1, 65_000, 1 << 20]
        position, n = 0, 0
        while position < len(records):
            size = sizes[n % len(sizes)]
            self.protocol.dataReceived(records[position : position + size])
            position, n = position + size, n + 1
        self.assertEqual(self.received, DATA)

    def test_closed(self) -> None:
        """A close that came with the last bytes is one when they are handed on."""
        records = self.sealed(DATA)
        self.server.shutdown()
        self.protocol.dataReceived(records + self.sealed())
        self.assertEqual(self.received, DATA)
        self.assertTrue(self.transport.disconnecting)

    def test_flipped_bit(self) -> None:
        """Nothing comes of a record that was changed on the way, nor of those behind it; the connection ends."""
        records = bytearray(self.sealed(DATA))
        records[2_000_000] ^= 1
        self.protocol.dataReceived(bytes(records))
        self.assertLess(1_900_000, len(self.received))
        self.assertLess(len(self.received), 2_000_000)
        self.assertTrue(DATA.startswith(self.received))
        self.assertTrue(self.transport.disconnecting)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        assert self.reader.ended is not None
        self.assertIsInstance(self.reader.ended.value, ConnectionLost)

"""The header that a balancer begins a connection with: what it may say, who may send it, what a bad one leads to."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from docxy.access.open_gate import OpenGate
from docxy.addresses import Networks, Perimeter, peer
from docxy.settings.model import DOCKER_HUB, AccessSettings, AuthMode, Config
from docxy.web.proxy_protocol import MAX_HEADER, MAX_LINE, SIGNATURE, WITHIN, BadHeader, ProxyProtocolFactory, parse
from docxy.web.request import Request
from docxy.web.stall_timer import socket_of
from docxy.web.tls import TLSFactory
from tests.harness.built import built, open_site
from tests.harness.certificates import issue

reactor: Any = _reactor

BALANCER = IPv4Address("TCP", "10.0.0.10", 40000)
STRANGER = IPv4Address("TCP", "203.0.113.9", 40000)
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
V1 = b"PROXY TCP4 198.51.100.7 10.0.0.2 4711 443\r\n"


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    """A header of version 2."""
    return (
        SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body) if length is None else length) + body
    )


def v2_ipv4(host: str, tlvs: bytes = b"") -> bytes:
    return v2(1, 0x11, socket.inet_aton(host) + socket.inet_aton("10.0.0.2") + struct.pack("!HH", 4711, 443) + tlvs)


def v2_ipv6(host: str) -> bytes:
    both = socket.inet_pton(socket.AF_INET6, host) + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    return v2(1, 0x21, both + struct.pack("!HH", 4711, 443))


class Who(Resource):
    """Says who asks, as the gate has it."""

    isLeaf = True

    def __init__(self, perimeter: Perimeter) -> None:
        Resource.__init__(self)
        self._gate = OpenGate(lambda: perimeter)

    def render(self, request: Request) -> int:
        request.answer(200, (), json.dumps(self._gate.address(request)).encode())
        return NOT_DONE_YET


class ParseTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """Both versions, both families; the header's end is told to the byte."""
        for header, wanted in (
            (V1, "198.51.100.7"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::2 4711 443\r\n", "2001:db8::7"),
            (v2_ipv4("198.51.100.7"), "198.51.100.7"),
            (v2_ipv6("2001:db8::7"), "2001:db8::7"),
            (v2_ipv6("::ffff:198.51.100.7"), "198.51.100.7"),
            (v2_ipv4("198.51.100.7", b"\x05\x00\x04abcd\x20\x00\x00"), "198.51.100.7"),
        ):
            found = parse(header + REQUEST)
            assert found is not None and found.source is not None
            self.assertEqual((peer(found.source), found.size), (wanted, len(header)), header)
            for cut in range(len(header)):
                self.assertIsNone(parse(header[:cut]), header[:cut])

    def test_unknown(self) -> None:
        """Where no address is told there is none: not the balancer's, and not that of a Unix socket here."""
        for header in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN 10.0.0.1 10.0.0.2 1 2\r\n",
            v2(1, 0x00, b""),
            v2(1, 0x31, b"/run/x".ljust(216, b"\0")),
        ):
            found = parse(header + REQUEST)
            assert found is not None and found.source is not None
            self.assertEqual((peer(found.source), found.size), ("unknown", len(header)), header)

    def test_local(self) -> None:
        """LOCAL is the balancer itself, whatever addresses are with it."""
        for header in (v2(0, 0x00, b""), v2(0, 0x11, bytes(12))):
            found = parse(header)
            assert found is not None
            self.assertEqual((found.source, found.size), (None, len(header)))

    def test_bad(self) -> None:
        """Everything else is refused at the byte that makes it so."""
        for data in (
            REQUEST,
            b"\x16\x03\x01",
            b"PROXY  TCP4 198.51.100.7 10.0.0.2 4711 443\r\n",
            b"PROXY TCP4 198.51.100.7 10.0.0.2 4711 443 \r\n",
            b"PROXY TCP4 198.51.100.7\t10.0.0.2 4711 443\r\n",
            b"PROXY TCP4 198.51.100.7 10.0.0.2 4711 443\n" + REQUEST,
            b"PROXY TCP4 198.51.100.7 10.0.0.2 4711 65536\r\n",
            b"PROXY TCP4 198.51.100.700 10.0.0.2 4711 443\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::2 4711 443\r\n",
            b"PROXY TCP6 198.51.100.7 10.0.0.2 4711 443\r\n",
            b"PROXY TCP6 fe80::1%eth0 2001:db8::2 4711 443\r\n",
            b"PROXY UDP4 198.51.100.7 10.0.0.2 4711 443\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"PROXY UNKNOWN " + b"x" * MAX_LINE + b"\r\n",
            b"PROXY " + b"x" * 10_000,
            v2(1, 0x11, bytes(11)),
            v2(1, 0x21, bytes(35)),
            v2(2, 0x11, bytes(12)),
            v2(1, 0x41, bytes(12)),
            v2(1, 0x13, bytes(12)),
            v2(1, 0x11, b"", length=MAX_HEADER),
            v2(1, 0x11, bytes(10_000)),
            SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        ):
            self.assertRaises(BadHeader, parse, data)

    def test_largest(self) -> None:
        """A header as large as any may be is taken."""
        header = v2_ipv4("198.51.100.7", bytes(MAX_HEADER - 28))
        self.assertEqual(len(header), MAX_HEADER)
        self.assertIsNotNone(parse(header))
        line = b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 16) + b"\r\n"
        self.assertEqual(len(line), MAX_LINE)
        self.assertIsNotNone(parse(line))


class Behind(SynchronousTestCase):
    """A site behind a balancer, over a transport in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site: Any = open_site(Who(Perimeter(trusted_proxies=Networks.of(["198.51.100.7"]))))
        self.site.reactor = self.clock
        self.factory = ProxyProtocolFactory(self.site, Networks.of(["10.0.0.10", "2001:db8::/32", "unix"]), self.clock)
        self.factory.doStart()
        self.addCleanup(self.factory.doStop)

    def connect(self, address: IAddress) -> tuple[Any, StringTransport]:
        protocol = self.factory.buildProtocol(address)
        transport = StringTransport(peerAddress=address)
        protocol.makeConnection(transport)
        self.addCleanup(protocol.connectionLost, Failure(ConnectionDone()))
        return protocol, transport

    def answered(self, address: IAddress, data: bytes) -> str:
        """Who the client is, in the answer to this; else the answer's first line, `-` for none and the end."""
        protocol, transport = self.connect(address)
        protocol.dataReceived(data)
        answer = transport.value()
        if answer.startswith(b"HTTP/1.1 200 "):
            return str(json.loads(answer.partition(b"\r\n\r\n")[2]))
        self.assertTrue(transport.disconnecting or transport.disconnected)
        return answer.partition(b"\r\n")[0].decode() or "-"

    def test_listed(self) -> None:
        """The header of a listed balancer says who the client is; without one there is no answer."""
        self.assertEqual(self.answered(BALANCER, V1 + REQUEST), "198.51.100.7")
        self.assertEqual(self.answered(BALANCER, v2_ipv6("2001:db8:1::7") + REQUEST), "2001:db8:1::7")
        self.assertEqual(self.answered(IPv6Address("TCP", "::ffff:10.0.0.10", 1), V1 + REQUEST), "198.51.100.7")
        self.assertEqual(self.answered(IPv6Address("TCP", "2001:db8::1", 1), V1 + REQUEST), "198.51.100.7")
        self.assertEqual(self.answered(UNIXAddress(b""), V1 + REQUEST), "198.51.100.7")
        self.assertEqual(self.answered(BALANCER, v2(0, 0, b"") + REQUEST), "10.0.0.10")
        self.assertEqual(self.answered(BALANCER, b"PROXY UNKNOWN\r\n" + REQUEST), "unknown")
        self.assertEqual(self.answered(BALANCER, REQUEST), "-")

    def test_stranger(self) -> None:
        """Nobody else may send one, of either version; what they ask without one is answered to their own address."""
        self.assertEqual(self.answered(STRANGER, REQUEST), "203.0.113.9")
        for header in (V1, v2_ipv4("198.51.100.7")):
            self.assertEqual(self.answered(STRANGER, header + REQUEST)[:10], "HTTP/1.1 4")

    def test_second(self) -> None:
        """A header that a client of the balancer sends behind the balancer's own is no request, and no header."""
        for second in (b"PROXY TCP4 10.9.9.9 10.0.0.2 1 2\r\n", v2_ipv4("10.9.9.9")):
            self.assertEqual(self.answered(BALANCER, V1 + second + REQUEST)[:10], "HTTP/1.1 4")

    def test_forwarded(self) -> None:
        """X-Forwarded-For is believed of the address in the header, not of the balancer that sent it."""
        asked = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.55\r\n\r\n"
        self.assertEqual(self.answered(BALANCER, V1 + asked), "192.0.2.55")
        self.assertEqual(self.answered(BALANCER, v2_ipv4("198.51.100.8") + asked), "198.51.100.8")

    def test_split(self) -> None:
        """A header may come byte by byte, and its last byte with the request's first."""
        for header in (V1, v2_ipv4("198.51.100.7", b"\x04\x00\x01x")):
            protocol, transport = self.connect(BALANCER)
            for byte in header + REQUEST:
                protocol.dataReceived(bytes([byte]))
            self.assertIn(b'"198.51.100.7"', transport.value())

    def test_half(self) -> None:
        """Half a header waits, slowly fed or not, and ends after a time that no byte prolongs; a whole one goes on."""
        for fed in (b"", V1[:-1], SIGNATURE[:3], v2_ipv4("198.51.100.7")[:-1]):
            protocol, transport = self.connect(BALANCER)
            for byte in fed:
                protocol.dataReceived(bytes([byte]))
                self.clock.advance(WITHIN / 200)
            self.assertFalse(transport.disconnecting or transport.disconnected)
            self.assertEqual(len(self.factory.waiting), 1)
            self.clock.advance(WITHIN)
            self.assertTrue(transport.disconnected)
            self.assertEqual((transport.value(), self.factory.waiting), (b"", set()))
            protocol.dataReceived(V1 + REQUEST)
            self.assertEqual(transport.value(), b"", "it is taken up again")
        protocol, transport = self.connect(BALANCER)
        protocol.dataReceived(V1)
        self.clock.advance(2 * WITHIN)
        self.assertFalse(transport.disconnected)

    def test_flood(self) -> None:
        """Of ten thousand bytes without an end, docxy keeps no more than a header has."""
        for beginning in (b"PROXY UNKNOWN ", v2(1, 0x11, b"", length=10_000)):
            protocol, transport = self.connect(BALANCER)
            protocol.dataReceived(beginning)
            for _ in range(100):
                protocol.dataReceived(b"x" * 100)
            self.assertTrue(transport.disconnected)
            self.assertEqual(protocol._received, b"")

    def test_gone(self) -> None:
        """A connection that its balancer closes before the header's end leaves nothing behind."""
        before = self.clock.getDelayedCalls()
        protocol = self.factory.buildProtocol(BALANCER)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"PROXY")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.factory.waiting, self.clock.getDelayedCalls()), (set(), before))

    def test_stop(self) -> None:
        """When the port closes, connections without a header end; others are let finish."""
        _, waiting = self.connect(BALANCER)
        served, other = self.connect(BALANCER)
        served.dataReceived(V1)
        self.factory.stopFactory()
        self.factory.startFactory()
        self.assertEqual((waiting.disconnected, other.disconnected), (True, False))

    def test_connections(self) -> None:
        """`--client-connections` counts the balancer's clients, not the balancer."""
        self.site._connections.of_address = 1
        kept, transport = self.connect(BALANCER)
        kept.dataReceived(V1 + REQUEST)
        self.assertIn(b"200 OK", transport.value())
        self.assertEqual(self.answered(BALANCER, V1 + REQUEST), "-")
        self.assertEqual(self.answered(BALANCER, v2_ipv4("198.51.100.8") + REQUEST), "198.51.100.8")


class WiredTests(SynchronousTestCase):
    def made(self, perimeter: Perimeter) -> list[bool]:
        config = Config(
            cert=None,
            key=None,
            https="",
            redirect=None,
            http="",
            public_url="http://mirror.test",
            auth=AuthMode.NONE,
            upstreams=(DOCKER_HUB,),
            access=AccessSettings(perimeter=perimeter),
        )
        clock = MemoryReactorClock()
        served = built(config, None, clock, clock.seconds, clock)
        return [isinstance(factory, ProxyProtocolFactory) for factory in (served.front, served.redirect)]

    def test_ports(self) -> None:
        """Both ports take the header where balancers are listed, and neither where there are none."""
        self.assertEqual(self.made(Perimeter(proxy_protocol_from=Networks.of(["10.0.0.10"]))), [True, True])
        self.assertEqual(self.made(Perimeter(trusted_proxies=Networks.of(["10.0.0.10"]))), [False, False])


class Client(Protocol):
    """Sends the header, and what follows it; under TLS where it has a context."""

    def __init__(self, header: bytes, context: Any) -> None:
        self._header = header
        self._context = context
        self.received = b""
        self.lost: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._header)
        if self._context is not None:
            transport.startTLS(self._context)
        transport.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(self.received)


class Ways(Who):
    """Says over what kind of transport it answers, too."""

    def render(self, request: Request) -> int:
        channel: Any = request.channel
        socket = socket_of(request)
        said = [peer(request.client), type(channel.transport).__name__, socket is not None, channel.is_clear]
        request.answer(200, (), json.dumps(said).encode())
        return NOT_DONE_YET


class WireTests(TestCase):
    """The same over sockets."""

    async def said(self, header: bytes, tls: bool) -> Any:
        """What is answered; None: nothing."""
        site = open_site(Ways(Perimeter()))
        served: Any = site
        context = None
        if tls:
            issued = issue("localhost")
            pair = PrivateCertificate.loadPEM(issued.pem + issued.key_pem())
            served = TLSFactory(pair.options(), site, reactor)
            context = optionsForClientTLS("localhost", Certificate.loadPEM(issued.pem))
        factory = ProxyProtocolFactory(served, Networks.of(["127.0.0.1"]), reactor)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        gone: Deferred[None] = Deferred()
        site.emptied = lambda: gone.callback(None)
        client = Client(header, context)
        await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(
            cast(Any, Factory.forProtocol(lambda: client))
        )
        answer = await client.lost
        if not answer:
            return None
        await gone
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    async def test_plain(self) -> None:
        """Behind the header a connection's answers go to the socket itself, as sendfile needs it."""
        self.assertEqual(await self.said(V1, False), ["198.51.100.7", "Server", True, True])

    async def test_tls(self) -> None:
        """The header comes before the handshake, and nothing stands between TLS and the socket."""
        said = await self.said(v2_ipv6("2001:db8::7"), True)
        self.assertEqual(said, ["2001:db8::7", "TLS", True, False])

    async def test_without(self) -> None:
        """A handshake without a header is not taken up."""
        self.assertIsNone(await self.said(b"", True))

"""The way through a proxy: a CONNECT on real sockets, and what the environment says of proxies.

What these cannot show, that TLS goes through the tunnel, is Twisted's: the endpoint here is
wrapped as any other.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, cast

from attrs import frozen
from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, ServerFactory, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from docxy.settings.proxies import Proxy, from_environment
from docxy.upstream.proxy import ProxyRefused, TunnelEndpoint

SECRET = "hunter2"
OPEN = b"HTTP/1.1 200 Connection established\r\nX-Proxy: a\r\n\r\n"


class ATinyProxy(Protocol):
    """Answers a CONNECT, then echoes in capitals what comes through the tunnel."""

    def __init__(self, factory: TinyProxies) -> None:
        self.factory_ = factory
        self.received = b""
        self.answered = False

    def connectionMade(self) -> None:
        self.factory_.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        transport = cast(Any, self.transport)
        if self.answered:
            transport.write(data.upper())
            return
        self.received += data
        if b"\r\n\r\n" in self.received:
            self.answered = True
            self.factory_.asked.callback(self.received)
            if self.factory_.answer:
                transport.write(self.factory_.answer)
            if self.factory_.closes:
                transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory_.open.remove(self)
        self.factory_.gone.callback(None)


class TinyProxies(ServerFactory[ATinyProxy]):
    """One connection's worth of a proxy."""

    noisy = False

    def __init__(self, answer: bytes, closes: bool = False) -> None:
        self.answer = answer
        self.closes = closes
        self.open: list[ATinyProxy] = []
        self.asked: Deferred[bytes] = Deferred()
        """The request it got."""
        self.gone: Deferred[None] = Deferred()
        """When the client hung up."""

    def buildProtocol(self, addr: object) -> ATinyProxy:
        return ATinyProxy(self)


class Client(Protocol):
    """Says a word when it is connected, and collects what it is told."""

    def __init__(self) -> None:
        self.received = b""
        self.enough: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"HELLO"):
            self.enough.callback(self.received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


@implementer(IStreamClientEndpoint)
class FarAway:
    """A proxy that takes for ever to connect to."""

    given_up = False

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def give_up(_: object) -> None:
            self.given_up = True

        return Deferred(give_up)


@implementer(IStreamClientEndpoint)
class InMemory:
    """A proxy that is connected to at once; its answers are the test's."""

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.protocol: Any = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self.protocol = protocolFactory.buildProtocol(self.transport.getPeer())
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)


@frozen
class Way:
    """A proxy that listens, and the endpoint through it."""

    proxies: TinyProxies
    endpoint: TunnelEndpoint
    clients: Factory[Client]


class TunnelTests(TestCase):
    def way(self, answer: bytes, closes: bool = False, host: str = "registry.example", port: int = 443) -> Way:
        reactor = cast(Any, installed)
        proxies = TinyProxies(answer, closes)
        listening = reactor.listenTCP(0, proxies, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        number = listening.getHost().port
        proxy = Proxy.parse(f"http://me:{SECRET}@127.0.0.1:{number}")
        near = TCP4ClientEndpoint(reactor, proxy.host, proxy.port)
        clients: Factory[Client] = Factory.forProtocol(Client)
        clients.noisy = False
        return Way(proxies, TunnelEndpoint(near, proxy, host, port), clients)

    async def refusal(self, answer: bytes, closes: bool = False) -> str:
        """What the operator reads when the proxy answers so; the connection is closed."""
        way = self.way(answer, closes)
        with self.assertRaises(ProxyRefused) as refused:
            await way.endpoint.connect(way.clients)
        await way.proxies.gone
        message = str(refused.exception)
        self.assertIn("127.0.0.1", message)
        self.assertNotIn(SECRET, message + repr(way.endpoint))
        self.assertNotIn(b64encode(f"me:{SECRET}".encode()).decode(), message + repr(way.endpoint))
        return message

    async def test_opens(self) -> None:
        """The proxy is told host, port and its own credentials; then bytes go both ways, and so does the end."""
        way = self.way(OPEN)
        client = cast(Client, await way.endpoint.connect(way.clients))
        self.assertEqual(await client.enough, b"HELLO")
        credentials = b64encode(f"me:{SECRET}".encode())
        self.assertEqual(
            await way.proxies.asked,
            b"CONNECT registry.example:443 HTTP/1.1\r\nHost: registry.example:443\r\n"
            b"Proxy-Authorization: Basic " + credentials + b"\r\n\r\n",
        )
        cast(Any, way.proxies.open[0].transport).loseConnection()
        await client.lost
        await way.proxies.gone

    async def test_bytes_right_behind_the_answer(self) -> None:
        """What comes in one piece with the proxy's answer belongs to the upstream."""
        way = self.way(OPEN + b"first ")
        client = cast(Client, await way.endpoint.connect(way.clients))
        self.assertEqual(await client.enough, b"first HELLO")
        cast(Any, client.transport).loseConnection()
        await way.proxies.gone

    async def test_ipv6(self) -> None:
        """An IPv6 address is in brackets."""
        way = self.way(OPEN, host="2001:db8::1", port=5000)
        client = cast(Client, await way.endpoint.connect(way.clients))
        self.assertEqual((await way.proxies.asked).split(b"\r\n")[0], b"CONNECT [2001:db8::1]:5000 HTTP/1.1")
        cast(Any, client.transport).loseConnection()
        await way.proxies.gone

    async def test_refused(self) -> None:
        """An answer other than 200 is the operator's to read, without what the proxy says of it."""
        message = await self.refusal(f"HTTP/1.1 407 Authenticate\r\nX-Echo: {SECRET}\r\n\r\n".encode())
        self.assertEqual(message, "the proxy 127.0.0.1 answered 407")

    async def test_unreadable(self) -> None:
        """So is an answer that is none, one that does not end, and a connection that does."""
        self.assertIn("answered nothing readable", await self.refusal(b"\r\n\r\n"))
        self.assertIn("answered without an end", await self.refusal(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 17000))
        self.assertIn("closed the connection", await self.refusal(b"HTTP/1.1 200", closes=True))

    async def test_given_up(self) -> None:
        """Nobody waits any more: the connection to a proxy that does not answer is closed."""
        way = self.way(b"")
        connecting = way.endpoint.connect(way.clients)
        await way.proxies.asked
        connecting.cancel()
        with self.assertRaises(CancelledError):
            await connecting
        await way.proxies.gone

    async def test_given_up_before_connecting(self) -> None:
        """Given up while still on the way to the proxy, nobody goes on connecting to it."""
        far = FarAway()
        way = TunnelEndpoint(far, Proxy("proxy.example", 3128), "registry.example", 443)
        connecting = way.connect(Factory.forProtocol(Client))
        connecting.cancel()
        with self.assertRaises(CancelledError):
            await connecting
        self.assertTrue(far.given_up)

    async def test_late_answer(self) -> None:
        """An answer that was on its way when the tunnel was given up opens nothing."""
        near = InMemory()
        clients = Factory.forProtocol(Client)
        connecting = TunnelEndpoint(near, Proxy("proxy.example", 3128), "registry.example", 443).connect(clients)
        connecting.cancel()
        near.protocol.dataReceived(OPEN)
        with self.assertRaises(CancelledError):
            await connecting
        self.assertNotIn(b"hello", near.transport.value())
        self.assertTrue(near.transport.disconnecting)


class ParseTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """With and without scheme, port and credentials, which may be percent-encoded."""
        for url, wanted in (
            ("http://proxy.example:8080", Proxy("proxy.example", 8080)),
            ("http://proxy.example/", Proxy("proxy.example", 3128)),
            ("proxy.example:1", Proxy("proxy.example", 1)),
            ("http://[::1]:1", Proxy("::1", 1)),
            ("http://me:p%40s@p:1", Proxy("p", 1, "Basic " + b64encode(b"me:p@s").decode())),
        ):
            self.assertEqual(Proxy.parse(url), wanted)

    def test_refused(self) -> None:
        """Other kinds of proxy are refused, and no message repeats what may be a password."""
        for url in ("https://p", f"socks5://me:{SECRET}@p", f"http://me:{SECRET}", "http://", f"http://[{SECRET}"):
            self.assertNotIn(SECRET, str(self.assertRaises(ValueError, Proxy.parse, url)))


class EnvironmentTests(SynchronousTestCase):
    PROXIES = {"HTTPS_PROXY": "http://s", "HTTP_PROXY": "http://p"}

    def test_by_scheme(self) -> None:
        """Each scheme has its variable, in either case; ALL_PROXY is for what has none."""
        self.assertEqual(from_environment("https://a.example", self.PROXIES), "http://s")
        self.assertEqual(from_environment("http://a.example", self.PROXIES), "http://p")
        self.assertEqual(from_environment("http://a.example", {"http_proxy": "http://p"}), "http://p")
        self.assertEqual(from_environment("http://a.example", {"ALL_PROXY": "x", "HTTPS_PROXY": "s"}), "x")
        self.assertIsNone(from_environment("http://a.example", {"HTTPS_PROXY": "http://s", "HTTP_PROXY": ""}))
        self.assertIsNone(from_environment("https://a.example", {}))

    def test_no_proxy(self) -> None:
        """A host, the domain above it, an address, a network of them, or everything."""
        for no_proxy, host in (
            ("*", "a.example"),
            ("a.example", "a.example"),
            ("example", "a.example"),
            (".example", "a.example"),
            ("*.example", "a.example"),
            ("b.example, A.Example", "a.example"),
            ("a.example:443", "a.example"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("2001:db8::/32", "[2001:db8::1]"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ):
            self.assertIsNone(from_environment(f"https://{host}", {**self.PROXIES, "no_proxy": no_proxy}), no_proxy)

    def test_not_no_proxy(self) -> None:
        """What only looks alike is not covered."""
        for no_proxy, host in (
            ("", "a.example"),
            (",", "a.example"),
            ("b.example", "a.example"),
            ("x.a.example", "a.example"),
            ("ample", "a.example"),
            ("a.example", "ba.example"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/8", "10.example"),
            ("2001:db8::/32", "10.0.0.1"),
        ):
            self.assertEqual(
                from_environment(f"https://{host}", {**self.PROXIES, "NO_PROXY": no_proxy}), "http://s", no_proxy
            )

    def test_loopback(self) -> None:
        """A registry on this machine is not looked for behind a proxy."""
        for url in ("http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"):
            self.assertIsNone(from_environment(url, self.PROXIES), url)

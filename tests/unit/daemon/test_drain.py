"""Listeners and the end of connections: what is finished, what is cut, and in which order.

Over real sockets on loopback, with events instead of time: the grace runs on a clock of the
test.  That a signal starts all this is shown by `tests/unit/test_tap.py`.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from docxy.daemon.drain import CLOSE_GRACE, IDLE_GRACE, Here, Watched
from docxy.daemon.listeners import CannotStart, Front, LateFactory, Listener, shown_address, shown_endpoint
from tests.harness.built import open_site

reactor: Any = _reactor


class Slow(Resource):
    """Answers when the test says so."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.asked: Deferred[Any] = Deferred()

    def render(self, request: Any) -> int:
        asked, self.asked = self.asked, Deferred()
        asked.callback(request)
        return NOT_DONE_YET


class Client(Protocol):
    """Keeps what it gets, and knows when the connection ends."""

    def __init__(self) -> None:
        self.received = b""
        self.more: Deferred[None] = Deferred()
        self.lost: Deferred[type[BaseException]] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        more, self.more = self.more, Deferred()
        more.callback(None)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008 (IProtocol's own default)
        assert reason.type is not None
        self.lost.callback(reason.type)

    def ask(self) -> None:
        assert self.transport is not None
        self.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


class Depends(Service):
    """Notes when it is stopped."""

    stopped = False

    def stopService(self) -> None:
        Service.stopService(self)
        self.stopped = True


class FrontTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.slow = Slow()
        self.depends = Depends()
        self.listener = Listener("tcp:0", TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        site = open_site(self.slow)
        # The site's idle timeout is not what is shown here.
        site.timeOut = None
        self.watched = Watched(site, self.clock)
        self.front = Front([self.listener], self.serve, 30.0)
        self.front.privilegedStartService()
        self.address: Any = self.listener.address()
        self.front.startService()
        self.stopping: Deferred[None] | None = None
        self.addCleanup(self.end)

    def serve(self) -> Here:
        self.listener.serve(self.watched)
        return Here([self.watched], self.depends)

    def end(self) -> Deferred[None]:
        if self.stopping is None:
            self.stopping = self.front.stopService()
            self.clock.advance(30)
        return self.stopping

    def connect(self) -> Deferred[Client]:
        connected: Deferred[Client] = connectProtocol(
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.address.port), Client()
        )
        return connected

    async def half_answered(self) -> tuple[Client, Any]:
        """A connection that has four of the eight bytes of an answer, and the request."""
        client = await self.connect()
        asked = self.slow.asked
        client.ask()
        request = await asked
        request.start(200, (), 8)
        request.write(b"half")
        await client.more
        return client, request

    async def test_a_running_answer_is_finished(self) -> None:
        """At the stop, an answer goes on and arrives whole; what it needs is stopped after it, not before."""
        client, request = await self.half_answered()
        self.stopping = self.front.stopService()
        self.assertNoResult(self.stopping)
        self.assertFalse(self.depends.stopped)
        request.write(b"done")
        request.finish()
        self.assertIs(await client.lost, ConnectionDone)
        self.assertTrue(client.received.endswith(b"\r\n\r\nhalfdone"), client.received)
        await self.stopping
        self.assertTrue(self.depends.stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_no_new_connections(self) -> None:
        """While the last answer runs nobody else is let in."""
        client = await self.connect()
        asked = self.slow.asked
        client.ask()
        request = await asked
        self.stopping = self.front.stopService()
        with self.assertRaises(Exception) as caught:
            await self.connect()
        self.assertIn("refused", str(caught.exception))
        request.finish()
        await self.stopping
        await client.lost

    async def used(self) -> Client:
        """A connection on which a request was answered."""
        client = await self.connect()
        await self.answered(client)
        return client

    async def answered(self, client: Client) -> None:
        asked = self.slow.asked
        client.ask()
        request = await asked
        more = client.more
        request.start(200, (), 4)
        request.write(b"done")
        request.finish()
        await more

    async def test_another_docxy_has_taken_over(self) -> None:
        """A request that comes within a moment is answered, then connections end; the socket goes on listening."""
        client, idle = await self.used(), await self.used()
        retiring = Deferred.fromCoroutine(self.front.retire(30.0))
        await self.answered(client)
        self.assertIs(await client.lost, ConnectionDone)
        self.assertNoResult(retiring)
        self.clock.advance(IDLE_GRACE)
        self.assertIs(await idle.lost, ConnectionDone)
        await retiring
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.depends.stopped)
        late = await self.connect()  # it waits for the other docxy, which has the socket, too
        assert late.transport is not None
        late.transport.abortConnection()  # type: ignore[attr-defined]  # the one of TCP has it
        await late.lost
        left: Any = self.listener._left
        left.socket.close()

    async def test_stop_after_another_has_taken_over(self) -> None:
        """A stop while the last transfers run has its own, shorter grace."""
        client, _ = await self.half_answered()
        retiring = Deferred.fromCoroutine(self.front.retire(900.0))
        self.stopping = self.front.stopService()
        self.clock.advance(30.0)
        await client.lost
        await self.stopping
        await retiring
        self.assertEqual(self.clock.getDelayedCalls(), [])
        left: Any = self.listener._left
        left.socket.close()

    async def test_idle_connections_are_closed_at_once(self) -> None:
        """A connection kept alive for a next request does not hold up the stop."""
        client = await self.connect()
        asked = self.slow.asked
        client.ask()
        request = await asked
        request.finish()
        while not client.received.endswith(b"0\r\n\r\n"):
            await client.more
        self.assertEqual(self.watched.in_progress, 0)
        self.stopping = self.front.stopService()
        await client.lost
        await self.stopping

    async def test_grace_ends(self) -> None:
        """An answer that does not end is cut when the grace is over, and not a second earlier."""
        client = await self.connect()
        asked = self.slow.asked
        client.ask()
        request = await asked
        gone = request.notifyFinish()
        self.stopping = self.front.stopService()
        # The port is closed in the next turn of the reactor; the grace begins then.
        closed: Deferred[None] = Deferred()
        reactor.callLater(0, closed.callback, None)
        await closed
        self.clock.advance(29.9)
        self.assertNoResult(self.stopping)
        self.assertNoResult(gone)
        self.clock.advance(0.2)
        await self.stopping
        self.failureResultOf(gone)
        self.assertIs(await client.lost, ConnectionLost)

    def test_idle_connection_that_does_not_close(self) -> None:
        """One that is closed in words only (over TLS the peer has to agree) is cut well before the grace ends."""
        transport = StringTransport()
        connection = self.watched.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        connection.makeConnection(transport)
        drained = self.watched.drain(30.0)
        self.assertTrue(transport.disconnecting)
        self.clock.advance(CLOSE_GRACE - 0.1)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(transport.disconnected)
        connection.connectionLost(Failure(ConnectionLost()))
        self.successResultOf(drained)

    async def test_nobody_there(self) -> None:
        """Without connections the stop takes no time."""
        self.stopping = self.front.stopService()
        await self.stopping
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_lost_client_is_not_counted(self) -> None:
        """A request whose client has gone is no longer in progress."""
        client = await self.connect()
        asked = self.slow.asked
        client.ask()
        request = await asked
        self.assertEqual(self.watched.in_progress, 1)
        gone = request.notifyFinish()
        assert client.transport is not None
        client.transport.loseConnection()
        await client.lost
        with self.assertRaises(Exception):  # noqa: B017 (any: the connection is lost)
            await gone
        self.assertEqual(self.watched.in_progress, 0)


class FailingEndpoint:
    """An endpoint that gives what it is told to."""

    def __init__(self, result: Deferred[Any]) -> None:
        self.result = result

    def listen(self, factory: IProtocolFactory) -> Deferred[Any]:
        return self.result


class DoorTests(SynchronousTestCase):
    def test_port_in_use(self) -> None:
        """The line names the address and says why."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            listener = Listener(
                f"tcp:{port}:interface=127.0.0.1", TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
            )
            error = self.assertRaises(CannotStart, listener.open)
        self.assertEqual(str(error), f"cannot listen on 127.0.0.1:{port}: Address already in use")

    def test_ends_the_program_without_a_traceback(self) -> None:
        """It is an Exception with a line for twistd, which cleans up, and a SystemExit with a status for Python."""
        listener: Any = Listener("fd:9", FailingEndpoint(fail(OSError(9, "Bad file descriptor"))))  # type: ignore[arg-type]  # as much of one as is needed
        error = self.assertRaises(CannotStart, listener.open)
        self.assertIsInstance(error, Exception)
        self.assertIsInstance(error, SystemExit)
        self.assertEqual((str(error), error.code), ("cannot listen on fd:9: Bad file descriptor", 1))

    def test_not_at_once(self) -> None:
        """An endpoint that opens some day cannot be waited for with privileges."""
        listener = Listener("odd:", FailingEndpoint(Deferred()))  # type: ignore[arg-type]  # as much of one as is needed
        error = self.assertRaises(CannotStart, listener.open)
        self.assertEqual(str(error), "cannot listen on odd:: it does not open at once")

    def test_closed_before_it_was_opened(self) -> None:
        """A start that failed can be cleaned up."""
        listener = Listener("odd:", FailingEndpoint(succeed(None)))  # type: ignore[arg-type]  # as much of one as is needed
        self.successResultOf(listener.close())

    def test_nobody_is_served_yet(self) -> None:
        """Before there is a factory a connection is refused."""
        self.assertIsNone(LateFactory().buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))


class AddressTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """As people write them."""
        self.assertEqual(shown_address(IPv4Address("TCP", "127.0.0.1", 80)), "127.0.0.1:80")
        self.assertEqual(shown_address(IPv6Address("TCP", "::", 443)), "[::]:443")
        self.assertIn("/run/docxy.sock", shown_address(UNIXAddress("/run/docxy.sock")))

    def test_endpoints(self) -> None:
        """What was asked for, as an address where it is one."""
        for description, wanted in (
            (r"tcp6:443:interface=\:\::backlog=1024", "[::]:443"),
            (r"tcp6:443:interface=fe80\:\:1", "[fe80::1]:443"),
            ("tcp:80:interface=127.0.0.1:backlog=1", "127.0.0.1:80"),
            ("tcp:80:backlog=1", "port 80"),
            ("systemd:domain=INET6:index=0", "systemd:domain=INET6:index=0"),
        ):
            self.assertEqual(shown_endpoint(description), wanted)


class ConnectionTests(SynchronousTestCase):
    def test_transport_is_left_as_it_is(self) -> None:
        """The site's channel writes to the very transport of the connection, with nothing between."""
        slow = Slow()
        asked = slow.asked
        site = open_site(slow)
        site.reactor = Clock()
        watched = Watched(site, Clock())
        connection, transport = watched.buildProtocol(None), StringTransport()
        connection.makeConnection(transport)
        connection.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        request = self.successResultOf(asked)
        self.assertIs(request.channel.transport, transport)
        connection.connectionLost(Failure(Exception()))

    def test_http_1_only(self) -> None:
        """HTTP/2 is not offered, whatever is installed."""
        self.assertEqual(Watched(open_site(Slow()), Clock()).acceptableProtocols(), [b"http/1.1"])

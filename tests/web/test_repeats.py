"""Answers that are repeated: to requests that are alike, for a second, and with everything a fresh one has."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from docxy.gate.addresses import Networks, Perimeter
from docxy.gate.interfaces import IGate
from docxy.gate.open import OpenGate
from docxy.metrics import Answered
from docxy.web.channel import Request
from docxy.web.repeats import LONGEST, MAX_ANSWER, MAX_HEAD, MAX_KEPT, UNREAD, Repeats, alike
from docxy.web.respond import reply
from docxy.web.site import IDLE, RegistrySite

WHAT = Answered("docker.io", "ping", 200, "")
HEAD = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


class RepeatsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.25)
        self.repeats = Repeats(self.clock.seconds)

    def keep(self, head: bytes, answer: bytes, holds: float) -> None:
        self.repeats.keep(head, answer, "line", WHAT, 7, holds)

    def test_a_second(self) -> None:
        """An answer is there for a second, or less if it holds for less; whatever it is said to hold for."""
        for holds, there in ((5.0, LONGEST), (LONGEST, LONGEST), (0.3, 0.3)):
            self.keep(HEAD, b"answer", holds)
            self.clock.advance(there - 0.01)
            repeat = self.repeats.get(HEAD)
            assert repeat is not None
            self.assertEqual((repeat.answer, repeat.line, repeat.what, repeat.sent), (b"answer", "line", WHAT, 7))
            self.clock.advance(0.02)
            self.assertIsNone(self.repeats.get(HEAD))

    def test_same_bytes(self) -> None:
        """Only to exactly the same bytes."""
        self.keep(HEAD, b"answer", 1)
        for other in (HEAD[:-1], HEAD + b"x", HEAD.lower(), b""):
            self.assertIsNone(self.repeats.get(other))

    def test_alike(self) -> None:
        """Heads are alike when they differ in what no answer depends on, and in nothing else."""
        for name in UNREAD:
            for line in (f"{name}: x/1.0 (y)\r\n", f"{name.lower()}:\r\n"):
                for head in (f"GET /a HTTP/1.1\r\n{line}Host: x\r\n\r\n", f"GET /a HTTP/1.1\r\nHost: x\r\n{line}\r\n"):
                    self.assertEqual(alike(head.encode()), HEAD)
        for line in (
            "Accept: x",
            "Range: bytes=0-1",
            "X-User-Agent: x",
            "User-Agent: x\r\n y",
            "User-Agent: \xff",
            "User-Agent",
        ):
            head = f"GET /a HTTP/1.1\r\n{line}\r\nHost: x\r\n\r\n".encode("latin-1")
            self.assertEqual(alike(head), head)

    def test_bounded(self) -> None:
        """Large heads and answers are not kept; no more than the budget is, and nothing of earlier seconds."""
        self.keep(bytes(MAX_HEAD + 1), b"a", 1)
        self.keep(HEAD, bytes(MAX_ANSWER + 1), 1)
        self.assertIsNone(self.repeats.get(HEAD))
        for n in range(3 * MAX_KEPT // MAX_ANSWER):
            self.keep(b"%d" % n, bytes(MAX_ANSWER), 1)
            kept = sum(len(repeat.answer) for repeat in self.repeats._kept.values())
            self.assertLessEqual(kept, MAX_KEPT)
        self.assertIsNotNone(self.repeats.get(b"%d" % n))
        self.clock.advance(2)
        self.keep(HEAD, b"answer", 1)
        self.assertEqual(list(self.repeats._kept), [HEAD])


class Leaf(Resource):
    """Answers with how often it was asked; `/later` when the test says so."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.asked = 0
        self.holds = 1.0
        self.waiting: list[Request] = []

    def render(self, request: Any) -> int:
        self.asked += 1
        request.repeat_for = self.holds
        if request.path == b"/later":
            self.waiting.append(request)
        else:
            self.answer(request)
        return NOT_DONE_YET

    def answer(self, request: Request) -> None:
        reply(request, 200, [("Content-Type", "text/plain")], b"%d" % self.asked)


class Lines:
    """Keeps the access log's lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    def close(self) -> None:
        return


class ChannelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.start(OpenGate())

    def start(self, gate: IGate) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(1000)
        self.leaf = Leaf()
        self.lines = Lines()
        self.site: Any = RegistrySite(self.leaf, gate, self.lines, self.clock.seconds)
        self.site.reactor = self.clock

    def connect(self, host: str = "192.0.2.1") -> tuple[Any, StringTransport]:
        channel = self.site.buildProtocol(None)
        transport = StringTransport(peerAddress=IPv4Address("TCP", host, 1))
        channel.makeConnection(transport)
        return channel, transport

    def ask(self, channel: Any, transport: StringTransport, sent: bytes = HEAD) -> bytes:
        transport.clear()
        channel.dataReceived(sent)
        return bytes(transport.value())

    def test_repeated(self) -> None:
        """The same bytes get the same answer from whatever connection, and nobody is asked for it."""
        first, second = self.connect(), self.connect("192.0.2.2")
        answer = self.ask(*first)
        self.assertTrue(answer.endswith(b"\r\n\r\n1"), answer)
        self.assertIn(b"\r\nDate: ", answer)
        for connection in (first, second, first, second):
            self.assertEqual(self.ask(*connection), answer)
        self.assertEqual(self.leaf.asked, 1)

    def test_alike(self) -> None:
        """So does who differs in what is not read; what comes in two pieces, or with more behind it, is looked at."""
        answer = self.ask(*self.connect(), HEAD[:-2] + b"User-Agent: a\r\n\r\n")
        self.assertEqual(self.ask(*self.connect(), HEAD[:-2] + b"User-Agent: b\r\n\r\n"), answer)
        self.assertEqual(self.leaf.asked, 1)
        channel, _ = self.connect()
        channel.dataReceived(HEAD[:-2] + b"User-Agent: c\r\n")
        channel.dataReceived(b"\r\n")
        self.assertEqual(self.leaf.asked, 2)
        self.ask(*self.connect(), HEAD + b"User-Agent: c\r\n")
        self.assertEqual(self.leaf.asked, 3)

    def test_logged(self) -> None:
        """Each is a line of the log, with the address of the client that asked."""
        first, second = self.connect(), self.connect("192.0.2.2")
        for connection in (first, second, first):
            self.ask(*connection)
        line = '192.0.2.%d "GET /a" 200 1'
        self.assertEqual(self.lines.lines, [line % 1, line % 2, line % 1])

    def test_over(self) -> None:
        """A second later the question is asked anew."""
        connection = self.connect()
        self.ask(*connection)
        self.clock.advance(1.01)
        self.assertTrue(self.ask(*connection).endswith(b"\r\n\r\n2"))

    def test_other_bytes(self) -> None:
        """Other bytes are another question, be it a header that means nothing."""
        connection = self.connect()
        self.ask(*connection)
        for n, other in enumerate(
            (
                HEAD.replace(b"x", b"y"),
                HEAD.replace(b"GET", b"HEAD"),
                HEAD.replace(b"/a", b"/a?b"),
                HEAD.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n"),
            ),
            2,
        ):
            self.ask(*connection, other)
            self.assertEqual(self.leaf.asked, n)

    def test_not_to_be_repeated(self) -> None:
        """An answer that is not said to hold is given once."""
        self.leaf.holds = 0.0
        connection = self.connect()
        for n in (1, 2, 3):
            self.assertTrue(self.ask(*connection).endswith(b"\r\n\r\n%d" % n))

    def test_where_it_matters_who_asks(self) -> None:
        """Nothing is repeated where addresses are allowed, denied, or told by proxies."""
        listed = Networks.of(["198.51.100.0/24"])
        for name in ("allow", "deny", "trusted_proxies"):
            self.start(OpenGate(evolve(Perimeter(), **{name: listed})))
            connection = self.connect()
            for _ in range(3):
                self.ask(*connection)
            self.assertEqual(self.leaf.asked, 3, name)

    def test_last_request_of_a_connection(self) -> None:
        """An answer with which the connection ends is not one for others."""
        for sent in (HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), HEAD.replace(b"1.1", b"1.0")):
            before = self.leaf.asked
            for _ in range(2):
                connection = self.connect()
                self.ask(*connection, sent)
                self.assertTrue(connection[1].disconnecting)
            self.assertEqual(self.leaf.asked, before + 2)

    def test_in_pieces(self) -> None:
        """A head that comes in pieces, or with something behind it, is read the ordinary way, and answered right."""
        self.ask(*self.connect())
        for pieces in ((HEAD[:7], HEAD[7:]), (HEAD[:-1], HEAD[-1:]), (HEAD + HEAD,), (HEAD + HEAD[:5], HEAD[5:])):
            before, asked = self.leaf.asked, b"".join(pieces).count(HEAD)
            for times in (1, 2):
                channel, transport = self.connect()
                for piece in pieces:
                    channel.dataReceived(piece)
                self.assertEqual(self.leaf.asked, before + times * asked, pieces)
                self.assertEqual(transport.value().count(b"HTTP/1.1 200 OK"), asked)

    def test_bodies(self) -> None:
        """A head that is followed by a body is never the whole of a request."""
        post = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
        for pieces in ((post, b"abc"), (post + b"abc",), (post + b"ab", b"c")):
            before = self.leaf.asked
            channel, transport = self.connect()
            for _ in range(2):
                for piece in pieces:
                    channel.dataReceived(piece)
            self.assertEqual(self.leaf.asked, before + 2)
            self.assertEqual(transport.value().count(b"HTTP/1.1 200 OK"), 2)

    def test_while_one_is_answered(self) -> None:
        """What comes while another answer is under way waits for its turn."""
        self.ask(*self.connect())
        channel, transport = self.connect()
        channel.dataReceived(HEAD.replace(b"/a", b"/later"))
        channel.dataReceived(HEAD)
        self.assertEqual(transport.value(), b"")
        (request,) = self.leaf.waiting
        self.leaf.answer(request)
        self.assertEqual(transport.value().count(b"HTTP/1.1 200 OK"), 2)
        self.assertTrue(self.ask(channel, transport).startswith(b"HTTP/1.1 200 OK"))

    def test_not_idle(self) -> None:
        """A connection whose requests are all repeats is not taken for an idle one."""
        channel, transport = self.connect()
        channel.callLater = self.clock.callLater
        channel.setTimeout(IDLE)
        for _ in range(3):
            self.ask(*self.connect())
            self.ask(channel, transport)
            self.clock.advance(IDLE - 1)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(2)
        self.assertTrue(transport.disconnecting)

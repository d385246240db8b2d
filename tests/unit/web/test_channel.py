"""The connection itself, over a transport in memory: what is a request, what is none, and what becomes of each."""

from __future__ import annotations

import random
import re
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from docxy.web.channel import LINGER, MAX_BODY, MAX_FIELDS, MAX_HEAD, MAX_URI
from docxy.web.request import Request
from tests.harness.built import open_site

HEAD = b"GET /a HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class Recorder(Resource):
    """Answers everything with 200, and knows what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.asked: list[tuple[bytes, bytes, bytes | None]] = []

    def render(self, request: Request) -> int:
        body = None if request.content is None else request.content.read()
        self.asked.append((request.method, request.uri, body))
        request.answer(200, (), b"ok")
        return NOT_DONE_YET


class Slow(Resource):
    """Answers when the test says so."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.requests: list[Request] = []

    def render(self, request: Request) -> int:
        self.requests.append(request)
        return NOT_DONE_YET


class Case(SynchronousTestCase):
    def connect(self, root: Resource) -> tuple[Any, StringTransport]:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        site: Any = open_site(root)
        site.reactor = self.clock
        channel: Any = site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        return channel, transport

    def send(self, data: bytes) -> tuple[Recorder, bytes, bool]:
        """What a new connection's requests were, what was answered, and whether it is closed."""
        root = Recorder()
        channel, transport = self.connect(root)
        channel.dataReceived(data)
        return root, transport.value(), transport.disconnecting or transport.disconnected

    def statuses(self, answers: bytes) -> list[int]:
        return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]

    def refused(self, data: bytes, status: int = 400) -> None:
        """It is answered with this status alone, in JSON, and the connection ends."""
        root, answers, closed = self.send(data + SMUGGLED)
        self.assertEqual((root.asked, self.statuses(answers), closed), ([], [status], True), data[:200])
        self.assertIn(b"Content-Type: application/json\r\n", answers)
        self.assertIn(b"Connection: close\r\n", answers)


class DoubtTests(Case):
    def test_lengths(self) -> None:
        """Two lengths, a length beside an encoding, or one that is no number: no one's request begins in doubt."""
        for lines in (
            b"Content-Length: 1\r\nContent-Length: 1\r\n",
            b"Content-Length: 1\r\nContent-Length: 2\r\n",
            b"Content-Length: 1, 1\r\n",
            b"Content-Length: +1\r\n",
            b"Content-Length: 0x1\r\n",
            b"Content-Length:\r\n",
            b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            b"Transfer-Encoding : chunked\r\n",
        ):
            self.refused(HEAD + lines + b"\r\n")

    def test_encodings(self) -> None:
        """No encoding but `chunked` is read: who does not know where a body ends does not know what comes behind it."""
        for lines in (
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding: chunked;q=1\r\n",
            b"Transfer-Encoding: identity\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Transfer-Encoding: chunked, chunked\r\n",
            b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            b"Transfer-Encoding:\r\n",
        ):
            for method in (b"GET", b"POST"):
                self.refused(method + HEAD[3:] + lines + b"\r\n")

    def test_lines(self) -> None:
        """Bare CR and LF, folded lines, NUL and control bytes, and names that are none."""
        for lines in (
            b"A: b\n",
            b"A: b\rc\r\n",
            b"A: b\r\n c\r\n",
            b"A: \0\r\n",
            b"A: \x1b[2J\r\n",
            b"A: \x7f\r\n",
            b"A b: c\r\n",
            b": c\r\n",
            b"no colon\r\n",
        ):
            self.refused(HEAD + lines + b"\r\n")

    def test_request_lines(self) -> None:
        """What is no request line, and what is none of HTTP/1."""
        for line in (b"GET /a b HTTP/1.1", b"GET /\x01 HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET x HTTP/1.1", b"GET /",
                     b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/1.2", b"GET nonsense"):  # fmt: skip
            self.refused(line + b"\r\nHost: x\r\n\r\n")
        self.refused(b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 405)

    def test_host(self) -> None:
        """HTTP/1.1 has one Host, HTTP/1.0 one or none."""
        self.refused(b"GET / HTTP/1.1\r\n\r\n")
        self.refused(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
        self.assertEqual(self.statuses(self.send(b"GET / HTTP/1.0\r\n\r\n")[1]), [200])

    def test_too_large(self) -> None:
        """431 for headers too many or too long, in one piece or in drops; 414 for a URI."""
        self.refused(HEAD + b"A: b\r\n" * MAX_FIELDS + b"\r\n", 431)
        self.refused(HEAD + b"A: " + b"b" * MAX_HEAD + b"\r\n\r\n", 431)
        self.refused(b"GET /" + b"a" * MAX_URI + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414)
        channel, transport = self.connect(Recorder())
        channel.dataReceived(HEAD + b"A: ")
        for _ in range(MAX_HEAD // 100 + 1):
            channel.dataReceived(b"b" * 100)
        self.assertEqual((self.statuses(transport.value()), transport.disconnecting), ([431], True))

    def test_bad_behind_good(self) -> None:
        """What was whole is answered before what comes behind it is refused."""
        root, answers, closed = self.send(HEAD + b"\r\n" + b"GET nonsense\r\n\r\n" + SMUGGLED)
        self.assertEqual((len(root.asked), self.statuses(answers), closed), (1, [200, 400], True))


class BodyTests(Case):
    def test_unread(self) -> None:
        """A body that is large, or does not say its length, is not waited for: the answer ends the connection."""
        for lines in (b"Content-Length: %d\r\n" % (MAX_BODY + 1), b"Transfer-Encoding: chunked\r\n"):
            for method in (b"POST", b"PUT", b"GET"):
                root, answers, closed = self.send(method + HEAD[3:] + lines + b"\r\n")
                self.assertEqual((len(root.asked), self.statuses(answers), closed), (1, [200], True))
                self.assertIn(b"Connection: close\r\n", answers)

    def test_unread_is_thrown_away(self) -> None:
        """What still comes of it is no request, and the connection lasts a few seconds more."""
        root = Recorder()
        channel, transport = self.connect(root)
        channel.dataReceived(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n")
        for _ in range(100):
            channel.dataReceived(SMUGGLED)
        self.assertEqual((len(root.asked), self.statuses(transport.value())), (1, [200]))
        self.clock.advance(LINGER + 1)
        self.assertTrue(transport.disconnected)

    def test_small(self) -> None:
        """A small one that nobody wants is read and forgotten; the connection goes on behind it."""
        root, answers, _ = self.send(b"POST" + HEAD[3:] + b"Content-Length: 3\r\n\r\nabc" + HEAD + b"\r\n")
        self.assertEqual(root.asked, [(b"POST", b"/a", None), (b"GET", b"/a", None)])
        self.assertEqual(self.statuses(answers), [200, 200])

    def test_form(self) -> None:
        """A token request's form is kept, for a client that waits for a word first too."""
        root = Recorder()
        channel, transport = self.connect(root)
        channel.dataReceived(
            b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        channel.dataReceived(b"a")
        channel.dataReceived(b"=b")
        self.assertEqual(root.asked, [(b"POST", b"/auth/token", b"a=b")])

    def test_no_continue(self) -> None:
        """A client that asks whether to send a body that nobody wants is answered, and not told to go on."""
        _, answers, _ = self.send(b"PUT" + HEAD[3:] + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        self.assertEqual(self.statuses(answers), [200])


class ConnectionTests(Case):
    def test_versions(self) -> None:
        """HTTP/1.1 goes on unless a client asks to close, HTTP/1.0 ends unless it asks to go on."""
        for head, goes_on in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n", True),
            (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", False),
            (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n", False),
            (b"GET / HTTP/1.0\r\n", False),
            (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
        ):
            _, answers, closed = self.send(head + b"\r\n" + head + b"\r\n")
            self.assertEqual((len(self.statuses(answers)), closed), (2, False) if goes_on else (1, True), head)
            self.assertEqual(b"Connection: close" in answers, not goes_on)

    def test_upgrade(self) -> None:
        """An upgrade is not taken: the request is answered as it is, and is the last one."""
        for lines in (b"", b"Content-Length: %d\r\n" % len(SMUGGLED)):
            upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
            root, answers, closed = self.send(HEAD + upgrade + lines + b"\r\n" + SMUGGLED)
            self.assertEqual((len(root.asked), self.statuses(answers), closed), (1, [200], True))

    def test_absolute(self) -> None:
        """Of an absolute URI the path is what is asked for, its host goes before Host."""
        for uri, path in ((b"http://y/v2/?a=b", b"/v2/?a=b"), (b"HTTP://y:1", b"/"), (b"http://y?a", b"/?a")):
            root, answers, _ = self.send(b"GET " + uri + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual((root.asked, self.statuses(answers)), ([(b"GET", path, None)], [200]))

    def test_one_at_a_time(self) -> None:
        """While one request is answered the next waits, and what is behind it is not read."""
        root = Slow()
        channel, transport = self.connect(root)
        channel.dataReceived((HEAD + b"\r\n") * 3)
        self.assertEqual((len(root.requests), transport.producerState), (1, "paused"))
        for n in range(3):
            root.requests[n].answer(200, (), b"")
        self.assertEqual((len(root.requests), transport.producerState), (3, "producing"))

    def test_client_gone(self) -> None:
        """A request whose client goes away is told so, and those behind it are not begun."""
        root = Slow()
        channel, _ = self.connect(root)
        channel.dataReceived((HEAD + b"\r\n") * 2)
        gone = root.requests[0].notifyFinish()
        channel.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(gone, ConnectionDone)
        self.assertEqual((len(root.requests), self.clock.getDelayedCalls()), (1, []))

    def test_not_taken(self) -> None:
        """No further request is begun while the client takes nothing of what was answered."""
        root = Recorder()
        channel, transport = self.connect(root)
        channel.pauseProducing()
        channel.dataReceived(HEAD + b"\r\n")
        self.assertEqual((root.asked, transport.producerState), ([], "paused"))
        channel.resumeProducing()
        self.assertEqual((len(root.asked), transport.producerState), (1, "producing"))

    def test_headers_without_control_bytes(self) -> None:
        """Nothing in a header's value can end it, or command a terminal, wherever it came from."""

        class Upstreams(Resource):
            isLeaf = True

            def render(self, request: Request) -> int:
                request.answer(200, [("X", "a\r\nSet-Cookie: b\x1b[2J\0")], b"")
                return NOT_DONE_YET

        channel, transport = self.connect(Upstreams())
        channel.dataReceived(HEAD + b"\r\n")
        self.assertIn(b"\r\nX: aSet-Cookie: b[2J\r\n", transport.value())


class FuzzTests(Case):
    ROUNDS = 2000

    def mutated(self, dice: random.Random) -> bytes:
        """One to three requests, with something done to their bytes."""
        parts = [
            HEAD + b"\r\n",
            b"HEAD /b?c=d HTTP/1.1\r\nHost: y\r\nAccept: */*\r\n\r\n",
            b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\na=b&c=d",
            b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"GET http://h/p HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        ]
        data = bytearray(b"".join(dice.choices(parts, k=dice.randint(1, 3))))
        for _ in range(dice.randint(0, 4)):
            at = dice.randrange(len(data))
            what = dice.randrange(5)
            if what == 0:
                data[at] = dice.randrange(256)
            elif what == 1:
                del data[at : at + dice.randint(1, 8)]
            elif what == 2:
                data[at:at] = dice.choice((b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\t", b"\xff", b"Host: z\r\n",
                                           b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"))  # fmt: skip
            elif what == 3:
                data[at:at] = data[at : at + 40]
            else:
                data[at:at] = bytes([dice.randrange(256)]) * dice.choice((3, 300, 40_000))
            if not data:
                break
        return bytes(data)

    def check(self, answers: bytes, methods: list[bytes], seed: int) -> int:
        """How many answers there are: each is whole and well-formed, and nothing is between them."""
        count = 0
        if answers.startswith(b"HTTP/1.0 400 Bad Request\r\n"):
            return 0  # to a TLS hello
        while answers:
            if answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
                answers = answers[25:]
                continue
            head, found, rest = answers.partition(b"\r\n\r\n")
            self.assertTrue(found and re.match(rb"HTTP/1\.1 (200|400|405|414|431) [A-Z]", head), (seed, head[:80]))
            lengths = re.findall(rb"\r\nContent-Length: (\d+)", head)
            self.assertEqual(len(lengths), 1, (seed, head))
            length = 0 if count < len(methods) and methods[count] == b"HEAD" else int(lengths[0])
            self.assertGreaterEqual(len(rest), length, seed)
            answers = rest[length:]
            count += 1
        return count

    def test_mutated(self) -> None:
        """Whatever comes, in whatever pieces: one well-formed answer for each request, or an end, and no traceback."""
        for seed in range(self.ROUNDS):
            dice = random.Random(seed)
            data = self.mutated(dice)
            channel, transport = self.connect(Recorder())
            methods: list[bytes] = []
            self.patch(channel.site, "log", lambda request, methods=methods: methods.append(request.method))
            pieces = [*sorted(dice.sample(range(len(data) + 1), min(len(data), dice.randrange(4)))), len(data)]
            before = 0
            for at in pieces:
                channel.dataReceived(data[before:at])
                before = at
            closed = transport.disconnecting or transport.disconnected
            self.assertEqual(self.check(transport.value(), methods, seed), len(methods), seed)
            # What is no request ends the connection.
            self.assertTrue(closed or b"-" not in methods, seed)
            self.assertNotIn(b"-", methods[:-1], seed)
            channel.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.clock.getDelayedCalls(), [], seed)
        self.assertEqual(self.flushLoggedErrors(), [])

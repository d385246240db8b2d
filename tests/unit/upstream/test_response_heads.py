"""Heads of responses, on real sockets: long ones pass, endless ones end."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import repeat
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.http_headers import Headers
from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.observe.metrics import NoMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import NoTracer
from docxy.settings.model import Timeouts, Upstream
from docxy.siblings import LocalSlots
from docxy.upstream.agent import LARGE_READS, make_agent
from docxy.upstream.fetch import Fetcher
from docxy.upstream.response import Response
from docxy.upstream.response_heads import MAX_HEAD, MAX_LINE

reactor: Any = _reactor
END = b"Content-Length: 2\r\n\r\nok"


@implementer(IPushProducer)
class Talker(Protocol):
    """Says all of it, as fast as it is taken, and how much that was."""

    said = 0

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._paused = False
        self._over = False

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        transport: Any = self.transport
        while not self._paused and not self._over:
            piece = next(self._pieces, None)
            if piece is None:
                self._over = True
                transport.unregisterProducer()
                return
            Talker.said += len(piece)
            transport.write(piece)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._over = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True


class Heads(TestCase):
    async def asked(self, *pieces: Any) -> Response:
        """The answer of a server that says these, the last of which may be without an end."""
        Talker.said = 0

        def script() -> Iterator[bytes]:
            for piece in pieces:
                if isinstance(piece, bytes):
                    yield piece
                else:
                    yield from piece

        factory: Factory[Any] = Factory.forProtocol(lambda: Talker(script()))
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}"
        agent, pool = make_agent(
            reactor, Timeouts(), Upstream("x", url, private=True), LocalSlots, LARGE_READS, reactor.seconds
        )
        self.addCleanup(pool.closeCachedConnections)
        fetcher = Fetcher(agent, reactor, Timeouts(), "x", NoMeter(), Notes(time.time), NoTracer(), ())
        return await fetcher.request("GET", url, Headers())

    async def ends(self, *pieces: Any) -> None:
        """That docxy gives it up, having taken little."""
        with self.assertRaises(UpstreamError):
            await self.asked(*pieces)
        self.assertLess(Talker.said, 32 << 20)

    async def test_endless(self) -> None:
        """Headers, lines, continuations and preliminary answers without an end are given up."""
        start = b"HTTP/1.1 200 OK\r\n"
        await self.ends(start, repeat(b"X-Filler: " + b"a" * 1000 + b"\r\n"))
        await self.ends(start, repeat(b"a:\n" * 1000))
        await self.ends(start + b"X: ", repeat(b"a" * 4096))
        await self.ends(start + b"X: a\r\n", repeat(b" more\r\n" * 100))
        await self.ends(repeat(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"))
        await self.ends(repeat(b"HTTP/1.1 200 " + b"OK" * 1000))

    async def test_told(self) -> None:
        """The error says what was wrong."""
        with self.assertRaises(UpstreamError) as raised:
            await self.asked(b"HTTP/1.1 200 OK\r\n", repeat(b"X-Filler: " + b"a" * 1000 + b"\r\n"))
        self.assertIn(f"more than {MAX_HEAD} bytes of headers", str(raised.exception))

    async def test_long(self) -> None:
        """A head just within the bounds passes, and so does a line that Twisted's own parser would not take."""
        line = b"X-Long: " + b"a" * (MAX_LINE - 100) + b"\r\n"
        response = await self.asked(b"HTTP/1.1 200 OK\r\n" + line * 3 + END)
        self.assertEqual(len(response.header("X-Long") or ""), MAX_LINE - 100)
        self.assertEqual(await response.read(10), b"ok")

    async def test_no_phrase(self) -> None:
        """A status line may lack its phrase, or have any."""
        for line, status in ((b"HTTP/1.1 200", 200), (b"HTTP/1.1 200 ", 200), (b"HTTP/1.1 429 Unknown Status", 429)):
            response = await self.asked(line + b"\r\n" + END)
            self.assertEqual((response.status, await response.read(10)), (status, b"ok"))

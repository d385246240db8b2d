"""How long clients may take nothing: on a clock of the test, and what the kernel says of a real socket."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from docxy.web.stall_timer import StallTimer, socket_of, unsent

reactor: Any = _reactor


class StallTimerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = 100
        self.dropped = 0
        self.timer = StallTimer(lambda: self.queue, self.clock, 60.0, self.drop)

    def drop(self) -> None:
        self.dropped += 1

    def test_takes_nothing(self) -> None:
        """Who takes nothing is dropped when the time is over, once."""
        self.timer.start()
        self.clock.advance(59.9)
        self.assertEqual(self.dropped, 0)
        self.clock.advance(0.2)
        self.assertEqual(self.dropped, 1)
        self.clock.advance(200)
        self.assertEqual((self.dropped, self.clock.getDelayedCalls()), (1, []))

    def test_takes_a_little(self) -> None:
        """Who takes a byte a minute out of a full queue is not dropped, until it takes no more."""
        self.timer.start()
        for _ in range(100):
            self.queue -= 1
            self.clock.advance(60)
        self.assertEqual(self.dropped, 0)
        self.clock.advance(60)
        self.assertEqual(self.dropped, 1)

    def test_moved(self) -> None:
        """Nor who makes room for as much as it takes: the queue is as full as before."""
        self.timer.start()
        for _ in range(3):
            self.timer.moved()
            self.clock.advance(60)
        self.assertEqual(self.dropped, 0)
        self.clock.advance(60)
        self.assertEqual(self.dropped, 1)

    def test_stopped(self) -> None:
        """When nothing waits any more nobody is dropped; each start begins anew."""
        self.timer.start()
        self.clock.advance(50)
        self.timer.stop()
        self.timer.stop()
        self.clock.advance(50)
        self.timer.start()
        self.timer.start()
        self.clock.advance(50)
        self.assertEqual(self.dropped, 0)
        self.clock.advance(10)
        self.assertEqual(self.dropped, 1)


class Open(Resource):
    """Leaves a request open."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.asked: Deferred[Request] = Deferred()

    def render(self, request: Request) -> int:
        self.asked.callback(request)
        return NOT_DONE_YET


class QueueTests(TestCase):
    async def test_what_waits_in_the_kernel(self) -> None:
        """Bytes that a client does not take are counted, fewer when it takes some; none when the request is over."""
        root = Open()
        site = Site(root, timeout=None)
        site.noisy = False
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        # A socket without a transport: it takes what the test reads, when the test reads it.
        client = socket.create_connection(("127.0.0.1", port.getHost().port), 60)
        self.addCleanup(client.close)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        request = await root.asked
        self.assertEqual(unsent(request), 0)
        served: Any = request.transport
        while not unsent(request):
            with contextlib.suppress(BlockingIOError):
                while True:
                    served.socket.send(bytes(1 << 20))
        before = unsent(request)
        while unsent(request) >= before:
            self.assertTrue(client.recv(1 << 16))
        gone = request.notifyFinish()
        client.close()
        await self.assertFailure(gone, Exception)
        self.assertIsNone(socket_of(request))
        self.assertEqual(unsent(request), 0)

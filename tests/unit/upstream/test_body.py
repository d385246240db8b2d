"""A response's body at its reader's pace, on a clock that stands still."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import Response
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from docxy.bodies import EndUntold
from docxy.errors import UpstreamError, UpstreamTimeout
from docxy.upstream.body import HIGH_WATER, ResponseBody, read_whole
from tests.unit.upstream.scripted import Transport

DONE = Failure(ResponseDone())
BROKEN = Failure(ResponseFailed([Failure(ConnectionLost())]))


class BodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.body = self.make()

    def make(self, length: int | None = None) -> ResponseBody:
        body = ResponseBody(self.clock, 60.0, "http://them:1", length)
        body.makeConnection(self.transport)
        return body

    def read(self) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self.body.read())

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waits(self) -> None:
        """A reader waits for bytes, gets all there are at once, and `b""` at an end that HTTP says is one."""
        reading = self.read()
        self.assertNoResult(reading)
        self.body.dataReceived(b"ab")
        self.assertEqual(self.successResultOf(reading), b"ab")
        self.body.dataReceived(b"c")
        self.body.dataReceived(b"d")
        self.assertEqual(self.successResultOf(self.read()), b"cd")
        reading = self.read()
        self.body.connectionLost(DONE)
        self.assertEqual(self.successResultOf(reading), b"")
        self.assertEqual(self.successResultOf(self.read()), b"")

    def test_what_came_before_the_end(self) -> None:
        """Bytes that came before the end, whole or broken, are read first."""
        self.body.dataReceived(b"ab")
        self.body.connectionLost(BROKEN)
        self.assertEqual(self.successResultOf(self.read()), b"ab")
        for _ in range(2):
            error = self.failureResultOf(self.read(), UpstreamError).value
            self.assertEqual(str(error), "http://them:1 broke off after 2 bytes")

    def test_untold_end(self) -> None:
        """An end that only the connection's tells is no end, but said to be such."""
        reading = self.read()
        self.body.connectionLost(Failure(PotentialDataLoss()))
        self.failureResultOf(reading, EndUntold)

    def test_bounded_from_the_start(self) -> None:
        """Twisted resumes a connection when it has handed over what came with the headers: it is paused again."""
        transport = StringTransport()
        response = Response((b"HTTP", 1, 1), 200, b"OK", Headers(), transport)
        response._bodyDataReceived(b"x" * HIGH_WATER)
        body = ResponseBody(self.clock, 60.0, "http://them:1")
        response.deliverBody(body)
        response._bodyDataReceived(b"y")
        self.assertEqual(transport.producerState, "paused")
        self.assertEqual(len(self.successResultOf(Deferred.fromCoroutine(body.read()))), HIGH_WATER + 1)
        reading = Deferred.fromCoroutine(body.read())
        self.assertEqual(transport.producerState, "producing")
        response._bodyDataFinished()
        self.assertEqual(self.successResultOf(reading), b"")

    def test_bounded(self) -> None:
        """With enough waiting the transport is paused, until the reader has taken all and wants more."""
        self.body.dataReceived(b"x" * (HIGH_WATER - 1))
        self.assertFalse(self.transport.paused)
        self.body.dataReceived(b"x")
        self.assertTrue(self.transport.paused)
        self.assertEqual(len(self.successResultOf(self.read())), HIGH_WATER)
        self.assertTrue(self.transport.paused)
        reading = self.read()
        self.assertFalse(self.transport.paused)
        self.body.dataReceived(b"y")
        self.assertEqual(self.successResultOf(reading), b"y")

    def test_silence(self) -> None:
        """An upstream that sends nothing while a reader waits is given up, and stays so."""
        self.body.dataReceived(b"ab")
        self.successResultOf(self.read())
        reading = self.read()
        self.clock.advance(59.9)
        self.assertNoResult(reading)
        self.clock.advance(0.1)
        error = self.failureResultOf(reading, UpstreamTimeout).value
        self.assertEqual(str(error), "http://them:1 sent nothing for 60 s after 2 bytes")
        self.assertEqual(self.transport.stopped, 1)
        self.body.connectionLost(BROKEN)
        self.failureResultOf(self.read(), UpstreamTimeout)

    def test_silence_counts_from_each_piece(self) -> None:
        """Each piece starts the time anew."""
        for _ in range(5):
            reading = self.read()
            self.clock.advance(50)
            self.body.dataReceived(b"x")
            self.successResultOf(reading)

    def test_slow_reader_is_no_silence(self) -> None:
        """A reader that takes its time is not the upstream's fault."""
        self.body.dataReceived(b"x" * HIGH_WATER)
        self.clock.advance(1000)
        self.successResultOf(self.read())
        self.assertEqual(self.transport.stopped, 0)

    def test_close(self) -> None:
        """Closed early, it stops the transport once, forgets what waited and reads as ended."""
        self.body.dataReceived(b"ab")
        self.body.close()
        self.body.close()
        self.assertEqual(self.transport.stopped, 1)
        self.body.dataReceived(b"cd")
        self.body.connectionLost(BROKEN)
        self.assertEqual(self.successResultOf(self.read()), b"")

    def test_close_after_the_end(self) -> None:
        """Closed after the end, or on its last byte, it leaves the connection to be used again."""
        self.body.connectionLost(DONE)
        self.body.close()
        self.body = self.make(length=2)
        self.body.dataReceived(b"ab")
        self.body.close()
        self.assertEqual(self.transport.stopped, 0)

    def test_close_before_it_is_connected(self) -> None:
        """Closed before the response is delivered, it stops it then."""
        body = ResponseBody(self.clock, 60.0, "them")
        body.close()
        body.makeConnection(self.transport)
        self.assertEqual(self.transport.stopped, 1)

    def test_cancel(self) -> None:
        """A reader that is cancelled closes the body, and leaves no timer."""
        reading = self.read()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertEqual(self.transport.stopped, 1)

    def whole(self, limit: int) -> Deferred[Any]:
        return Deferred.fromCoroutine(read_whole(self.body, limit, "them"))

    def test_read_whole(self) -> None:
        """The whole of a small body, exactly up to the limit."""
        reading = self.whole(4)
        for piece in (b"ab", b"cd"):
            self.body.dataReceived(piece)
        self.body.connectionLost(DONE)
        self.assertEqual(self.successResultOf(reading), b"abcd")

    def test_read_whole_too_much(self) -> None:
        """One byte more than the limit is an error at once, and the rest is not waited for."""
        reading = self.whole(4)
        self.body.dataReceived(b"abcde")
        error = self.failureResultOf(reading, UpstreamError).value
        self.assertIn("more than 4 bytes", str(error))
        self.assertEqual(self.transport.stopped, 1)

"""Bodies that are read whole into memory: how many at once, and for how long."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from docxy.errors import UpstreamTimeout
from docxy.observe.metrics import NoMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import NoTracer
from docxy.settings.model import Timeouts
from docxy.upstream.fetch import Fetcher
from docxy.upstream.response import WHOLE_WITHIN, Response
from docxy.upstream.whole_bodies import LARGE_AT_ONCE, SMALL, WholeBodies
from tests.unit.upstream.scripted import Answer, Asked, Scripted, ScriptedAgent

URL = "https://registry.test/v2/a/manifests/x"


class Slow(Scripted):
    """A response whose body comes when the test says so."""

    body_protocol: Any = None

    def deliverBody(self, protocol: IProtocol) -> None:
        protocol.makeConnection(self.transport)  # type: ignore[arg-type]  # all that is used of a transport
        self.body_protocol = protocol


class WholeBodiesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: list[Slow] = []
        notes = Notes(self.clock.seconds)
        agent = ScriptedAgent(self.answer)
        timeouts = Timeouts(silence=30.0)
        self.fetcher = Fetcher(agent, self.clock, timeouts, "docker.io", NoMeter(), notes, NoTracer(), ())
        self.bodies = WholeBodies()
        self.length: int | None = None
        self.reading: list[Deferred[bytes]] = []
        self.addCleanup(self.give_up)

    def give_up(self) -> None:
        """End what still waits, the last first: left alone, its end would be found by a later test."""
        for reading in reversed(self.reading):
            reading.addErrback(lambda reason: None).cancel()

    def answer(self, asked: Asked) -> Answer:
        answer = Slow()
        if self.length is not None:
            answer.headers.setRawHeaders(b"Content-Length", [b"%d" % self.length])
            answer.length = self.length
        else:
            answer.length = Scripted(stalls=True).length
        self.answers.append(answer)
        return answer

    def read(self) -> Deferred[bytes]:
        async def work() -> bytes:
            response: Response = await self.fetcher.request("GET", URL, Scripted().headers)
            return await self.bodies.read(response, 1000)

        reading = Deferred.fromCoroutine(work())
        self.reading.append(reading)
        return reading

    def end(self, answer: Slow) -> None:
        answer.body_protocol.dataReceived(b"there")
        answer.body_protocol.connectionLost(Failure(ResponseDone()))

    def read_now(self) -> int:
        return sum(answer.body_protocol is not None for answer in self.answers)

    def test_at_once(self) -> None:
        """Of bodies that may be large so many are read at the same time; the next begins when one has ended."""
        reading = [self.read() for _ in range(10)]
        self.assertEqual((len(self.answers), self.read_now()), (10, LARGE_AT_ONCE))
        self.end(self.answers[0])
        self.assertEqual(self.successResultOf(reading[0]), b"there")
        self.assertEqual(self.read_now(), LARGE_AT_ONCE + 1)
        reading[1].cancel()
        self.failureResultOf(reading[1])
        self.assertEqual(self.read_now(), LARGE_AT_ONCE + 2)

    def test_waiting_ends(self) -> None:
        """Who stops waiting for its turn leaves it to others, and gives its connection back."""
        reading = [self.read() for _ in range(LARGE_AT_ONCE + 2)]
        reading[-2].cancel()
        self.failureResultOf(reading[-2])
        self.assertEqual(self.answers[-2].transport.stopped, 1)
        self.end(self.answers[0])
        self.end(self.answers[-1])
        self.assertEqual(self.successResultOf(reading[-1]), b"there")

    def test_small(self) -> None:
        """A small one waits for nobody."""
        for _ in range(LARGE_AT_ONCE):
            self.read()
        self.length = SMALL
        reading = self.read()
        self.end(self.answers[-1])
        self.assertEqual(self.successResultOf(reading), b"there")

    def test_dripping(self) -> None:
        """An upstream that sends a byte now and then is given up in the end, and keeps nobody's turn."""
        reading = self.read()
        for _ in range(int(WHOLE_WITHIN / 20)):
            self.assertNoResult(reading)
            self.answers[0].body_protocol.dataReceived(b"x")
            self.clock.advance(20)
        error = self.failureResultOf(reading, UpstreamTimeout).value
        self.assertIn("https://registry.test:443 did not send all of its answer in 120 s", str(error))
        self.assertEqual((self.answers[0].transport.stopped, self.clock.getDelayedCalls()), (1, []))

"""Blobs over several connections: in order, as from one, and only where it is worth while.

The clock and the lines on which bytes come are the test's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.bodies import IBody
from docxy.errors import TooManyRequests, UpstreamError
from docxy.pull.blobs.ahead import Ahead, Demands, Part
from docxy.pull.blobs.extra import ExtraConnections
from docxy.pull.blobs.parallel import GAIN, LARGE, STEP, WORTH, Parallel, ParallelBody, Scaling
from docxy.ranges import Range, Span
from docxy.siblings import LocalSlots
from docxy.storage.interfaces import IScratch, NoSpace, StorageError
from docxy.storage.memory_blob import MemoryScratch
from docxy.upstream.blob_response import BlobResponse

MB = 1_000_000


class PaceTests(SynchronousTestCase):
    """A line of so many bytes a second for each connection, or for all of them."""

    def run_at(self, rate: Any, left: int, connections: int = 16) -> Scaling:
        """What it comes to when `rate(count)` bytes a second arrive, for ten seconds."""
        scaling, now, received = Scaling(), 0.0, 0
        scaling.delivers(now, received)
        while now < 10 and left > 0:
            now += 0.05
            got = int(rate(scaling.connections) * 0.05)
            received, left = received + got, left - got
            if scaling.connections < connections and scaling.wants(now, received, left):
                scaling.added(now, received)
                now += 0.15  # until it delivers
                scaling.delivers(now, received)
        return scaling

    def test_each_is_limited(self) -> None:
        """Where each connection is as fast as the first, they are added up to the number that is allowed."""
        self.assertEqual(self.run_at(lambda count: 20 * MB * count, 5000 * MB, 4).connections, 4)

    def test_all_are_limited(self) -> None:
        """Where the second brings nothing, there is no third."""
        scaling = self.run_at(lambda count: 20 * MB, 5000 * MB)
        self.assertEqual((scaling.connections, scaling.settled), (2, True))

    def test_until_it_is_full(self) -> None:
        """Where there is room for some, one too many is tried and no more."""
        scaling = self.run_at(lambda count: min(20 * MB * count, 60 * MB), 50_000 * MB)
        self.assertEqual((scaling.connections, scaling.settled), (4, True))

    def test_nearly_done(self) -> None:
        """What is done in a moment needs no further connection."""
        self.assertEqual(self.run_at(lambda count: 20 * MB, int(WORTH * 20 * MB)).connections, 1)
        self.assertEqual(self.run_at(lambda count: 0.001 * MB, 40 * MB).connections, 2)

    def test_not_at_once(self) -> None:
        """A rate is measured before anything follows from it, from when the newest connection delivers."""
        scaling = Scaling()
        scaling.delivers(0, 0)
        self.assertFalse(scaling.wants(STEP - 0.01, 10 * MB, 1000 * MB))
        self.assertTrue(scaling.wants(STEP, 10 * MB, 1000 * MB))
        scaling.added(STEP, 10 * MB)
        self.assertFalse(scaling.wants(100, 20 * MB, 1000 * MB))
        scaling.delivers(100, 20 * MB)
        scaling.delivers(101, 20 * MB)
        self.assertFalse(scaling.wants(100 + STEP - 0.01, 90 * MB, 1000 * MB))
        self.assertTrue(scaling.wants(100 + STEP, 90 * MB, 1000 * MB))

    def test_each(self) -> None:
        """The rate of one connection, whether the newest delivers yet or not."""
        scaling = Scaling()
        scaling.delivers(0, 0)
        self.assertAlmostEqual(scaling.each(2, 40 * MB) / MB, 20)
        scaling.added(2, 40 * MB)
        self.assertAlmostEqual(scaling.each(3, 60 * MB) / MB, 20)
        scaling.delivers(3, 60 * MB)
        self.assertAlmostEqual(scaling.each(4, 100 * MB) / MB, 20)
        self.assertGreater(GAIN, 0)


@implementer(IBody)
@define(eq=False)
class Line:
    """One response: bytes arrive when the test says so."""

    data: bytes
    source: str = "http://upstream"
    sent: int = 0
    closed: bool = False
    _pieces: list[bytes | Exception] = field(factory=list)
    _waiting: Deferred[None] | None = None

    def give(self, count: int) -> None:
        self._arrive(self.data[self.sent : self.sent + count])
        self.sent += count

    def fail(self, error: Exception) -> None:
        self._arrive(error)

    def _arrive(self, piece: bytes | Exception) -> None:
        self._pieces.append(piece)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def body(self) -> Line:
        return self

    async def read(self) -> bytes:
        while not self._pieces:
            if self.sent >= len(self.data):
                return b""
            self._waiting = Deferred()
            await self._waiting
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed = True


SIZE = 40 * 1024 * 1024
DATA = bytes(os.urandom(1024 * 1024)) * 40


class ParallelBodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.slots = LocalSlots(8)
        self.extra = ExtraConnections(4, self.slots, "hub")
        self.asked: list[Range] = []
        self.lines: list[Line] = []
        self.answers: Iterator[Any] = iter(())
        self.scratches: list[MemoryScratch] = []
        self.first = Line(DATA)
        self.ahead = Ahead(SIZE, self.ask, self.scratch, self.extra, Demands())
        self.body = ParallelBody(self.first, Span(0, SIZE, SIZE), self.ahead, self.extra, self.clock, True)
        self.received = b""
        self.error: Exception | None = None
        self.reading = Deferred.fromCoroutine(self.read())
        self.addCleanup(self.end)

    def end(self) -> None:
        self.reading.cancel()
        self.body.close()

    async def read(self) -> None:
        try:
            while data := await self.body.read():
                self.received += data
        except Exception as error:
            self.error = error

    async def ask(self, asked: Range) -> BlobResponse:
        self.asked.append(asked)
        answer = next(self.answers, None)
        if isinstance(answer, Exception):
            raise answer
        assert asked.first is not None and asked.last is not None
        span = answer or Span(asked.first, asked.last + 1, SIZE)
        line = Line(DATA[span.first : span.stop])
        self.lines.append(line)
        return BlobResponse(cast(Any, line), span)

    async def scratch(self) -> IScratch:
        self.scratches.append(MemoryScratch())
        return self.scratches[-1]

    def pass_step(self, *lines: Line) -> None:
        """A second at a megabyte a second of these connections."""
        for _ in range(10):
            for line in lines:
                line.give(MB // 10)
            self.clock.advance(0.1)

    def finish(self) -> None:
        """Everything that was asked for arrives."""
        while True:
            open_ones = [line for line in (self.first, *self.lines) if line.sent < len(line.data) and not line.closed]
            if not open_ones:
                return
            for line in open_ones:
                line.give(1 << 20)
            self.clock.advance(0.05)

    def widened(self) -> None:
        self.pass_step(self.first)
        self.first.give(1)

    def test_order(self) -> None:
        """Bytes come out in order: the first connection's, then those that were fetched ahead, whenever they came."""
        self.widened()
        self.assertEqual(len(self.asked), 1)
        part = self.lines[0]
        part.give(len(part.data))
        here = self.first.sent
        self.assertEqual(self.received, DATA[:here])
        self.finish()
        self.assertEqual(self.error, None)
        self.assertTrue(self.received == DATA)

    def test_each_byte_once(self) -> None:
        """Parts are next to each other; nothing is asked for twice, and the first connection ends where they begin."""
        self.widened()
        self.finish()
        assert self.asked[0].first is not None
        self.assertTrue(self.first.closed)
        self.assertLessEqual(self.first.sent, self.asked[0].first + (1 << 20))
        for one, other in zip(self.asked, self.asked[1:], strict=False):
            assert one.last is not None
            self.assertEqual(one.last + 1, other.first)
        self.assertEqual(self.asked[-1].last, SIZE - 1)
        self.assertEqual(sum(scratch._data != b"" for scratch in self.scratches), 0)

    def test_not_too_far_ahead(self) -> None:
        """While the first connection stands still, the others fetch a few parts and then wait."""
        self.widened()
        for _ in range(100):
            for line in self.lines:
                line.give(1 << 20)
            self.clock.advance(0.1)
        self.assertEqual(len(self.asked), 3)
        self.assertLess(len(self.received), SIZE // 4)

    def test_connection_comes_back(self) -> None:
        """The next part waits until the connection of the one before is back in the pool, which is this very turn."""
        self.widened()
        self.first.give(SIZE)
        for line in self.lines:
            line.give(SIZE)
        asked = len(self.asked)
        self.assertEqual(len(self.received), sum(len(line.data) for line in self.lines) + self.asked[0].first)
        self.clock.advance(0)
        self.assertGreater(len(self.asked), asked)

    def test_fast_line(self) -> None:
        """Where all is here in a moment, one connection fetches it."""
        self.clock.advance(0.1)
        self.finish()
        self.assertEqual((self.asked, self.received == DATA), ([], True))

    def test_part_fails(self) -> None:
        """Bytes before the failure come first; then the error, and nobody is asked for more."""
        self.widened()
        part, asked = self.lines[0], self.asked[0]
        part.give(1000)
        part.fail(UpstreamError("cut"))
        self.assertIsNone(self.error)
        self.first.give(SIZE)
        self.assertIsInstance(self.error, UpstreamError)
        assert asked.first is not None
        self.assertTrue(self.received == DATA[: asked.first + 1000])
        self.assertEqual(len(self.asked), 1)

    def test_part_is_refused(self) -> None:
        """A limit that the upstream sets for a part is told as such."""
        self.answers = iter([TooManyRequests("slow down")])
        self.widened()
        self.first.give(SIZE)
        self.assertIsInstance(self.error, TooManyRequests)

    def test_no_room(self) -> None:
        """Where nothing can be kept ahead, the error is one that the rest can be asked for after."""

        class Full(MemoryScratch):
            async def append(self, data: bytes) -> None:
                raise NoSpace("full")

        self.ahead._scratch = cast(Any, _always(Full()))
        self.widened()
        self.lines[0].give(1000)
        self.first.give(SIZE)
        self.assertIsInstance(self.error, UpstreamError)

    def test_unreadable(self) -> None:
        """The same where what was kept ahead cannot be read: the blob itself can still be stored."""

        class Unreadable(MemoryScratch):
            async def read(self, offset: int, length: int) -> bytes:
                raise StorageError("damaged")

        self.ahead._scratch = cast(Any, _always(Unreadable()))
        self.widened()
        self.lines[0].give(1000)
        self.first.give(SIZE)
        self.assertIsInstance(self.error, UpstreamError)

    def test_whole_instead_of_a_part(self) -> None:
        """An upstream that sends all of it for a part is not asked for parts again, of no blob."""
        self.answers = iter([Span(0, SIZE, SIZE)])
        self.widened()
        self.assertTrue(self.lines[0].closed)
        self.first.give(SIZE)
        self.assertIsInstance(self.error, UpstreamError)
        self.assertFalse(self.extra.may)

    def test_other_blob(self) -> None:
        """A part of something with another size is none of this."""
        self.answers = iter([Span(MB, 2 * MB, SIZE + 1)])
        self.widened()
        self.first.give(SIZE)
        self.assertIsInstance(self.error, UpstreamError)

    def test_closed(self) -> None:
        """Whoever wants no more ends all connections, and others may have them."""
        self.widened()
        self.body.close()
        self.body.close()
        self.assertEqual((self.first.closed, self.lines[0].closed), (True, True))
        self.assertEqual([self.extra.take().called for _ in range(9)], [True] * 8 + [False])

    def test_not_waited_for(self) -> None:
        """Whoever waits for a part may be cancelled; what comes then is told to nobody."""
        part = Part(0, 10, MemoryScratch())
        reading = Deferred.fromCoroutine(part.read(0))
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        part.tell()

    def test_shared(self) -> None:
        """All blobs of an upstream together get so many connections; one more begins when another gives it back."""
        for _ in range(8):
            self.extra.take()
        self.widened()
        self.pass_step(self.first)
        self.assertEqual(self.asked, [])
        self.extra.give_back()
        self.assertEqual(len(self.asked), 1)
        self.finish()
        self.assertTrue(self.received == DATA)

    def test_too_late(self) -> None:
        """What is to be had only when it is of no use any more goes to others, whether all is done or is closed."""
        for end in ("finish", "close"):
            self.setUp()
            taken = [self.extra.take() for _ in range(8)]
            self.widened()
            self.finish() if end == "finish" else self.body.close()
            for _ in taken:
                self.extra.give_back()
            self.assertEqual(self.asked, [])
            self.assertEqual([self.extra.take().called for _ in range(9)], [True] * 8 + [False])

    def test_not_calm(self) -> None:
        """An upstream that limits us, or is about to, is left with one."""
        self.extra._calm = lambda: False
        self.widened()
        self.finish()
        self.assertEqual(self.asked, [])

    def test_not_widened(self) -> None:
        """Small blobs, and what broke off before, are left with one connection."""
        for span, grows, widened in (
            (Span(0, LARGE, LARGE), True, True),
            (Span(0, LARGE - 1, LARGE - 1), True, False),
            (Span(5, LARGE, LARGE), True, False),
            (Span(0, LARGE, LARGE), False, False),
        ):
            body = Parallel(self.extra, self.scratch, self.clock).body(self.first, span, self.ahead, grows)
            self.assertEqual(body._scaling.settled, not widened, span)


def _always(scratch: IScratch) -> Any:
    async def give() -> IScratch:
        return scratch

    return give

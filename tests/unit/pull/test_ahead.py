"""What lies before a fill: parts and gaps, and how many of them there may be."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import UpstreamError
from docxy.names import Digest
from docxy.pull.blobs import far
from docxy.pull.blobs.ahead import EVER, HELD, HELD_IN_ALL, LANES, LANES_IN_ALL, LEAST, MOST, NEAR, Ahead, Demands
from docxy.pull.blobs.extra import ExtraConnections
from docxy.pull.blobs.far import Far
from docxy.ranges import Range, Span
from docxy.siblings import LocalSlots
from docxy.storage.interfaces import IScratch
from docxy.storage.memory_blob import MemoryScratch
from docxy.upstream.blob_response import BlobResponse
from tests.unit.pull.test_parallel import Line

SIZE = 40_000_000_000
STEP = 2 * MOST


class AheadCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[Range] = []
        self.lines: list[Line] = []
        self.demands = Demands()
        self.extra = ExtraConnections(4, LocalSlots(8), "hub")
        self.ahead = self.make()

    def make(self) -> Ahead:
        made = Ahead(SIZE, self.ask, self.scratch, self.extra, self.demands)
        made.limit = made.sent_to = SIZE
        self.addCleanup(made.close)
        return made

    async def ask(self, asked: Range) -> BlobResponse:
        self.asked.append(asked)
        assert asked.first is not None and asked.last is not None
        self.lines.append(Line(bytes(asked.last + 1 - asked.first)))
        return BlobResponse(cast(Any, self.lines[-1]), Span(asked.first, asked.last + 1, SIZE))

    async def scratch(self) -> IScratch:
        return MemoryScratch()

    def arrive(self) -> None:
        """All that was asked for."""
        for line in self.lines:
            line.give(len(line.data))
            line.give(0)  # its end
        self.lines.clear()


class Bounds(AheadCase):
    def test_far_ranges(self) -> None:
        """Ten thousand far ranges are so many requests, and parts that wait for the fill, and no more."""
        for number in range(1, 10_001):
            self.ahead.want(number * 2 * NEAR, number * 2 * NEAR + 1)
            self.arrive()
        self.assertEqual((len(self.asked), len(self.ahead.parts)), (HELD, HELD))

    def test_ever(self) -> None:
        """Nor are there more when the fill takes them in by and by."""
        for number in range(1, 10_001):
            self.ahead.want(number * 2 * NEAR, number * 2 * NEAR + 1)
            self.arrive()
            for part in [*self.ahead.parts]:
                self.ahead.drop(part)
        self.assertEqual((len(self.asked), self.demands), (EVER, Demands()))

    def test_at_once(self) -> None:
        """So many are fetched at the same time, of one blob and of all."""
        for number in range(1, 100):
            self.ahead.want(number * STEP, number * STEP + 1)
        self.assertEqual(len(self.asked), LANES)
        for _ in range(10):
            other = self.make()
            for number in range(1, 100):
                other.want(number * STEP, number * STEP + 1)
        self.assertEqual((len(self.asked), self.demands.running), (LANES_IN_ALL, LANES_IN_ALL))

    def test_held(self) -> None:
        """So many wait for their fills, of all blobs; when these have ended there is room again."""
        fills = [self.make() for _ in range(10)]
        for each in fills:
            for number in range(1, 100):
                each.want(number * STEP, number * STEP + 1)
                self.arrive()
        self.assertEqual((len(self.asked), self.demands.held), (HELD_IN_ALL, HELD_IN_ALL))
        for each in fills:
            each.close()
        self.assertEqual(self.demands, Demands())

    def test_sizes(self) -> None:
        """A part has what the client reads, but for the least and the most."""
        for number, count in enumerate((1, LEAST + 1, 10 * MOST), 1):
            self.ahead.want(number * STEP, number * STEP + count)
        self.assertEqual([part.stop - part.first for part in self.ahead.parts], [LEAST, LEAST + 1, MOST])


class Geometry(AheadCase):
    def test_up_to_the_next(self) -> None:
        """A part ends where another begins; bytes of both are of the one that has them."""
        there = self.ahead.want(STEP + 1000, STEP + 2000)
        before = self.ahead.want(STEP, STEP + 2000)
        assert there is not None and before is not None
        self.assertEqual((before.first, before.stop), (STEP, STEP + 1000))
        self.assertIs(self.ahead.want(STEP + 1500, STEP + 2000), there)

    def test_near(self) -> None:
        """What the fill brings in a moment is not asked for."""
        self.assertIsNone(self.ahead.want(NEAR - 1, NEAR))
        self.assertEqual(self.asked, [])

    def test_not_cut_after_all(self) -> None:
        """Where the part comes to nothing the first connection brings these bytes, as it would have."""

        async def refuse(asked: Range) -> BlobResponse:
            raise UpstreamError("busy")

        self.patch(self.ahead, "_ask", refuse)
        self.ahead.want(STEP, STEP + 1)
        self.assertEqual((self.ahead.limit, self.ahead.parts), (SIZE, []))


class Waiting(SynchronousTestCase):
    def test_cancelled(self) -> None:
        """A client that goes away while it waits is told so, and nobody waits for it any more."""

        class NoFills:
            def ahead(self, digest: Digest, size: int) -> None:
                return None

        waits = Far(cast(Any, NoFills()), Digest.of(b""), Span(5, 10, 20), cast(Any, None))
        fill: Deferred[None] = Deferred()
        more: Deferred[None] = Deferred()
        waiting = Deferred.fromCoroutine(far._first_of([fill, more]))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((fill.called, more.called), (True, True))
        following = Deferred.fromCoroutine(waits.changed(Deferred()))
        following.cancel()
        self.failureResultOf(following, CancelledError)

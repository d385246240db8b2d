"""A fill's patience, on a clock of the test."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from random import Random
from typing import Any, cast

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import BlobUnknown, RangeInvalid, TooManyRequests, Unauthorized, UpstreamError
from docxy.names import Digest
from docxy.observe.tracing import NoTracer
from docxy.observe.trail import Fetched
from docxy.pull.blobs.again import ATTEMPTS
from docxy.pull.blobs.backoff import Backoff
from docxy.pull.blobs.fills import MAX_UNSTORABLE, UNSTORABLE_FOR, Fills
from docxy.ranges import Range, Span
from docxy.storage.interfaces import State
from docxy.storage.memory import MemoryStore
from docxy.upstream.blob_response import BlobResponse
from tests.unit.storage.fixtures import claim

DATA = b"0123456789"


class BackoffTests(SynchronousTestCase):
    def test_grows(self) -> None:
        """Delays grow, with chance in them, up to a bound."""
        backoff = Backoff(Random(1))
        for attempt, longest in ((1, 0.1), (2, 0.3), (3, 0.9), (8, 15.0), (100, 15.0)):
            for _ in range(20):
                self.assertTrue(longest / 2 <= backoff.delay(attempt) <= longest)

    def test_as_the_upstream_says(self) -> None:
        """A 429's Retry-After is heeded, within reason; one that is no number is not."""
        backoff = Backoff(Random(1))
        for value, delay in (("7", 7.0), ("86400", 30.0)):
            self.assertEqual(backoff.delay(1, TooManyRequests("", headers=(("Retry-After", value),))), delay)
        later = TooManyRequests("", headers=(("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT"),))
        self.assertLess(backoff.delay(1, later), 1)


@define
class Pieces:
    """A body of these pieces; an error instead of one is raised."""

    pieces: list[bytes | Exception]

    async def read(self) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.pieces = []


@define
class Answered:
    """As much of an upstream's response as a fill looks at."""

    pieces: list[bytes | Exception]
    source: str = "http://upstream"

    def body(self) -> Pieces:
        return Pieces(self.pieces)


def answer(first: int, *pieces: bytes | Exception) -> BlobResponse:
    return BlobResponse(cast(Any, Answered(list(pieces))), Span(first, len(DATA), len(DATA)))


class FillTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(1 << 20, self.clock)
        self.fills = Fills(self.clock, Backoff(Random(1)), NoTracer(), lambda running: None)
        self.digest = Digest.of(DATA)
        self.asked: list[Range | None] = []
        self.answers: list[BlobResponse | Exception] = []

    async def source(self, asked: Range | None) -> BlobResponse:
        self.asked.append(asked)
        given = self.answers.pop(0) if self.answers else UpstreamError("down")
        if isinstance(given, Exception):
            raise given
        return given

    def start(self, first: BlobResponse) -> Any:
        writer = self.successResultOf(Deferred.fromCoroutine(claim(self.store, self.digest)))
        self.successResultOf(Deferred.fromCoroutine(writer.announce(len(DATA))))
        reader = writer.open()
        self.addCleanup(reader.close)
        self.fills.start(writer, self.source, first, None, ("docker.io", "library/alpine"), Fetched())
        return reader

    def wait(self, seconds: float) -> None:
        self.clock.pump([0.1] * int(seconds * 10))

    def test_bounded(self) -> None:
        """An upstream that is down is asked so many times, then the fill ends; what it has is kept."""
        reader = self.start(answer(0, DATA[:4], UpstreamError("cut")))
        self.wait(200)
        self.assertEqual(self.asked, [Range(4, None)] * ATTEMPTS)
        self.assertEqual(sum(self.fills.resumed.values()), ATTEMPTS)
        self.assertEqual((reader.state, reader.readable), (State.RELEASED, 4))
        self.assertNotIn(self.digest, self.fills)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_progress_counts(self) -> None:
        """A single byte of progress makes the count of attempts start anew."""
        down: list[BlobResponse | Exception] = [UpstreamError("down")] * (ATTEMPTS - 1)
        for at in range(1, len(DATA)):
            self.answers += [*down, answer(at, DATA[at : at + 1], UpstreamError("cut"))]
        reader = self.start(answer(0, DATA[:1], UpstreamError("cut")))
        self.wait(1000)
        self.assertEqual(reader.state, State.VERIFIED)

    def test_refused(self) -> None:
        """A refusal, or that it is gone, is no reason to ask the same again."""
        for error in (Unauthorized("no"), BlobUnknown("gone")):
            self.asked.clear()
            self.answers = [error]
            reader = self.start(answer(0, DATA[:4], UpstreamError("cut")))
            self.wait(200)
            self.assertEqual((len(self.asked), reader.state), (1, State.RELEASED))
            writer = self.successResultOf(Deferred.fromCoroutine(claim(self.store, self.digest)))
            self.successResultOf(Deferred.fromCoroutine(writer.cancel()))

    def test_all_but_committed(self) -> None:
        """A fill that has every byte but was interrupted asks for the last one only, and ends."""
        writer = self.successResultOf(Deferred.fromCoroutine(claim(self.store, self.digest)))
        self.successResultOf(Deferred.fromCoroutine(writer.announce(len(DATA))))
        self.successResultOf(Deferred.fromCoroutine(writer.write(DATA)))
        self.successResultOf(Deferred.fromCoroutine(writer.release()))
        reader = self.start(answer(len(DATA) - 1, DATA[-1:]))
        self.assertEqual(reader.state, State.VERIFIED)

    def test_no_more(self) -> None:
        """416 behind the last byte of a blob of unknown size: there is no more; the digest says whether it is all."""
        for sent, state in ((DATA[:-1], State.WRONG), (DATA, State.VERIFIED)):
            writer = self.successResultOf(Deferred.fromCoroutine(claim(self.store, self.digest)))
            reader = writer.open()
            self.addCleanup(reader.close)
            self.answers = [RangeInvalid("no such range")]
            first = BlobResponse(cast(Any, Answered([sent, UpstreamError("less than announced")])), None)
            self.fills.start(writer, self.source, first, None, ("docker.io", "library/alpine"), Fetched())
            self.wait(1)
            self.assertEqual((self.asked.pop(), reader.state), (Range(len(sent), None), state))

    def test_stop(self) -> None:
        """At the end of the process a fill lets go of what it has, and of its timer."""
        reader = self.start(answer(0, DATA[:4], UpstreamError("cut")))
        self.successResultOf(Deferred.fromCoroutine(self.fills.stop()))
        self.assertEqual((reader.state, reader.readable), (State.RELEASED, 4))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_feeders(self) -> None:
        """What starts fills is ended before them, and one that begins all the same lets go at once."""
        order: list[str] = []

        async def fed() -> None:
            order.append(f"feeder, with {len(self.fills)} fills")

        self.fills.fed_by(fed)
        self.start(answer(0, DATA[:4], UpstreamError("cut")))
        self.successResultOf(Deferred.fromCoroutine(self.fills.stop()))
        self.assertEqual(order, ["feeder, with 1 fills"])
        late = self.start(answer(4, DATA[4:6], UpstreamError("cut")))
        self.assertEqual((late.state, len(self.fills)), (State.RELEASED, 0))
        self.assertEqual((self.asked, self.clock.getDelayedCalls()), ([], []))

    def test_unstorable(self) -> None:
        """However many blobs cannot be stored, the last ones are not tried again for a while, and no more are known."""
        digests = [Digest.of(str(number).encode()) for number in range(MAX_UNSTORABLE + 100)]
        for digest in digests:
            self.fills.failed(digest)
        self.assertEqual(len(self.fills._unstorable), MAX_UNSTORABLE)
        self.assertEqual([self.fills.failed_lately(digest) for digest in (digests[0], digests[-1])], [False, True])
        self.clock.advance(UNSTORABLE_FOR + 1)
        self.assertFalse(self.fills.failed_lately(digests[-1]))

    def test_many_sources(self) -> None:
        """However many clients join, few are remembered, and each is asked once when all are refused."""
        reader = self.start(answer(0, DATA[:4], UpstreamError("cut")))
        self.answers = [Unauthorized("no")] * 500
        for _ in range(200):
            self.fills.join(self.digest, Source(self.source))
        self.wait(200)
        self.assertLessEqual(len(self.asked), 16)
        self.assertEqual(reader.state, State.RELEASED)


@define(eq=False)
class Source:
    """A source of its own."""

    of: Any

    async def __call__(self, asked: Range | None) -> BlobResponse:
        given = await self.of(asked)
        assert isinstance(given, BlobResponse)
        return given

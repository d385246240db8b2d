"""A client that is served past the cache, while the upstream breaks off."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from random import Random
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.bodies import EndUntold, IBody
from docxy.errors import BlobUnknown, RangeInvalid, TooManyRequests, UpstreamError
from docxy.names import Digest
from docxy.pull.blobs.again import ATTEMPTS
from docxy.pull.blobs.backoff import Backoff
from docxy.pull.blobs.rest import rest_of
from docxy.pull.blobs.resuming import Resuming
from docxy.pull.direct import direct_blob
from docxy.ranges import Range, Span
from docxy.storage.interfaces import IBlobStore
from docxy.storage.memory import MemoryStore
from docxy.upstream.blob_response import BlobResponse
from tests.fakes import Fault, Pattern
from tests.unit.pull.harness import BUDGET, REPOSITORY, MirrorCase, reactor
from tests.unit.pull.test_storage_failing import FailingStore, Plan
from tests.unit.storage.fixtures import claim

DATA = b"0123456789"
DIGEST = Digest.of(DATA)
WHOLE = Span(0, 10, 10)
CUT = UpstreamError("cut")


@define(eq=False)
class Answered:
    """As much of an upstream's response as is looked at: pieces; an error instead of one is raised."""

    pieces: list[bytes | Exception]
    source: str = "http://upstream"
    abandoned: bool = False

    def body(self) -> Answered:
        return self

    def abandon(self) -> None:
        self.abandoned = True

    async def read(self) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.abandoned = True


@define(eq=False)
class Upstream:
    """Gives its answers in turn; when there is none left it is down."""

    answers: list[BlobResponse | Exception] = field(factory=list)
    asked: list[Range | None] = field(factory=list)
    broke: int = 0

    async def __call__(self, asked: Range | None) -> BlobResponse:
        self.asked.append(asked)
        given = self.answers.pop(0) if self.answers else UpstreamError("down")
        if isinstance(given, Exception):
            raise given
        return given

    def answer(self, span: Span | None, *pieces: bytes | Exception) -> BlobResponse:
        return BlobResponse(cast(Any, Answered(list(pieces))), span, broke=self.note)

    def note(self) -> None:
        self.broke += 1


class ResumingCase(SynchronousTestCase):
    """On a clock of the test."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.upstream = Upstream()
        self.resuming = Resuming(self.clock, Backoff(Random(1)))

    async def all(self, body: IBody) -> bytes:
        out = b""
        while piece := await body.read():
            out += piece
        return out


class ResumingTests(ResumingCase):
    """A blob, straight from the upstream."""

    def ask(self, asked: Range | None = None) -> Deferred[bytes]:
        """A client asks for it; what it gets."""

        async def pulled() -> bytes:
            return await self.all((await direct_blob(self.upstream, DIGEST, asked, self.resuming)).body)

        got = Deferred.fromCoroutine(pulled())
        self.clock.pump([1.0] * 1000)
        return got

    def test_goes_on(self) -> None:
        """However the body breaks off, the client gets the rest from where it is, and the endpoint is reported."""
        for ends in ([CUT], [EndUntold("closed")], []):
            self.setUp()
            self.upstream.answers = [
                self.upstream.answer(WHOLE, DATA[:4], *ends),
                self.upstream.answer(Span(4, 10, 10), DATA[4:6], CUT),
                CUT,
                self.upstream.answer(Span(6, 10, 10), DATA[6:]),
            ]
            self.assertEqual(self.successResultOf(self.ask()), DATA)
            self.assertEqual(self.upstream.asked, [None, Range(4, 9), Range(6, 9), Range(6, 9)])
            self.assertEqual(self.upstream.broke, 2)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_before_the_first_byte(self) -> None:
        """A body that ends before its first byte is asked for as the first time."""
        self.upstream.answers = [self.upstream.answer(WHOLE, CUT), self.upstream.answer(WHOLE, DATA)]
        self.assertEqual(self.successResultOf(self.ask()), DATA)
        self.assertEqual(self.upstream.asked, [None, None])

    def test_without_ranges(self) -> None:
        """What an upstream without ranges sends again is skipped, and all that the client got is hashed."""
        self.upstream.answers = [
            self.upstream.answer(WHOLE, DATA[:4], CUT),
            self.upstream.answer(WHOLE, DATA[:2], DATA[2:7], DATA[7:]),
        ]
        self.assertEqual(self.successResultOf(self.ask()), DATA)

    def test_range(self) -> None:
        """A range goes on to its own end and no further."""
        self.upstream.answers = [
            self.upstream.answer(Span(2, 8, 10), DATA[2:4], CUT),
            self.upstream.answer(WHOLE, DATA),
        ]
        self.assertEqual(self.successResultOf(self.ask(Range(2, 7))), DATA[2:8])
        self.assertEqual(self.upstream.asked, [Range(2, 7), Range(4, 7)])

    def test_unknown_size(self) -> None:
        """Where nobody knows the size, 416 may be the end: the digest says so."""
        for first, whole in ((DATA, True), (DATA[:9], False)):
            self.setUp()
            self.upstream.answers = [self.upstream.answer(None, first, CUT), RangeInvalid("no such range")]
            got = self.ask()
            self.assertEqual(self.upstream.asked, [None, Range(len(first), None)])
            self.assertEqual(self.successResultOf(got), DATA) if whole else self.failureResultOf(got, UpstreamError)

    def test_other_bytes(self) -> None:
        """Other bytes behind the first ones are never a whole blob: the last byte stays here."""
        self.upstream.answers = [
            self.upstream.answer(WHOLE, DATA[:4], CUT),
            self.upstream.answer(Span(4, 10, 10), b"abcdef"),
        ]
        self.failureResultOf(self.ask(), UpstreamError)

    def test_something_else(self) -> None:
        """A blob of another size, and none at this place any more, are no reason to ask the same again."""
        other = self.upstream.answer(Span(4, 11, 11), DATA[4:], b"x")
        for answer in (other, RangeInvalid("no such range"), BlobUnknown("gone")):
            self.upstream.asked.clear()
            self.upstream.answers = [self.upstream.answer(Span(2, 8, 10), DATA[2:4], CUT), answer]
            self.failureResultOf(self.ask(Range(2, 7)))
            self.assertEqual(len(self.upstream.asked), 2)
        self.assertTrue(cast(Answered, other.response).abandoned)

    def test_bounded(self) -> None:
        """An upstream that is down is asked so many times; one byte of progress makes the count start anew."""
        self.upstream.answers = [self.upstream.answer(WHOLE, DATA[:4], CUT)]
        self.failureResultOf(self.ask(), UpstreamError)
        self.assertEqual(self.upstream.asked, [None] + [Range(4, 9)] * ATTEMPTS)
        down: list[BlobResponse | Exception] = [CUT] * (ATTEMPTS - 1)
        self.upstream.answers = [self.upstream.answer(WHOLE, DATA[:1], CUT)]
        for at in range(1, len(DATA)):
            self.upstream.answers += [*down, self.upstream.answer(Span(at, 10, 10), DATA[at : at + 1], CUT)]
        self.assertEqual(self.successResultOf(self.ask()), DATA)

    def test_limited(self) -> None:
        """A 429 is waited out as it says."""
        limited = TooManyRequests("", headers=(("Retry-After", "7"),))
        self.upstream.answers = [
            self.upstream.answer(WHOLE, DATA[:4], CUT),
            limited,
            self.upstream.answer(Span(4, 10, 10), DATA[4:]),
        ]
        body = self.successResultOf(
            Deferred.fromCoroutine(direct_blob(self.upstream, DIGEST, None, self.resuming))
        ).body
        got = Deferred.fromCoroutine(self.all(body))
        self.clock.pump([0.1] * 60)
        self.assertNoResult(got)
        self.clock.pump([0.1] * 20)
        self.assertEqual(self.successResultOf(got), DATA)

    def test_gone(self) -> None:
        """A client that goes away leaves no timer and no connection."""
        first = self.upstream.answer(WHOLE, DATA[:4], CUT)
        self.upstream.answers = [first]
        body = self.successResultOf(
            Deferred.fromCoroutine(direct_blob(self.upstream, DIGEST, None, self.resuming))
        ).body
        got = Deferred.fromCoroutine(self.all(body))
        got.addErrback(lambda reason: None)
        got.cancel()
        body.close()
        self.assertEqual((self.clock.getDelayedCalls(), len(self.upstream.asked)), ([], 1))
        self.assertTrue(cast(Answered, first.response).abandoned)


class RestTests(ResumingCase):
    """The same behind what came from the cache."""

    def rest(self, position: int, span: Span | None = WHOLE) -> Deferred[bytes]:
        """The rest, for a client that has had so much."""
        store = MemoryStore(1 << 20, self.clock)
        writer = self.successResultOf(Deferred.fromCoroutine(claim(store, DIGEST)))
        self.successResultOf(Deferred.fromCoroutine(writer.write(DATA)))
        reader = writer.open()
        self.addCleanup(reader.close)

        async def pulled() -> bytes:
            return await self.all(await rest_of(self.upstream, reader, span, position, self.resuming))

        got = Deferred.fromCoroutine(pulled())
        self.clock.pump([1.0] * 1000)
        return got

    def test_rest(self) -> None:
        """The rest of a blob and of a range go on, too."""
        for span in (WHOLE, Span(1, 8, 10)):
            self.upstream.answers = [
                self.upstream.answer(Span(3, span.stop, 10), DATA[3:5], CUT),
                self.upstream.answer(Span(5, span.stop, 10), DATA[5 : span.stop]),
            ]
            self.assertEqual(self.successResultOf(self.rest(3, span)), DATA[3 : span.stop])

    def test_longer(self) -> None:
        """A blob that is longer than the client was told does not end, unhashed, where the client expects it."""
        promised = Span(0, 8, 8)
        for answer in (
            self.upstream.answer(Span(3, 10, 10), DATA[3:]),
            self.upstream.answer(None, DATA),
            self.upstream.answer(Span(3, 8, 8), DATA[3:8]),
        ):
            self.upstream.answers = [answer]
            self.failureResultOf(self.rest(3, promised), UpstreamError)


BLOB = Pattern(1 << 20, "past the cache")
BYTES = BLOB.read(0, BLOB.size)


class Served(MirrorCase):
    """Clients of a docxy whose cache is off or cannot be used."""

    def make_store(self) -> IBlobStore:
        return FailingStore(Plan(claim=True), MemoryStore(BUDGET, reactor))

    async def test_cut(self) -> None:
        """The registry cuts the layer: the client sees nothing of it, with a cache that fails and without one."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        for mirror in (self.mirror, self.start(cached=False)):
            for asked, status, bytes_ in ((None, 200, BYTES), ("bytes=1000-900000", 206, BYTES[1000:900_001])):
                self.upstream.requests.clear()
                self.upstream.on("blob", Fault(cut_after=300_000))
                answer = await mirror.blob(digest, asked=asked)
                self.assertEqual((answer.status, answer.cache_status), (status, "docxy; fwd=bypass"))
                self.assertEqual(answer.body, bytes_)
                self.saw(GET_blob=2)

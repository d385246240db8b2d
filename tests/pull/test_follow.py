"""Following a blob through whatever its writer does, with a reader made by hand."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.names import Digest
from docxy.pull.follow import RESTARTS, Following
from docxy.ranges import Span
from docxy.storage.interfaces import IBlobReader, State, StorageError
from docxy.upstream.body import IBody

DATA = b"0123456789"


@implementer(IBlobReader)
@define(eq=False)
class Reader:
    readable: int = 0
    state: State = State.FILLING
    digest: Digest = field(factory=lambda: Digest.of(DATA))
    size: int | None = len(DATA)
    closed: int = 0
    broken: bool = False
    waiting: list[Deferred[None]] = field(factory=list)

    async def read(self, offset: int, length: int) -> bytes:
        if self.broken:
            raise StorageError("broken")
        return DATA[offset : min(self.readable, offset + length)]

    def changed(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        return waiting

    def change(self, readable: int, state: State = State.FILLING) -> None:
        self.readable, self.state = readable, state
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        self.closed += 1


@implementer(IBody)
@define(eq=False)
class Rest:
    data: bytes
    closed: bool = False

    async def read(self) -> bytes:
        data, self.data = self.data[:2], self.data[2:]
        return data

    def close(self) -> None:
        self.closed = True


class FollowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reader = Reader()
        self.reopened: list[Reader | None] = []
        self.directs: list[Span] = []
        self.rest = Rest(b"")
        self.short = 0

    async def reopen(self) -> Reader | None:
        return self.reopened.pop(0)

    async def direct(self, span: Span) -> Rest:
        self.directs.append(span)
        self.rest = Rest(DATA[span.first : span.stop - self.short])
        return self.rest

    def follow(self, first: int = 0, stop: int = len(DATA)) -> Following:
        return Following(self.reader, Span(first, stop, len(DATA)), self.reopen, self.direct)

    async def all(self, body: IBody) -> bytes:
        out = b""
        while piece := await body.read():
            out += piece
        return out

    def test_as_it_comes(self) -> None:
        """Bytes are handed on as they come, the last one when they are verified."""
        got = Deferred.fromCoroutine(self.all(self.follow()))
        for readable in (3, 3, 9):
            self.reader.change(readable)
            self.assertNoResult(got)
        self.reader.change(10, State.VERIFIED)
        self.assertEqual(self.successResultOf(got), DATA)

    def test_span(self) -> None:
        """A span ends where it ends, whatever more is there or is to come."""
        self.reader.change(6)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.all(self.follow(2, 5)))), DATA[2:5])

    def test_cancelled(self) -> None:
        """Withdrawn bytes are an error, not an end."""
        got = Deferred.fromCoroutine(self.all(self.follow()))
        self.reader.change(9)
        self.reader.change(9, State.CANCELLED)
        self.failureResultOf(got, UpstreamError)

    def test_taken_over(self) -> None:
        """When the writer is gone the fill is started again, and followed from where the client is."""
        second = Reader(readable=10, state=State.VERIFIED)
        self.reopened = [second]
        got = Deferred.fromCoroutine(self.all(self.follow()))
        self.reader.change(4)
        self.reader.change(4, State.RELEASED)
        self.assertEqual(self.successResultOf(got), DATA)
        self.assertEqual(self.reader.closed, 1)

    def test_given_up(self) -> None:
        """Fills that bring nothing are started again a few times only."""
        self.reopened = [Reader(state=State.RELEASED) for _ in range(50)]
        self.reader.state = State.RELEASED
        self.failureResultOf(Deferred.fromCoroutine(self.all(self.follow())), UpstreamError)
        self.assertEqual(len(self.reopened), 50 - RESTARTS)

    def test_progress(self) -> None:
        """A byte of progress each is enough."""
        self.reader.change(1, State.RELEASED)
        self.reopened = [Reader(readable=count, state=State.RELEASED) for count in range(2, 10)]
        self.reopened.append(Reader(readable=10, state=State.VERIFIED))
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.all(self.follow()))), DATA)

    def test_direct(self) -> None:
        """When it can only be had directly, or the cache cannot be read, the rest is, and no more."""
        for broken in (False, True):
            self.setUp()
            self.reopened = [None]
            got = Deferred.fromCoroutine(self.all(self.follow(1, 9)))
            self.reader.change(4)
            self.reader.broken = broken
            self.reader.change(6, State.FILLING if broken else State.RELEASED)
            self.assertEqual(self.successResultOf(got), DATA[1:9])
            self.assertEqual(self.directs, [Span(4 if broken else 6, 9, 10)])

    def test_direct_ends_early(self) -> None:
        """A rest that ends early is an error."""
        self.reader.broken, self.short = True, 1
        self.reader.change(5)
        self.failureResultOf(Deferred.fromCoroutine(self.all(self.follow())), UpstreamError)

    def test_shorter(self) -> None:
        """A verified blob that is shorter than what was promised is an error, not an endless wait."""
        self.reader.change(8, State.VERIFIED)
        self.failureResultOf(Deferred.fromCoroutine(self.all(self.follow())), UpstreamError)

    def test_closed(self) -> None:
        """Closing lets go of what is open, at any moment."""
        body = self.follow()
        body.close()
        self.assertEqual(self.reader.closed, 1)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(body.read())), b"")
        self.reader.broken = True
        self.reader.change(5)
        body = self.follow()
        self.successResultOf(Deferred.fromCoroutine(body.read()))
        body.close()
        self.assertTrue(self.rest.closed)

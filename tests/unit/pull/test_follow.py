"""Following a blob through whatever its writer does, with a reader made by hand."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.bodies import IBody
from docxy.errors import UpstreamError
from docxy.names import Digest
from docxy.pull.blobs.follow import RESTARTS, Following
from docxy.pull.blobs.followers import Followers
from docxy.ranges import Span
from docxy.storage.interfaces import IBlobReader, State, StorageError

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
    data: bytes = DATA
    waiting: list[Deferred[None]] = field(factory=list)

    async def read(self, offset: int, length: int) -> bytes:
        if self.broken:
            raise StorageError("broken")
        return self.data[offset : min(self.readable, offset + length)]

    def changed(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        return waiting

    def change(self, readable: int, state: State = State.FILLING) -> None:
        self.readable, self.state = readable, state
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)

    async def hashed(self, count: int) -> Any:
        hasher = self.digest.hasher()
        hasher.update(self.data[:count])
        return hasher

    def same(self, other: IBlobReader) -> bool:
        return self is other

    def again(self) -> IBlobReader:
        return self

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
        self.directs: list[int] = []
        self.rest = Rest(b"")
        self.short = 0
        self.followers = Followers()

    async def reopen(self, position: int) -> Reader | None:
        return self.reopened.pop(0)

    async def direct(self, reader: IBlobReader, position: int) -> Rest:
        self.directs.append(position)
        self.rest = Rest(DATA[position : self.stop - self.short])
        return self.rest

    def follow(self, first: int = 0, stop: int = len(DATA)) -> Following:
        self.stop = stop
        return Following(self.reader, Span(first, stop, len(DATA)), self.reopen, self.direct, None, self.followers)

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

    def test_counted(self) -> None:
        """A client counts while the blob still arrives: not when it leaves, goes past the cache, or all is there."""
        leaves, stays = self.follow(), self.follow()
        self.assertEqual(self.followers.counted(), {self.reader.digest: 2})
        leaves.close()
        leaves.close()
        self.assertEqual(self.followers.counted(), {self.reader.digest: 1})
        self.reader.change(10, State.VERIFIED)
        self.follow()
        self.assertEqual(self.followers.counted(), {})
        stays.close()

    def test_past_the_cache(self) -> None:
        """A client that gets the rest from the upstream itself follows no fill."""
        got = Deferred.fromCoroutine(self.all(self.follow()))
        self.reader.change(3)
        self.assertEqual(self.followers.counted(), {self.reader.digest: 1})
        self.reader.change(3, State.STALLED)
        self.assertEqual(self.successResultOf(got), DATA)
        self.assertEqual(self.followers.counted(), {})

    def test_span(self) -> None:
        """A span ends where it ends, whatever more is there or is to come."""
        self.reader.change(6)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.all(self.follow(2, 5)))), DATA[2:5])

    def test_wrong(self) -> None:
        """Wrong bytes are an error, not an end."""
        got = Deferred.fromCoroutine(self.all(self.follow()))
        self.reader.change(9)
        self.reader.change(9, State.WRONG)
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

    def test_withdrawn(self) -> None:
        """Bytes that are gone but were not found wrong are filled again, and the client notices nothing."""
        self.reopened = [Reader(readable=10, state=State.VERIFIED)]
        got = Deferred.fromCoroutine(self.all(self.follow()))
        self.reader.change(4)
        self.reader.change(4, State.WITHDRAWN)
        self.assertEqual(self.successResultOf(got), DATA)

    def test_withdrawn_and_other(self) -> None:
        """What is filled anew with other bytes than the client has had is not put behind them."""
        self.assert_goes_on_direct(Reader(readable=10, state=State.VERIFIED, data=b"abcdefghij"))

    def test_withdrawn_and_longer(self) -> None:
        """Nor is what is filled anew as a blob of another size: where the client expects the end, nothing is hashed."""
        for state in (State.VERIFIED, State.FILLING):
            for size in (11, None):
                self.setUp()
                self.assert_goes_on_direct(Reader(readable=10, state=state, data=DATA + b"x", size=size))

    def assert_goes_on_direct(self, reopened: Reader) -> None:
        """A client that has four bytes of what is withdrawn, then filled anew so, gets the rest from upstream."""
        self.reopened = [reopened]
        got = Deferred.fromCoroutine(self.all(self.follow()))
        self.reader.change(4)
        self.reader.change(4, State.WITHDRAWN)
        self.assertEqual((self.successResultOf(got), self.directs), (DATA, [4]))

    def test_stalled(self) -> None:
        """When the process that fills stands still, its followers go on with the upstream where they are."""
        got = Deferred.fromCoroutine(self.all(self.follow()))
        self.reader.change(4)
        self.reader.change(4, State.STALLED)
        self.assertEqual((self.successResultOf(got), self.directs), (DATA, [4]))

    def test_unknown_size(self) -> None:
        """Without a size the end is where the bytes are verified."""
        self.reader.size = None
        got = Deferred.fromCoroutine(
            self.all(Following(self.reader, None, self.reopen, self.direct, None, self.followers))
        )
        self.reader.change(9)
        self.assertNoResult(got)
        self.reader.change(10, State.VERIFIED)
        self.assertEqual(self.successResultOf(got), DATA)

    def test_given_up(self) -> None:
        """Fills that bring nothing are started again a few times only; then the rest comes from the upstream."""
        self.reopened = [Reader(readable=3, state=State.RELEASED) for _ in range(50)]
        self.reader.change(3, State.RELEASED)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.all(self.follow()))), DATA)
        self.assertEqual((len(self.reopened), self.directs), (50 - RESTARTS, [3]))

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
            self.assertEqual(self.directs, [4 if broken else 6])

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

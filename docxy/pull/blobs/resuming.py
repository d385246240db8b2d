"""A blob's bytes past the cache, resumed where the upstream breaks off.

The law: *a client that is served past the cache fares as one that follows a fill.*  The rest is asked for
from the last byte on, by this client's own right, as often and as patiently as a fill does.  Nothing here
tells whether the bytes are right: a whole blob is hashed by who reads this (`docxy.bodies.VerifiedBody`), over
all connections together; a range goes on only where the upstream has as many bytes as it had.  An ETag
(RFC 9110 section 13.1.5) would say less than the digest that is asked for.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from docxy.bodies import EndUntold, IBody
from docxy.errors import RangeInvalid, TooManyRequests, UpstreamError
from docxy.names import Digest
from docxy.pull.blobs.again import ATTEMPTS, Source
from docxy.pull.blobs.backoff import Backoff
from docxy.ranges import Range, Span
from docxy.upstream.blob_response import BlobResponse


class SomethingElse(UpstreamError):
    """The upstream has other bytes there than before; to ask again would not bring them back."""


@frozen
class Resuming:
    """Makes bodies that are resumed."""

    clock: IReactorTime
    backoff: Backoff

    def body(self, digest: Digest, answer: BlobResponse, span: Span | None, ask: Source) -> IBody:
        """The bytes of `span`, no more and no less; None: all of a blob whose size nobody knows.

        `answer`: the first response; `ask`: for more.  Raises UpstreamError, and is done with the answer, when
        that holds something else.
        """
        return _Resumed(digest, answer, span, ask, self)


@implementer(IBody)
class _Resumed:
    """One client's."""

    _log = Logger()

    def __init__(
        self, digest: Digest, answer: BlobResponse, span: Span | None, ask: Source, resuming: Resuming
    ) -> None:
        self._digest = digest
        self._ask = ask
        self._resuming = resuming
        self._position = 0 if span is None else span.first
        self._stop = None if span is None else span.stop
        self._size = None if span is None else span.size
        self._closed = False
        self._take(answer)

    def _take(self, answer: BlobResponse) -> None:
        """Go on with this response."""
        span = answer.span
        if span is not None and (self._size not in (None, span.size) or span.first > self._position):
            answer.response.abandon()
            raise SomethingElse(f"{answer.response.source} has something else there now ({span})")
        self._answer: BlobResponse | None = answer
        self._body: IBody = answer.response.body()
        self._skip = self._position - (0 if span is None else span.first)

    async def read(self) -> bytes:
        attempt = 0
        while self._position != self._stop and not self._closed:
            try:
                data = await self._some()
            except SomethingElse:
                raise
            except (UpstreamError, TooManyRequests) as error:
                if self._stop is None and isinstance(error, EndUntold):
                    raise  # the digest decides
                attempt += 1
                self._broke()
                if attempt > ATTEMPTS:
                    raise
                self._log.info(
                    "{digest}, past the cache: {error}; going on from byte {offset}",
                    digest=self._digest,
                    error=error,
                    offset=self._position,
                )
                await deferLater(self._resuming.clock, self._resuming.backoff.delay(attempt, error), lambda: None)
                continue
            if data:
                return data
        self.close()
        return b""

    async def _some(self) -> bytes:
        """Bytes at our position; none where they were skipped, and at the end, which is then known."""
        if self._answer is None and not await self._again():
            return b""
        assert self._answer is not None
        data = await self._body.read()
        if not data:
            if self._stop is not None:
                raise UpstreamError(f"{self._answer.response.source} ended a body early")
            self._stop = self._position
        data, self._skip = data[self._skip :], max(0, self._skip - len(data))
        if self._stop is not None:
            data = data[: self._stop - self._position]
        self._position += len(data)
        return data

    async def _again(self) -> bool:
        """Ask for the rest; whether there is any."""
        last = None if self._stop is None else self._stop - 1
        whole = self._position == 0 and self._stop == self._size
        try:
            self._take(await self._ask(None if whole else Range(self._position, last)))
        except RangeInvalid as error:
            if self._stop is not None:
                raise SomethingElse(error.message) from error
            self._stop = self._position  # what came may be all of it: the digest decides
            return False
        return True

    def _broke(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.broke()
            self._body.close()

    def close(self) -> None:
        self._closed = True
        self._body.close()

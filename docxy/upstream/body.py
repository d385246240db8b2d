"""A response body, read at its reader's pace.

The law: no more than `HIGH_WATER` bytes (and two reads of the transport) wait in memory;
the transport is paused until they are taken.  `b""` is read only at the end of a body
that the framing of HTTP says is whole; everything else raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from docxy.bodies import EndUntold, IBody
from docxy.errors import UpstreamBroke, UpstreamError, UpstreamTimeout
from docxy.observe import trail
from docxy.upstream.pace import Paying

HIGH_WATER = 256 * 1024
"""Bytes."""


@implementer(IBody)
class ResponseBody(Protocol):
    """What `IResponse.deliverBody` is given."""

    def __init__(
        self,
        clock: IReactorTime,
        silence: float,
        source: str,
        length: int | None = None,
        count: Callable[[int], object] = lambda _: None,
        paying: Paying | None = None,
    ) -> None:
        """`silence`: seconds without a byte after which the upstream is given up; `source` names it in errors.

        `length`: bytes of the whole body, None if unknown; `count`: called with the size of each piece.

        `paying`: the limits that what is read must keep within; None: there are none.
        """
        self._count = count
        self._paying = paying
        self._clock = clock
        self._silence = silence
        self._source = source
        self._length = length
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._closed = False
        self._ended: Exception | None = None
        self._whole = False
        self._waiting: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self.received = 0
        """Bytes so far."""

    @property
    def _producer(self) -> IPushProducer:
        return cast(IPushProducer, self.transport)

    def connectionMade(self) -> None:
        if self._closed:
            self._producer.stopProducing()

    def dataReceived(self, data: bytes) -> None:
        if self._closed:
            return
        self.received += len(data)
        self._count(len(data))
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered >= HIGH_WATER:
            # Also if it is paused already: Twisted resumes the connection when it has handed over what came with
            # the headers, whatever was said meanwhile.
            self._paused = True
            self._producer.pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if isinstance(reason.value, ResponseDone):
            self._whole = True
        elif isinstance(reason.value, PotentialDataLoss):
            self._ended = EndUntold(f"{self._source} ended a body of which it did not say how long it is")
        elif self._ended is None:
            self._ended = UpstreamBroke(f"{self._source} broke off after {self.received} bytes")
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _silent(self) -> None:
        self._timer = None
        self._ended = UpstreamTimeout(
            f"{self._source} sent nothing for {self._silence:g} s after {self.received} bytes"
        )
        self._stop()
        self._wake()

    async def read(self) -> bytes:
        """See `IBody.read`; everything that has arrived, as one piece."""
        while not self._pieces:
            if self._whole or self._closed:
                return b""
            if self._ended is not None:
                raise self._ended
            if self._paused:
                self._paused = False
                self._producer.resumeProducing()
                continue
            self._waiting = Deferred(lambda _: self.close())
            self._timer = self._clock.callLater(self._silence, self._silent)
            await self._waiting
        taken = len(self._pieces)
        data = self._pieces[0] if taken == 1 else b"".join(self._pieces)
        if self._paying is not None:
            await self._pay(self._paying, len(data))
        if self._closed:
            return b""
        for _ in range(taken):
            self._pieces.popleft()
        self._buffered -= len(data)
        return data

    async def _pay(self, paying: Paying, count: int) -> None:
        """Wait until docxy's own limits let these bytes through; meanwhile no more than `HIGH_WATER` come."""
        began = self._clock.seconds()
        try:
            await paying.pay(count)
        finally:
            trail.waited("rate", self._clock.seconds() - began)

    def close(self) -> None:
        """See `IBody.close`."""
        if self._closed:
            return
        self._closed = True
        self._pieces.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting = None
        # Closed on its last bytes, before the framing said so, it leaves the connection usable.
        if not self._whole and self._ended is None and self.received != self._length:
            self._stop()

    def _stop(self) -> None:
        # stopProducing, not loseConnection: a paused TLS body would stay open.
        if self.transport is not None:
            self._producer.stopProducing()


async def read_whole(body: IBody, limit: int, source: str) -> bytes:
    """The whole body; raises UpstreamError once it is longer than `limit` bytes."""
    pieces: list[bytes] = []
    size = 0
    try:
        while data := await body.read():
            size += len(data)
            if size > limit:
                raise UpstreamError(f"{source} sent more than {limit} bytes where that is the limit")
            pieces.append(data)
    finally:
        body.close()
    return b"".join(pieces)

"""A response body, sent at the client's pace.

The law: no more waits in memory than the transport's buffer and one piece; a client that
takes nothing for too long is dropped; a body that cannot be finished ends in an
aborted connection, never in something that looks whole.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from docxy.web.request import Request
from docxy.web.stall_timer import StallTimer, unsent


class ClientGone(Exception):
    """The client went away or was dropped."""


@implementer(IPushProducer)
class ClientStream:
    """Writes to one request; `close` must be called in the end, after a failure too."""

    def __init__(self, request: Request, clock: IReactorTime, client_timeout: float) -> None:
        """`client_timeout`: seconds; see `docxy.web.stall_timer`."""
        self._request = request
        self._stall = StallTimer(partial(unsent, request), clock, client_timeout, self._drop)
        self._timeout = client_timeout
        self._gone = False
        self._resumed: Deferred[None] | None = None
        request.registerProducer(self, True)  # type: ignore[no-untyped-call]  # not annotated

    def pauseProducing(self) -> None:
        if self._resumed is None and not self._gone:
            self._resumed = Deferred()
            self._stall.start()

    def resumeProducing(self) -> None:
        self._wake()

    def stopProducing(self) -> None:
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        self._stall.stop()
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    async def write(self, data: bytes) -> None:
        """Send, and return when more is welcome.  Raises ClientGone."""
        if not self._gone:
            self._request.write(data)
        if self._resumed is not None:
            await self._resumed
        if self._gone:
            raise ClientGone

    def _drop(self) -> None:
        note_stalled(self._request, self._timeout)
        self.abort()

    def abort(self) -> None:
        """End the connection at once, so that nothing that was sent looks whole."""
        if not self._gone:
            abort(self._request)
            self._gone = True
        self._wake()

    def close(self) -> None:
        """Nothing more is written through this."""
        self._stall.stop()
        if not self._gone:
            self._gone = True
            self._request.unregisterProducer()  # type: ignore[no-untyped-call]  # not annotated


def note_stalled(request: Request, seconds: float) -> None:
    """It is docxy that ends the answer, not the client."""
    request.error = f"the client took nothing for {seconds:g} s"


def abort(request: Request) -> None:
    """End a request's connection without the rest of its response."""
    if request.channel is not None:
        request.channel.transport.abortConnection()

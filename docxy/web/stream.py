"""A response body, sent at the client's pace.

The law: no more waits in memory than the transport's buffer and one piece; a client that
takes nothing for `patience` seconds is dropped; a body that cannot be finished ends in an
aborted connection, never in something that looks whole.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.web.http import Request
from zope.interface import implementer


class ClientGone(Exception):
    """The client went away or was dropped."""


@implementer(IPushProducer)
class ClientStream:
    """Writes to one request; `close` must be called, whatever happens."""

    _log = Logger()

    def __init__(self, request: Request, clock: IReactorTime, patience: float) -> None:
        """`patience`: seconds within which the client must take something."""
        self._request = request
        self._clock = clock
        self._patience = patience
        self._gone = False
        self._resumed: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        request.registerProducer(self, True)

    def pauseProducing(self) -> None:
        if self._resumed is None and not self._gone:
            self._resumed = Deferred()
            self._timer = self._clock.callLater(self._patience, self._drop)

    def resumeProducing(self) -> None:
        self._wake()

    def stopProducing(self) -> None:
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def _drop(self) -> None:
        self._timer = None
        self._log.info("dropped a client that took nothing for {seconds:g} s", seconds=self._patience)
        self.abort()

    async def write(self, data: bytes) -> None:
        """Send, and return when more is welcome.  Raises ClientGone."""
        if not self._gone:
            self._request.write(data)
        if self._resumed is not None:
            await self._resumed
        if self._gone:
            raise ClientGone

    def abort(self) -> None:
        """End the connection at once, so that nothing that was sent looks whole."""
        if not self._gone:
            abort(self._request)
            self._gone = True
        self._wake()

    def close(self) -> None:
        """Nothing more is written through this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._gone:
            self._gone = True
            self._request.unregisterProducer()


def abort(request: Request) -> None:
    """End a request's connection without the rest of its response."""
    if request.channel is not None:
        cast(ITCPTransport, request.channel.transport).abortConnection()

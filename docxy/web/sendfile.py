"""File to socket without a copy through this process: `sendfile(2)` on a plain TCP transport.

The law: while a piece is sent, this is the transport's producer in the HTTP channel's place;
what the channel had written goes out first, and the channel is put back before it is used
again.  One call a writable event, so that no client holds up the others, and only bytes
that are in memory, so that no disk does.
"""

from __future__ import annotations

import os
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.web.http import HTTPChannel, Request
from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.streaming import FilePiece, IFileBody
from docxy.upstream.body import IBody
from docxy.web.stream import ClientGone, ClientStream

AT_ONCE = 1024 * 1024
"""Bytes of one call."""
HEADERS_WITHIN = 10.0
"""Seconds within which headers leave, with or without a byte of the body: containerd waits for 30 s.  Until
then what goes wrong can still be told in words."""
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


def sendable(request: Request) -> bool:
    """Whether a request's response can be sent so: HTTP/1 on a plain TCP socket, with a known length."""
    channel = request.channel
    return (
        bool(_NOWAIT)
        and hasattr(os, "sendfile")
        and isinstance(channel, HTTPChannel)
        and isinstance(channel.transport, Connection)
        and not getattr(channel.transport, "TLS", False)
        and request.responseHeaders.hasHeader(b"Content-Length")
    )


def in_memory(piece: FilePiece) -> bool:
    """Whether the page cache has the first AT_ONCE bytes of a piece, as its last byte shows."""
    last = piece.offset + min(piece.count, AT_ONCE) - 1
    try:
        return os.preadv(piece.descriptor, [bytearray(1)], last, _NOWAIT) == 1
    except OSError:
        return False


@implementer(IPullProducer)
class FileSender:
    """Sends pieces to one client; between `send`s the channel is its transport's producer."""

    _log = Logger()

    def __init__(self, request: Request, clock: IReactorTime, patience: float) -> None:
        """`patience`: seconds; a client that takes nothing for this long is dropped, at the latest after twice that."""
        self._request = request
        assert request.channel is not None
        self._channel = request.channel
        self._transport = cast(Connection, self._channel.transport)
        self._clock = clock
        self._patience = patience
        self._piece: FilePiece | None = None
        self._ready = False
        self._sent = 0
        self._seen = 0
        self._done: Deferred[int] | None = None
        self._timer: IDelayedCall | None = None

    def send(self, piece: FilePiece) -> Deferred[int]:
        """Send a piece, or as much of it as is in memory; fires with how many bytes were sent.

        Fails with ClientGone, OSError.
        """
        done: Deferred[int] = Deferred(lambda _: self._end())
        if not self._transport.connected:
            done.errback(ClientGone())
            return done
        self._done, self._piece, self._sent, self._seen = done, piece, 0, 0
        self._timer = self._clock.callLater(self._patience, self._look)
        if not self._request.startedWriting:
            self._request.write(b"")
        self._transport.unregisterProducer()
        # Registering asks for bytes at once, when what was written before may not be out yet.
        self._ready = False
        self._transport.registerProducer(self, False)
        self._ready = True
        self._transport.startWriting()
        return done

    def resumeProducing(self) -> None:
        """The socket takes more, and nothing waits before us."""
        piece = self._piece
        if piece is None or not self._ready:
            return
        count = min(piece.count - self._sent, AT_ONCE)
        try:
            sent = os.sendfile(self._transport.fileno(), piece.descriptor, piece.offset + self._sent, count)
        except BlockingIOError:
            self._transport.startWriting()
            return
        except OSError as error:
            self._finish(error)
            return
        if sent == 0:
            self._finish(OSError(f"the file ends at {piece.offset + self._sent}"))
            return
        self._sent += sent
        rest = FilePiece(piece.descriptor, piece.offset + self._sent, piece.count - self._sent)
        if rest.count and in_memory(rest):
            self._transport.startWriting()
        else:
            self._finish(None)

    def stopProducing(self) -> None:
        """The connection is gone; the transport has let go of us."""
        self._stop_timer()
        self._piece = None
        done, self._done = self._done, None
        if done is not None and not done.called:
            done.errback(ClientGone())

    def _finish(self, error: OSError | None) -> None:
        done = self._done
        self._end()
        if done is None or done.called:
            return
        if error is None:
            self._request.sentLength += self._sent
            done.callback(self._sent)
        else:
            done.errback(error)

    def _end(self) -> None:
        """Put the channel back."""
        self._stop_timer()
        self._done = None
        if self._piece is not None:
            self._piece = None
            self._transport.unregisterProducer()
            self._transport.registerProducer(self._channel, True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Whether the client took something since the last look."""
        if self._sent > self._seen:
            self._seen = self._sent
            self._timer = self._clock.callLater(self._patience, self._look)
            return
        self._timer = None
        self._log.info("dropped a client that took nothing for {seconds:g} s", seconds=self._patience)
        self._transport.abortConnection()


async def send(request: Request, body: IBody, clock: IReactorTime, patience: float) -> None:
    """Send a whole body and finish the request, or abort its connection.

    The one way in which bodies reach clients, whatever they are and wherever they go.  Raises
    what ended the body early, after aborting, or before anything was sent; ClientGone is no
    error but an end.
    """
    sender = FileSender(request, clock, patience) if sendable(request) else None
    stream = ClientStream(request, clock, patience)
    early = clock.callLater(HEADERS_WITHIN, _send_headers, request)
    try:
        while True:
            if sender is not None and IFileBody.providedBy(body):
                piece = await body.piece()
                if piece is not None and in_memory(piece):
                    body.took(await sender.send(piece))
                    continue
            data = await body.read()
            if not data:
                break
            await stream.write(data)
        _check_length(request)
    except ClientGone:
        return
    except BaseException:
        if request.startedWriting:
            stream.abort()
        raise
    finally:
        if early.active():
            early.cancel()
        body.close()
        stream.close()
    request.finish()


def _send_headers(request: Request) -> None:
    if not request.startedWriting:
        request.write(b"")


def _check_length(request: Request) -> None:
    """Raises UpstreamError when the body was not as long as the headers said: the next response would be misread."""
    told = request.responseHeaders.getRawHeaders(b"Content-Length")
    if told is not None and int(told[-1]) != request.sentLength:
        raise UpstreamError(f"a body ended after {request.sentLength} of {int(told[-1])} bytes")

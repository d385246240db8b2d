"""A response body on its way to a client, whatever it is and wherever it goes.

The law: this is the one way in which bodies reach clients.  What lies in a file takes the wire
(`docxy.web.wires`), the rest Twisted's own (`docxy.web.stream`), at any byte of a body; and a body
that cannot be finished ends in an aborted connection.
"""

from __future__ import annotations

import socket as sockets
from contextlib import suppress
from functools import partial
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProducer, IPullProducer, IReactorTime
from twisted.internet.tcp import Connection
from twisted.web.http import Request
from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.streaming import FilePiece, IFileBody
from docxy.upstream.body import IBody
from docxy.web.patience import Patience, socket_of, unsent
from docxy.web.stream import ClientGone, ClientStream, abort
from docxy.web.wires import IWire, NotInMemory, wire_for

HEADERS_WITHIN = 10.0
"""Seconds within which headers leave, with or without a byte of the body: containerd waits for 30 s.  Until
then what goes wrong can still be told in words."""

_CORK: int = getattr(sockets, "TCP_CORK", 0)


@implementer(IPullProducer)
class FileSender:
    """Puts pieces on one client's wire.

    From the first `send` to `leave` this is the socket's producer in the place of the one that was
    there (the HTTP channel, or TLS), which is not to write anything meanwhile.  A socket asks its
    producer for bytes when what was written before is out.
    """

    def __init__(self, request: Request, wire: IWire, clock: IReactorTime, patience: float) -> None:
        """`patience`: seconds; see `docxy.web.patience`."""
        self._request = request
        self._wire = wire
        self._socket = cast(Connection, socket_of(request))
        self._patience = Patience(partial(unsent, request), clock, patience, partial(abort, request))
        self._before: IProducer | None = None
        self._entering = False
        self._room = False
        self._piece: FilePiece | None = None
        self._sent = 0
        self._done: Deferred[int] | None = None

    def send(self, piece: FilePiece) -> Deferred[int]:
        """Send a piece, or as much of it as is in memory; fires with how many bytes were sent.

        Fails with ClientGone, OSError.
        """
        done: Deferred[int] = Deferred(lambda _: self._forget())
        if not self._socket.connected:
            done.errback(ClientGone())
            return done
        self._done, self._piece, self._sent = done, piece, 0
        self._cork(True)
        if self._before is None:
            self._enter()
        self._patience.start()
        if self._room and self._wire.eager:
            self._put()
        else:
            self._socket.startWriting()
        return done

    def leave(self) -> None:
        """Put back the producer that was there; bytes may be written in other ways again."""
        if self._before is not None:
            before, self._before = self._before, None
            self._socket.unregisterProducer()
            self._socket.registerProducer(before, True)

    def _enter(self) -> None:
        if not self._request.startedWriting:
            self._request.write(b"")
        self._before = self._socket.producer
        self._socket.unregisterProducer()
        # Registering asks for bytes at once, when what was written before may not be out yet.
        self._room, self._entering = False, True
        self._socket.registerProducer(self, False)
        self._entering = False

    def resumeProducing(self) -> None:
        """The socket takes more, and nothing waits before us."""
        if not self._entering:
            self._room = True
            self._put()

    def stopProducing(self) -> None:
        """The connection is gone; the socket has let go of us."""
        before, self._before = self._before, None
        self._fail(ClientGone())
        if before is not None:
            before.stopProducing()

    def _put(self) -> None:
        turn = self._sent + self._wire.turn
        while self._piece is not None and self._room and self._sent < turn:
            piece = self._piece
            try:
                took, self._room = self._wire.put(piece)
            except NotInMemory:
                self._succeed()
            except ClientGone as error:
                self._fail(error)
                abort(self._request)
            except OSError as error:
                self._fail(error)
            else:
                self._sent += took
                if took:
                    self._patience.moved()
                self._piece = FilePiece(piece.descriptor, piece.offset + took, piece.count - took)
                if took == piece.count:
                    self._succeed()
        if self._piece is not None:
            self._socket.startWriting()

    def _succeed(self) -> None:
        done, sent = self._done, self._sent
        self._forget()
        self._request.sentLength += sent
        if done is not None:
            done.callback(sent)

    def _fail(self, error: Exception) -> None:
        done = self._done
        self._forget()
        if done is not None and not done.called:
            done.errback(error)

    def _forget(self) -> None:
        self._patience.stop()
        self._piece = self._done = None
        self._cork(False)

    def _cork(self, on: bool) -> None:
        """Let only whole segments leave until the piece is out, the headers with the first of them (tcp(7)).

        A client takes these in less time, and its kernel opens the window sooner.
        """
        # Unix sockets have no segments, and a closed socket is none.
        with suppress(OSError):
            self._socket.getHandle().setsockopt(sockets.IPPROTO_TCP, _CORK, on)


async def send(request: Request, body: IBody, clock: IReactorTime, patience: float) -> None:
    """Send a whole body and finish the request, or abort its connection.

    Raises what ended the body early, after aborting, or before anything was sent; ClientGone is no
    error but an end.
    """
    wire = wire_for(request) if IFileBody.providedBy(body) else None
    sender = None if wire is None else FileSender(request, wire, clock, patience)
    stream = ClientStream(request, clock, patience)
    early = clock.callLater(HEADERS_WITHIN, _send_headers, request)
    try:
        while True:
            if sender is not None:
                piece = await cast(IFileBody, body).piece()
                if piece is not None and (sent := await sender.send(piece)):
                    cast(IFileBody, body).took(sent)
                    continue
                sender.leave()
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
        if sender is not None:
            sender.leave()
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

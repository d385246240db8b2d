"""A response body on its way to a client.

The law: this is the one way in which bodies reach clients.  What lies in a file takes the wire
(`docxy.web.sendfile`), the rest Twisted's own (`docxy.web.client_stream`), at any byte of a body; and a body
that cannot be finished ends in an aborted connection.
"""

from __future__ import annotations

import socket as sockets
from contextlib import suppress
from functools import partial
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProducer, IPullProducer, IReactorTime
from twisted.internet.tcp import Connection
from zope.interface import implementer

from docxy.bodies import IBody, IPieceBody, Piece
from docxy.errors import RegistryError, UpstreamError
from docxy.pull.cache_status import RECALLED
from docxy.pull.gates.cut import CutBody
from docxy.web.channel import Channel
from docxy.web.client_stream import ClientGone, ClientStream, abort, note_stalled
from docxy.web.large_answers import LargeAnswers
from docxy.web.request import LONGEST_ERROR, Pairs, Request
from docxy.web.sendfile import IWire, NotInMemory, Plain, read_at_once, wire_for
from docxy.web.stall_timer import StallTimer, socket_of, unsent

SMALL = 64 * 1024
"""Bytes of a body that is written together with its head."""
MEDIUM = 512 * 1024
"""Bytes that a socket takes at once more often than not."""
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

    def __init__(self, request: Request, wire: IWire, clock: IReactorTime, client_timeout: float) -> None:
        """`client_timeout`: seconds; see `docxy.web.stall_timer`."""
        self._request = request
        self._wire = wire
        self._socket = cast(Connection, socket_of(request))
        self._stall = StallTimer(partial(unsent, request), clock, client_timeout, self._drop)
        self._timeout = client_timeout
        self._before: IProducer | None = None
        self._entering = False
        self._room = False
        self._piece: Piece | None = None
        self._sent = 0
        self._done: Deferred[int] | None = None

    def send(self, piece: Piece) -> Deferred[int]:
        """Send a piece, or as much of it as is in memory; fires with how many bytes were sent.

        Fails with ClientGone.
        """
        done: Deferred[int] = Deferred(lambda _: self._forget())
        if not self._socket.connected:
            done.errback(ClientGone())
            return done
        self._done, self._piece, self._sent = done, piece, 0
        self._cork(True)
        if self._before is None:
            self._enter()
        self._stall.start()
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
            channel = self._request.channel
            if isinstance(channel, Channel) and channel.transport is self._socket:
                channel.drained()
            else:
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

    def _drop(self) -> None:
        note_stalled(self._request, self._timeout)
        abort(self._request)

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
            else:
                self._sent += took
                if took:
                    self._stall.moved()
                self._piece = piece.after(took)
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
        self._stall.stop()
        self._piece = self._done = None
        self._cork(False)

    def _cork(self, on: bool) -> None:
        """Let only whole segments leave until the piece is out, the headers with the first of them (tcp(7)).

        A client takes these in less time, and its kernel opens the window sooner.
        """
        # Unix sockets have no segments, and a closed socket is none.
        with suppress(OSError):
            self._socket.getHandle().setsockopt(sockets.IPPROTO_TCP, _CORK, on)


@frozen
class Sender:
    """Sends bodies to clients, each at its own pace."""

    clock: IReactorTime
    client_timeout: float
    """Seconds a client may take nothing; see `docxy.web.stall_timer`."""
    large: LargeAnswers

    async def answer(self, request: Request, status: int, headers: Pairs, body: bytes) -> None:
        """An answer whose body is in memory.  A large one is not copied for a client that does not read."""
        if len(body) <= SMALL or request.method == b"HEAD":
            request.answer(status, headers, body)
        else:
            request.start(status, headers, len(body))
            await self.send(request, self.large.body(body, partial(abort, request)))

    async def send(self, request: Request, body: IBody) -> None:
        """Send a whole body and finish the request, or abort its connection.

        Raises what ended the body early, after aborting, or before anything was sent; ClientGone is no
        error but an end.
        """
        if isinstance(body, CutBody):
            body.when_cut(partial(_cut, request))
        wire = wire_for(request) if IPieceBody.providedBy(body) else None
        if wire is not None and _at_once(request, cast(IPieceBody, body), wire):
            body.close()
            request.finish()
        else:
            await self._send(request, body, wire)

    async def _send(self, request: Request, body: IBody, wire: IWire | None) -> None:
        sender = None if wire is None else FileSender(request, wire, self.clock, self.client_timeout)
        stream = ClientStream(request, self.clock, self.client_timeout)
        early = self.clock.callLater(HEADERS_WITHIN, _send_headers, request)
        waits = _Waits(request, self.clock)
        try:
            while True:
                if sender is not None:
                    piece = await cast(IPieceBody, body).piece()
                    waits.for_bytes()
                    if piece is not None and (sent := await sender.send(piece)):
                        waits.for_client()
                        cast(IPieceBody, body).took(sent)
                        continue
                    sender.leave()
                data = await body.read()
                waits.for_bytes()
                if not data:
                    break
                await stream.write(data)
                waits.for_client()
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


class _Waits:
    """Notes in turn what one body waited for."""

    def __init__(self, request: Request, clock: IReactorTime) -> None:
        self._request = request
        self._seconds = clock.seconds
        self._since = clock.seconds()
        # Bytes that are cached come from the disk; others arrive from the upstream.
        self._bytes = "disk" if "; hit" in request.cache_status else "upstream"

    def for_bytes(self) -> None:
        """Bytes are here."""
        self._note(self._bytes)

    def for_client(self) -> None:
        """The client took them."""
        self._note("client")

    def _note(self, what: str) -> None:
        now = self._seconds()
        self._request.wait(what, now - self._since)
        self._since = now


def _at_once(request: Request, body: IPieceBody, wire: IWire) -> bool:
    """Send what is here and what the socket takes; whether that was all.

    What goes wrong is met again by what sends the rest.
    """
    piece = body.here()
    if piece is None or piece.count > MEDIUM:
        return False
    if piece.count <= SMALL:
        data = read_at_once(piece)
        if data is None:
            return False
        request.write(data)
        body.took(len(data))
    else:
        channel = request.channel
        if not isinstance(wire, Plain) or not isinstance(channel, Channel) or not channel.is_clear:
            return False
        request.begin()
        try:
            sent, _ = wire.put(piece)
        except (NotInMemory, ClientGone):
            return False
        request.sentLength += sent
        body.took(sent)
    return request.sentLength == request.length


def _cut(request: Request, error: RegistryError) -> None:
    """The body was recalled: end the answer, and note why for the log and the status page."""
    request.error = error.message[:LONGEST_ERROR]
    request.cache_status = str(RECALLED)
    if request.startedWriting:
        abort(request)


def _send_headers(request: Request) -> None:
    if not request.startedWriting:
        request.write(b"")


def _check_length(request: Request) -> None:
    """Raises UpstreamError when the body was not as long as the headers said: the next response would be misread."""
    if request.length is not None and request.length != request.sentLength:
        raise UpstreamError(f"a body ended after {request.sentLength} of {request.length} bytes")

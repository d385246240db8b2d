"""How a part of a file gets to a client's socket without a detour through Twisted's buffers.

The law: only bytes that are in memory are put on a wire, so that no disk holds up the reactor;
what the socket does not take at once waits in its transport, in order with all else that is
written there.

Over plain TCP it is `sendfile(2)`: the bytes never come into this process.  Over TLS the bytes are
read into one buffer, sealed with one call into OpenSSL and written with one to the kernel; Twisted
hands OpenSSL 16 KiB at a time, and takes and copies ciphertext in 32 KiB steps, for about twice
the processor time.
"""

from __future__ import annotations

import os
from typing import ClassVar

from OpenSSL.SSL import Error
from twisted.internet.tcp import Connection
from zope.interface import Attribute, Interface, implementer

from docxy.bodies import FilePiece, MemoryPiece, Piece
from docxy.page_cache import NOWAIT, read_in_memory
from docxy.web.channel import Channel
from docxy.web.client_stream import ClientGone
from docxy.web.request import Request
from docxy.web.stall_timer import socket_of
from docxy.web.tls import TLS

AT_ONCE = 2 * 1024 * 1024
"""Bytes of one `sendfile`."""
SMALL, LARGE = 64 * 1024, 256 * 1024
"""Bytes sealed at a time.  OpenSSL keeps memory of that size for each connection, so only those
that have shown to be fast get the large one."""
FAST = 16 * 1024 * 1024
"""Bytes after which a connection counts as fast: more than the kernel's buffers take for one that stands still."""


class NotInMemory(Exception):
    """The next bytes have to be read from the disk, which may fail."""


class IWire(Interface):
    """A client's socket, as the way of a file's bytes."""

    eager: bool = Attribute(
        "Whether `put` may be called whenever the last one left room; else only when the transport asks for bytes."
    )

    turn: int = Attribute("Bytes after which other clients get their turn.")

    def put(piece: Piece) -> tuple[int, bool]:
        """Take some of a piece: how many bytes, and whether there is room for more now.

        Raises NotInMemory, ClientGone.
        """


def wire_for(request: Request) -> IWire | None:
    """The wire of a request's response; None where only the ordinary producer will do.

    That is for HTTP/1 with a known length, on a socket, with or without docxy's own TLS, where the kernel can
    tell what is in memory.
    """
    channel = request.channel
    if not isinstance(channel, Channel) or request.length is None:
        return None
    transport, socket = channel.transport, socket_of(request)
    if not NOWAIT or socket is None or getattr(socket, "TLS", False):
        return None
    if transport is socket:
        return Plain(socket) if hasattr(os, "sendfile") else None
    if isinstance(transport, TLS):
        return Sealed(transport, socket)
    return None


@implementer(IWire)
class Plain:
    """`sendfile(2)`."""

    eager = True
    turn = AT_ONCE

    def __init__(self, socket: Connection) -> None:
        self._socket = socket

    def put(self, piece: Piece) -> tuple[int, bool]:
        count = min(piece.count, AT_ONCE)
        if isinstance(piece, FilePiece) and not _in_memory(piece.descriptor, piece.offset + count - 1):
            raise NotInMemory
        try:
            if isinstance(piece, MemoryPiece):
                sent = self._socket.getHandle().send(piece.data[:count])
            else:
                sent = os.sendfile(self._socket.fileno(), piece.descriptor, piece.offset, count)
        except BlockingIOError:
            return 0, False
        except ConnectionError as error:
            raise ClientGone from error
        except OSError as error:  # the disk cannot be read here, or no more: `read` finds out, and goes on elsewhere
            raise NotInMemory from error
        if sent == 0:
            raise NotInMemory
        return sent, sent == count


def _in_memory(descriptor: int, offset: int) -> bool:
    """Whether the page cache has a byte; those before it were read along with it or are near it."""
    try:
        return read_in_memory(descriptor, bytearray(1), offset) == 1
    except OSError:
        return False


@implementer(IWire)
class Sealed:
    """TLS, sealed in large pieces.

    Not eager: a record that TLS itself wrote may still wait in the transport, and must go first.
    """

    eager = False
    turn = 1024 * 1024
    _scratch: ClassVar[memoryview] = memoryview(bytearray(LARGE))
    """The file's bytes on their way into OpenSSL; nothing in it outlives one call."""

    def __init__(self, session: TLS, socket: Connection) -> None:
        self._session = session
        self._socket = socket
        self._sealed = 0

    def put(self, piece: Piece) -> tuple[int, bool]:
        count = min(piece.count, SMALL if self._sealed < FAST else LARGE)
        got = count
        if not self._session.connected:
            raise ClientGone
        if isinstance(piece, MemoryPiece):
            self._scratch[:count] = piece.data[:count]
        else:
            try:
                got = read_in_memory(piece.descriptor, self._scratch[:count], piece.offset)
            except OSError as error:
                raise NotInMemory from error
            if got == 0:
                raise NotInMemory
        try:
            records = self._session.seal(self._scratch[:got])
        except Error as error:
            raise ClientGone from error
        self._sealed += got
        try:
            sent = os.write(self._socket.fileno(), records)
        except BlockingIOError:
            sent = 0
        except ConnectionError as error:
            raise ClientGone from error
        if sent < len(records):
            self._socket.write(records[sent:])
        return got, sent == len(records)


def read_at_once(piece: Piece) -> bytes | None:
    """All bytes of a small piece, if they are in memory."""
    if isinstance(piece, MemoryPiece):
        return bytes(piece.data)
    buffer = bytearray(piece.count)
    try:
        got = read_in_memory(piece.descriptor, buffer, piece.offset) if NOWAIT else 0
    except OSError:
        return None
    return bytes(buffer) if got == piece.count else None

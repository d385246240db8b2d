"""Bytes that arrive, and bodies made of other bodies.

The law: a reader never gets the last byte of something that is not what it claims to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from zope.interface import Interface, implementer

from docxy.errors import UpstreamError
from docxy.names import Digest


class EndUntold(UpstreamError):
    """The connection's end is all that ended the body: it may be whole, or cut."""


class IBody(Interface):
    """Bytes that arrive."""

    async def read() -> bytes:
        """The next piece, `b""` at the end.  Raises RegistryError when the rest does not come."""

    def close() -> None:
        """Want no more of it.  May be called twice, and after the end."""


if TYPE_CHECKING:
    from hashlib import _Hash

_READ = 64 * 1024
"""Bytes of a `BytesBody` that are read at a time."""


@frozen
class FilePiece:
    """Bytes that lie in a file."""

    descriptor: int
    """Valid until the body is read from again or closed; only to be used with explicit offsets."""
    offset: int
    count: int

    def after(self, count: int) -> FilePiece:
        """What is left of it behind its first bytes."""
        return FilePiece(self.descriptor, self.offset + count, self.count - count)


@frozen
class MemoryPiece:
    """Bytes that are in memory, perhaps for many."""

    data: memoryview

    @property
    def count(self) -> int:
        return len(self.data)

    def after(self, count: int) -> MemoryPiece:
        """What is left of it behind its first bytes."""
        return MemoryPiece(self.data[count:])


Piece = FilePiece | MemoryPiece


class IPieceBody(IBody):
    """A body that lies in a file or in memory, so that its bytes need not be copied for each reader."""

    def here() -> Piece | None:
        """The next bytes, if they can be had at once; None where `piece` may have to wait."""

    async def piece() -> Piece | None:
        """The next bytes; None at the end, or when they must be read instead.

        Raises as `read` does.
        """

    def took(count: int) -> None:
        """`count` of the piece's bytes were taken."""


@implementer(IPieceBody)
class BytesBody:
    """Bytes that are all there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._position = 0

    async def read(self) -> bytes:
        data = self.data[self._position : self._position + _READ]
        self._position += len(data)
        return data

    def here(self) -> MemoryPiece | None:
        rest = memoryview(self.data)[self._position :]
        return MemoryPiece(rest) if rest else None

    async def piece(self) -> Piece | None:
        return self.here()

    def took(self, count: int) -> None:
        self._position += count

    def close(self) -> None:
        self._position = len(self.data)


@implementer(IBody)
class SizedBody:
    """Exactly `size` bytes of a body, after its first `skip` were thrown away; None: all up to its end."""

    def __init__(self, body: IBody, size: int | None, skip: int = 0, source: str = "the upstream") -> None:
        self._body = body
        self._left = size
        self._skip = skip
        self._source = source

    async def read(self) -> bytes:
        while self._left != 0:
            data = await self._body.read()
            if not data:
                if self._left is None:
                    break
                raise UpstreamError(f"{self._source} ended a body {self._left} bytes early")
            if self._skip:
                skipped = min(self._skip, len(data))
                self._skip -= skipped
                data = data[skipped:]
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            if data:
                return data
        self.close()
        return b""

    def close(self) -> None:
        self._body.close()


@implementer(IBody)
class VerifiedBody:
    """A whole blob whose last byte is held back until all of them hashed to its digest.

    `hasher`: has been given what comes before this body.
    """

    def __init__(self, body: IBody, digest: Digest, source: str, hasher: _Hash | None = None) -> None:
        self._body = body
        self._digest = digest
        self._source = source
        self._hasher = hasher or digest.hasher()
        self._held = b""
        self._ended = False

    async def read(self) -> bytes:
        while not self._ended:
            try:
                data = await self._body.read()
            except EndUntold:
                # What HTTP's framing leaves open, the digest decides.
                data = b""
            if not data:
                return self._verified()
            self._hasher.update(data)
            out, self._held = self._held + data[:-1], data[-1:]
            if out:
                return out
        return b""

    def _verified(self) -> bytes:
        self._ended = True
        if not self._digest.matches(self._hasher):
            raise UpstreamError(f"{self._source} sent bytes that are not {self._digest}")
        return self._held

    def close(self) -> None:
        self._body.close()

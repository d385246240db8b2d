"""Bodies made of other bodies.

The law: a reader never gets the last byte of something that is not what it claims to be.
"""

from __future__ import annotations

from attrs import frozen
from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.names import Digest
from docxy.upstream.body import EndUntold, IBody


@frozen
class FilePiece:
    """Bytes that lie in a file."""

    descriptor: int
    """Valid until the body is read from again or closed; only to be used with explicit offsets."""
    offset: int
    count: int


class IFileBody(IBody):
    """A body that may lie in a file, so that its bytes need not pass through this process."""

    async def piece() -> FilePiece | None:
        """The next bytes as a part of a file; None at the end, or when they must be read instead.

        Raises as `read` does.
        """

    def took(count: int) -> None:
        """So many of the piece's bytes were taken."""


@implementer(IBody)
class BytesBody:
    """Bytes that are all there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._read = False

    async def read(self) -> bytes:
        data = b"" if self._read else self.data
        self._read = True
        return data

    def close(self) -> None:
        self._read = True


@implementer(IBody)
class SizedBody:
    """Exactly `size` bytes of a body, after its first `skip` were thrown away."""

    def __init__(self, body: IBody, size: int, skip: int = 0, source: str = "the upstream") -> None:
        self._body = body
        self._left = size
        self._skip = skip
        self._source = source

    async def read(self) -> bytes:
        while self._left:
            data = await self._body.read()
            if not data:
                raise UpstreamError(f"{self._source} ended a body {self._left} bytes early")
            if self._skip:
                skipped = min(self._skip, len(data))
                self._skip -= skipped
                data = data[skipped:]
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
    """A whole blob whose last byte is held back until all of them hashed to its digest."""

    def __init__(self, body: IBody, digest: Digest, source: str) -> None:
        self._body = body
        self._digest = digest
        self._source = source
        self._hasher = digest.hasher()
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

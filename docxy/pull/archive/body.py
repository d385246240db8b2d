"""The bytes of a planned tar, as they can be had.

The law: one part at a time, at the reader's pace: a layer is asked for when the reader comes to it, by the same
way as any pull's.  What a blob turns out not to be as the manifest says ends the body with an error, never with
other bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from zope.interface import implementer

from docxy.bodies import BytesBody, IBody, IPieceBody, Piece, SizedBody
from docxy.errors import UpstreamError
from docxy.pull.archive.plan import Blob, Plan
from docxy.pull.interfaces import PulledBlob
from docxy.ranges import Range, Span


@implementer(IPieceBody)
class ArchiveBody:
    """A span of a tar."""

    def __init__(self, plan: Plan, span: Span, noted: Callable[[PulledBlob], None]) -> None:
        """`noted`: hears of each blob that is begun."""
        self._parts = plan.within(span.first, span.stop)
        self._noted = noted
        self._body: IBody | None = None
        self._left = 0
        """Bytes that the part's body still has to give."""
        self._what = ""
        self._closed = False

    async def read(self) -> bytes:
        while await self._more():
            assert self._body is not None
            data = await self._body.read()
            if not data:
                raise UpstreamError(f"{self._what} ended {self._left} bytes early")
            self._count(len(data))
            return data
        return b""

    def here(self) -> Piece | None:
        """See `IPieceBody`."""
        return None

    async def piece(self) -> Piece | None:
        """See `IPieceBody`."""
        if not await self._more() or not IPieceBody.providedBy(self._body):
            return None
        return await self._body.piece()

    def took(self, count: int) -> None:
        """See `IPieceBody`."""
        cast(IPieceBody, self._body).took(count)
        self._count(count)

    def close(self) -> None:
        """See `IBody`."""
        self._closed = True
        if self._body is not None:
            self._body.close()

    def _count(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise UpstreamError(f"{self._what} is longer than its manifest says")

    async def _more(self) -> bool:
        """Whether there is more; opens the next part."""
        while not self._left and not self._closed:
            found = next(self._parts, None)
            if found is None:
                return False
            part, first, stop = found
            if self._body is not None:
                self._body.close()
            if isinstance(part, Blob):
                body = await self._blob(part, first, stop)
                if self._closed:
                    body.close()
                    return False
                self._body, self._what = body, str(part.digest)
            else:
                self._body, self._what = BytesBody(part[first:stop]), "a part of the archive"
            self._left = stop - first
        return not self._closed

    async def _blob(self, part: Blob, first: int, stop: int) -> IBody:
        asked = None if (first, stop) == (0, part.size) else Range(first, stop - 1)
        pulled = await part.puller.blob(part.digest, asked)
        span = pulled.span
        if span is None:
            # Of no known length: all of it comes, from its beginning.
            self._noted(pulled)
            return SizedBody(pulled.body, stop - first, first, str(part.digest))
        if span.size != part.size or (span.first, span.stop) != (first, stop):
            pulled.body.close()
            raise UpstreamError(f"{part.digest} has {span.size} bytes, its manifest says {part.size}")
        self._noted(pulled)
        return pulled.body

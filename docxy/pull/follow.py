"""Following a blob: the one way in which clients get cached bytes, committed or still arriving.

The law: a follower moves at its own pace over what may be handed out, and notices nothing
of who writes it.  When the fill is given up it has it started again and goes on where it was;
when the cache fails it goes on with the upstream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.ranges import Span
from docxy.storage.interfaces import IBlobReader, State, StorageError
from docxy.streaming import FilePiece, IFileBody
from docxy.upstream.body import IBody

PIECE = 256 * 1024
"""Bytes handed to a client at a time."""
RESTARTS = 3
"""How often in a row a fill may be started again without a byte of progress."""

Reopen = Callable[[], Awaitable[IBlobReader | None]]
"""The same blob again, its fill started anew if need be; None: it can only be had directly."""
Direct = Callable[[Span], Awaitable[IBody]]
"""A part of the blob straight from the upstream."""


@implementer(IFileBody)
class Following:
    """One client's way through a blob."""

    def __init__(self, reader: IBlobReader, span: Span, reopen: Reopen, direct: Direct) -> None:
        self._reader = reader
        self._position = span.first
        self._span = span
        self._reopen = reopen
        self._direct = direct
        self._restarts = 0
        self._rest: IBody | None = None
        self._closed = False

    async def read(self) -> bytes:
        while await self._more():
            data = await self._some()
            if data:
                self.took(len(data))
                return data
        return b""

    async def piece(self) -> FilePiece | None:
        """See `IFileBody`."""
        if not await self._more() or self._rest is not None:
            return None
        descriptor = self._reader.fileno()
        if descriptor is None:
            return None
        there = min(self._reader.readable, self._span.stop) - self._position
        return FilePiece(descriptor, self._position, there)

    def took(self, count: int) -> None:
        """See `IFileBody`."""
        self._position += count
        self._restarts = 0

    async def _more(self) -> bool:
        """Whether there is more; waits until some of it can be had."""
        while self._position < self._span.stop and not self._closed:
            reader = self._reader
            if self._rest is not None or reader.readable > self._position:
                return True
            if reader.state is State.CANCELLED:
                raise UpstreamError(f"the bytes of {reader.digest} were not what they should be; they were withdrawn")
            if reader.state is State.RELEASED:
                await self._restart()
            elif reader.state is State.VERIFIED:
                raise UpstreamError(f"{reader.digest} is shorter than it was announced")
            else:
                await reader.changed()
        return False

    async def _some(self) -> bytes:
        """Bytes at our position; empty when the cache failed and the upstream goes on instead."""
        if self._rest is not None:
            data = await self._rest.read()
            if not data:
                raise UpstreamError("the upstream ended a blob early")
            return data
        try:
            return await self._reader.read(self._position, min(PIECE, self._span.stop - self._position))
        except StorageError:
            await self._go_direct()
            return b""

    async def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > RESTARTS:
            raise UpstreamError(f"{self._reader.digest} cannot be had from the upstream at the moment")
        self._reader.close()
        reader = await self._reopen()
        if reader is None:
            await self._go_direct()
        elif self._closed:
            reader.close()
        else:
            self._reader = reader

    async def _go_direct(self) -> None:
        self._reader.close()
        rest = await self._direct(Span(self._position, self._span.stop, self._span.size))
        if self._closed:
            rest.close()
        self._rest = rest

    def close(self) -> None:
        self._closed = True
        self._reader.close()
        if self._rest is not None:
            self._rest.close()

"""Following a blob: the one way in which clients get cached bytes, committed or still arriving.

The law: a follower moves at its own pace over what may be handed out, and notices nothing
of who writes it.  A range that begins far behind what is there is fetched first (`docxy.pull.blobs.far`).  When the
fill is given up it has it started again and goes on where it was; when the cache fails, or the process that
fills stands still, it goes on with the upstream.  What it puts together is one blob: where the bytes come from
somewhere else, those before are compared or hashed with them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.logger import Logger
from zope.interface import implementer

from docxy.bodies import FilePiece, IBody, IPieceBody
from docxy.errors import RegistryError, UpstreamError
from docxy.names import Digest
from docxy.pull.blobs.far import Far
from docxy.pull.blobs.followers import Followers
from docxy.pull.blobs.rest import is_whole
from docxy.ranges import Span
from docxy.storage.interfaces import IBlobReader, State, StorageError

PIECE = 256 * 1024
"""Bytes handed to a client at a time."""
RESTARTS = 3
"""How often in a row a fill may be started again without a byte of progress; then the upstream goes on."""

Reopen = Callable[[int], Awaitable[IBlobReader | None]]
"""From a position on, the same blob again, its fill started anew if need be; None: it can only be had directly."""
Direct = Callable[[IBlobReader, int], Awaitable[IBody]]
"""The rest from a position on, straight from the upstream; the reader has what came before."""


@implementer(IPieceBody)
class Following:
    """One client's way through a blob."""

    _log = Logger()

    def __init__(
        self,
        reader: IBlobReader,
        span: Span | None,
        reopen: Reopen,
        direct: Direct,
        far: Far | None,
        followers: Followers,
    ) -> None:
        """`span`: None for all of a blob whose size is not known yet.  `far`: None where it is not to be asked for.

        `followers`: it is one of them until it is closed.
        """
        self._far = far
        self._reader = reader
        self._span = span
        self._position = 0 if span is None else span.first
        self._stop = None if span is None else span.stop
        self._reopen = reopen
        self._direct = direct
        self._restarts = 0
        self._rest: IBody | None = None
        self._closed = False
        self._followers = followers
        followers.add(self)

    @property
    def digest(self) -> Digest:
        return self._reader.digest

    @property
    def still_arrives(self) -> bool:
        """See `docxy.pull.blobs.followers`; what comes past the cache arrives for this client alone."""
        return self._rest is None and self._reader.state is not State.VERIFIED

    async def read(self) -> bytes:
        while await self._more():
            data = await self._some()
            if data:
                self.took(len(data))
                return data
        return b""

    async def piece(self) -> FilePiece | None:
        """See `IPieceBody`."""
        return self.here() if await self._more() else None

    def here(self) -> FilePiece | None:
        """See `IPieceBody`."""
        if self._closed or self._rest is not None:
            return None
        stop = self._reader.readable if self._stop is None else min(self._reader.readable, self._stop)
        there = stop - self._position
        descriptor = self._reader.fileno() if there > 0 else None
        return None if descriptor is None else FilePiece(descriptor, self._position, there)

    def took(self, count: int) -> None:
        """See `IPieceBody`."""
        self._position += count
        self._restarts = 0

    async def _more(self) -> bool:
        """Whether there is more; waits until some of it can be had."""
        while self._position != self._stop and not self._closed:
            reader = self._reader
            if self._rest is not None or reader.readable > self._position:
                return True
            if reader.state is State.WRONG:
                raise UpstreamError(f"the upstream sent bytes that are not {reader.digest}; none of them are kept")
            if reader.state in (State.RELEASED, State.WITHDRAWN):
                await self._restart()
            elif reader.state is State.STALLED:
                await self._go_direct("the process that fetches it stands still")
            elif reader.state is State.VERIFIED:
                if self._stop is None:
                    self._stop = self._position
                    return False
                raise UpstreamError(f"{reader.digest} is shorter than it was announced")
            elif self._far is None:
                await reader.changed()
            elif self._far.has(self._position):
                return True
            elif self._far.goes_past(reader.readable, self._position):
                await self._go_past(self._far)
            else:
                await self._far.changed(reader.changed())
        return False

    async def _some(self) -> bytes:
        """Bytes at our position; empty at the end, and when the upstream goes on instead of the cache."""
        if self._rest is not None:
            data = await self._rest.read()
            if not data:
                if self._stop is not None:
                    raise UpstreamError("the upstream ended a blob early")
                self._stop = self._position
            return data
        most = PIECE if self._stop is None else min(PIECE, self._stop - self._position)
        if self._far is not None and self._reader.readable <= self._position:
            return await self._far.read(self._position, most)
        try:
            return await self._reader.read(self._position, most)
        except StorageError as error:
            await self._go_direct(str(error))
            return b""

    async def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > RESTARTS:
            # Fills end for many reasons, a cache that cannot keep anything among them; the upstream may be well.
            await self._go_direct(f"its fetch was given up {RESTARTS} times without a byte")
            return
        old, reader = self._reader, await self._reopen(self._position)
        if reader is None:
            await self._go_direct("it cannot be cached")
        elif self._closed:
            reader.close()
        elif await self._goes_on(old, reader):
            old.close()
            self._reader = reader
        else:
            reader.close()
            if not self._closed:
                await self._go_direct("its fetch began anew")

    async def _goes_on(self, old: IBlobReader, new: IBlobReader) -> bool:
        """Whether the new one has the bytes that were handed out of the old one: a whole blob must be of one piece.

        Nor is it what was promised where it is of another size: its last byte would not be the one that is withheld.
        """
        if self._span is not None and new.size != self._span.size:
            return False
        if not is_whole(self._span) or not self._position or new.same(old):
            return True
        try:
            while new.readable < self._position and new.state is State.FILLING and not self._closed:
                await new.changed()
            if self._closed or new.readable < self._position:
                return False
            before, after = await old.hashed(self._position), await new.hashed(self._position)
        except StorageError:
            return False
        return before.digest() == after.digest()

    async def _go_direct(self, why: str) -> None:
        digest = self._reader.digest
        self._log.warn(
            "{digest}: {why}; going on with the upstream at byte {at}", digest=digest, why=why, at=self._position
        )
        self._go_on_with(await self._direct(self._reader, self._position))

    async def _go_past(self, far: Far) -> None:
        try:
            rest = await self._direct(self._reader, self._position)
        except RegistryError as error:
            self._log.info(
                "{digest}: byte {at} cannot be had before the fill is there: {error}",
                digest=self._reader.digest,
                at=self._position,
                error=error,
            )
            far.give_up()
        else:
            self._go_on_with(rest)

    def _go_on_with(self, rest: IBody) -> None:
        self._reader.close()
        if self._closed:
            rest.close()
        self._rest = rest

    def close(self) -> None:
        self._closed = True
        self._followers.remove(self)
        self._reader.close()
        if self._rest is not None:
            self._rest.close()

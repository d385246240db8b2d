"""A body that can be cut while it is on its way, because what it is was recalled.

The law: *not a byte more is handed out after the cut*: a reader that waits gets the error at once, and a sender
that has bytes of it on the wire is called, to end that itself.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from docxy.bodies import IBody, IPieceBody, Piece
from docxy.errors import RegistryError

T = TypeVar("T")


@implementer(IBody)
class CutBody:
    """A body of bytes that are read."""

    def __init__(self, body: Any, ended: Callable[[CutBody], object]) -> None:
        """`ended`: called when nobody wants more of it."""
        self._body = body
        self._ended = ended
        self._error: RegistryError | None = None
        self._waiting: Deferred[Any] | None = None
        self._told: Callable[[RegistryError], object] = lambda error: None

    def when_cut(self, told: Callable[[RegistryError], object]) -> None:
        """Have `told` called with the error when it is cut: for bytes that are on a wire already."""
        self._told = told

    def cut(self, error: RegistryError) -> None:
        """Hand out no more of it."""
        if self._error is not None:
            return
        self._error = error
        waiting, self._waiting = self._waiting, None
        self._body.close()
        if waiting is not None:
            waiting.cancel()
        self._told(error)

    def read(self) -> Coroutine[Any, Any, bytes]:
        return self._unless_cut(self._body.read)

    def close(self) -> None:
        self._body.close()
        self._ended(self)

    async def _unless_cut(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._error is not None:
            raise self._error
        waiting = self._waiting = Deferred.fromCoroutine(work())
        try:
            outcome: T = await waiting
            return outcome
        except CancelledError:
            if self._error is not None:
                raise self._error from None
            raise
        finally:
            self._waiting = None


@implementer(IPieceBody)
class CutPieces(CutBody):
    """One whose bytes lie in a file or in memory."""

    def here(self) -> Piece | None:
        return None if self._error is not None else self._here()

    def _here(self) -> Piece | None:
        piece: Piece | None = self._body.here()
        return piece

    async def piece(self) -> Piece | None:
        piece = self.here()
        return await self._unless_cut(self._body.piece) if piece is None else piece

    def took(self, count: int) -> None:
        self._body.took(count)


def cuttable(body: IBody, ended: Callable[[CutBody], object]) -> CutBody:
    """A body of the same kind that can be cut."""
    return (CutPieces if IPieceBody.providedBy(body) else CutBody)(body, ended)

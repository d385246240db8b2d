"""Large answers that are in memory while they are sent: manifests, listings, small blobs.

The law: all of them together have a bound.  Beyond it the clients that have taken nothing for longest are
dropped: who reads is not, as long as fewer bytes than that are on their way to clients that read.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from twisted.logger import Logger
from zope.interface import implementer

from docxy.bodies import BytesBody, IPieceBody, MemoryPiece

BUDGET = 32 * 1024 * 1024
"""Bytes in one process; what several clients are sent counts once."""
PIECE = 512 * 1024
"""Bytes of one that are sent at a time."""


class LargeAnswers:
    """Those of one process."""

    _log = Logger()

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._sent: OrderedDict[LargeBody, Callable[[], object]] = OrderedDict()
        """What drops each client, that which has taken nothing for longest first."""
        self._shared: Counter[int] = Counter()
        """By the identity of the bytes, to how many clients they are sent."""
        self.size = 0
        """Bytes."""

    def body(self, data: bytes, drop: Callable[[], object]) -> LargeBody:
        """These bytes for one client; `drop`: ends its connection.  It must be closed."""
        body = LargeBody(data, self)
        self._sent[body] = drop
        if not self._shared[id(data)]:
            self.size += len(data)
        self._shared[id(data)] += 1
        while self.size > self._budget and len(self._sent) > 1:
            slowest, end = next(iter(self._sent.items()))
            self.closed(slowest)
            self._log.info("a client that did not take its answer was dropped: too many large ones are in memory")
            end()
        return body

    def moved(self, body: LargeBody) -> None:
        """Its client took some of it."""
        if body in self._sent:
            self._sent.move_to_end(body)

    def closed(self, body: LargeBody) -> None:
        """It is sent, or nobody wants it any more."""
        if self._sent.pop(body, None) is None:
            return
        self._shared[id(body.data)] -= 1
        if not self._shared[id(body.data)]:
            del self._shared[id(body.data)]
            self.size -= len(body.data)


@implementer(IPieceBody)
class LargeBody(BytesBody):
    """One client's."""

    def __init__(self, data: bytes, among: LargeAnswers) -> None:
        BytesBody.__init__(self, data)
        self._among = among

    async def read(self) -> bytes:
        self._among.moved(self)
        return await BytesBody.read(self)

    def here(self) -> MemoryPiece | None:
        piece = BytesBody.here(self)
        return None if piece is None else MemoryPiece(piece.data[:PIECE])

    def took(self, count: int) -> None:
        self._among.moved(self)
        BytesBody.took(self, count)

    def close(self) -> None:
        BytesBody.close(self)
        self._among.closed(self)

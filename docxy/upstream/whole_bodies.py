"""Bodies that are read whole into memory: manifests and listings.

The law: of one upstream only `LARGE_AT_ONCE` that may be large are read at the same time, however many clients
ask; the others wait for their turn, small ones for nobody.
"""

from __future__ import annotations

from twisted.internet.defer import DeferredSemaphore

from docxy.upstream.response import Response

SMALL = 64 * 1024
"""Bytes of a body that waits for no other."""
LARGE_AT_ONCE = 4


class WholeBodies:
    """Those of one upstream."""

    def __init__(self) -> None:
        self._turns = DeferredSemaphore(LARGE_AT_ONCE)

    async def read(self, response: Response, limit: int) -> bytes:
        """The whole body, at most `limit` bytes.  Raises UpstreamError."""
        if response.length is not None and response.length <= SMALL:
            return await response.read(limit)
        try:
            await self._turns.acquire()
        except BaseException:
            response.abandon()
            raise
        try:
            return await response.read(limit)
        finally:
            self._turns.release()

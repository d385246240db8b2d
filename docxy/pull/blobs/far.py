"""A client's way to bytes of a range that the fill has not reached.

The law: *a range is never fetched for one client alone.*  Where the fill runs in this process, its bytes
are asked for before their turn and go into the blob too (`docxy.pull.blobs.ahead`).  Where another process fills,
they are fetched beside it, few enough that the upstream hardly sends more than the blob.

A range cannot be checked before the whole is.  A short one has the blob's last byte too: it is what a reader here
and there begins with.  A long one that goes to the end is most likely the rest of a whole blob, and waits for its last
byte until that is verified.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field
from twisted.internet.defer import Deferred

from docxy.names import Digest
from docxy.pull.blobs.ahead import MOST, NEAR, Part
from docxy.pull.blobs.extra import ExtraConnections
from docxy.pull.blobs.fills import Fills
from docxy.ranges import Range, Span
from docxy.storage.interfaces import IBlobWriter, StorageError


@define(eq=False)
class Far:
    """One client's."""

    _fills: Fills
    _digest: Digest
    _span: Span
    _extra: ExtraConnections
    """Knows whether the upstream can be asked for parts now."""
    _stop: int = field(init=False)
    """Where the bytes end that may go out before the blob is verified."""
    _part: Part | None = field(init=False, default=None)
    _off: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        span = self._span
        self._stop = span.stop - (span.stop == span.size and span.stop - span.first > MOST)

    def has(self, position: int) -> bool:
        """Whether the byte at a position is here though the fill is not; has it fetched where that is worth while."""
        ahead = self._fills.ahead(self._digest, self._span.size)
        self._part = None if ahead is None or self._off else ahead.want(position, self._span.stop)
        return self._part is not None and position < min(self._part.end, self._stop)

    async def read(self, position: int, most: int) -> bytes:
        """Bytes at a position that are here; none where they are not any more."""
        part = self._part
        if part is None or not part.first <= position < part.end:
            return b""
        try:
            return await part.here(position, min(most, self._stop - position))
        except StorageError:
            self._off = not part.closed  # what the fill has taken over is in the blob
            return b""

    def goes_past(self, readable: int, position: int) -> bool:
        """Whether to fetch the range beside the fill of another process, which has `readable` bytes."""
        return (
            not self._off
            and position >= readable + NEAR
            and self._extra.may
            and self._fills.may_pass(self._digest, self._span.stop - position, self._span.size)
        )

    def give_up(self) -> None:
        """Follow the fill from now on."""
        self._off, self._part = True, None

    async def changed(self, fill: Deferred[None]) -> None:
        """Until `fill` fires, or more bytes of the range are here."""
        waits = [fill]
        ahead = self._fills.ahead(self._digest, self._span.size)
        if self._part is not None:
            waits.append(self._part.changed())
        elif ahead is not None:
            waits.append(ahead.changed())
        await _first_of(waits)


async def _first_of(waits: Sequence[Deferred[None]]) -> None:
    """Until one of them fires; the others are cancelled, and so are all if the caller is."""
    fired: Deferred[None] = Deferred()

    def tell(_: object) -> None:
        if not fired.called:
            fired.callback(None)

    for each in waits:
        each.addBoth(tell)
    try:
        await fired  # a DeferredList would take being cancelled for an answer
    finally:
        for each in waits:
            each.cancel()


def wanted_first(asked: Range | None, writer: IBlobWriter, size: int | None) -> Range | None:
    """The range to begin a fill with; None where it begins at its next byte.

    `size`: of the blob in bytes, where it is known.
    """
    if asked is None or (asked.first is None and not asked.last):
        return None
    if asked.first is None and size is None:
        return asked if (asked.last or 0) <= MOST else None
    first = asked.first if asked.first is not None else max(0, (size or 0) - (asked.last or 0))
    last = asked.last if asked.first is not None else None
    if first < writer.offset + NEAR or (size is not None and first >= size) or (last is not None and last < first):
        return None
    most = first + MOST - 1
    return Range(first, most if last is None else min(last, most))

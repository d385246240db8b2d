"""`verify`: read and hash all that is cached.

The laws: *who only looks removes nothing*; one blob is read at a time, and where a docxy serves from the same disk
there is a rest as long as the work after each piece.  What was hashed is noted: a run that was interrupted is
taken up by asking only for what was not hashed since.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from docxy.names import Digest
from docxy.steward.inventory import Inventory, Taking
from docxy.steward.lines import Arguments, Failed, Lines, done, item, progress
from docxy.steward.steward import Steward
from docxy.storage.interfaces import StorageError

_LONGEST = 5.0
"""Seconds of a rest, at most."""


class _Rest:
    """Pauses as long as the work before took."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since = clock.seconds()

    async def __call__(self) -> None:
        worked = self._clock.seconds() - self._since
        await deferLater(self._clock, max(0.0, min(worked, _LONGEST)), lambda: None)
        self._since = self._clock.seconds()


async def verify(steward: Steward, arguments: Arguments) -> Lines:
    """An item for each blob that is damaged or missing; `repair`: remove it, so that the next pull fetches it again.

    `older`: seconds; leave out what was hashed since.  Bytes.
    """
    repair, older = arguments.flag("repair"), arguments.number("older")
    taking = Taking(steward)
    async for line in taking.lines():
        yield line
    inventory = taking.inventory
    before = None if older is None else steward.clock.seconds() - older
    blobs = [blob for blob in inventory.blobs.values() if before is None or blob.checked < before]
    blobs.sort(key=lambda blob: blob.checked)
    total, read, good, bad = sum(blob.size for blob in blobs), 0, 0, 0
    rest = None if steward.view is None else _Rest(steward.clock)
    for blob in blobs:
        yield progress(read, total, "hashing", "B")
        try:
            checked = await steward.store.survey.check(blob.digest, steward.clock.seconds(), rest)
            if checked is not None and checked.passed:
                good += 1
            elif checked is not None or not await _evicted(steward, blob.digest):
                bad += 1
                found = "missing" if checked is None else "damaged"
                why = "its file is gone" if checked is None else checked.why
                yield item(
                    digest=str(blob.digest), size=blob.size, found=found, why=why, images=_of(inventory, blob.digest)
                )
                if repair:
                    await steward.store.delete(blob.digest)
                    await steward.forget([blob.digest])
        except StorageError as error:
            raise Failed(str(error)) from None
        read += blob.size
    yield progress(total, total, "hashing", "B")
    yield done(
        blobs=good + bad,
        bytes=total,
        damaged=bad,
        repaired=bad if repair else 0,
        skipped=len(inventory.blobs) - len(blobs),
    )


async def _evicted(steward: Steward, digest: Digest) -> bool:
    """Whether a file is gone because the blob is, by now."""
    return not await steward.store.survey.is_counted(digest)


def _of(inventory: Inventory, digest: Digest) -> list[str]:
    """The images that lead to a blob."""
    return [root.image for root in inventory.roots if digest in inventory.reach([root])][:20]

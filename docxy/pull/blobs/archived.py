"""Blobs that come from the archive, as answers that a fill takes.

The law: *the archive is asked before the registry, and the registry vouches for it.*  That a repository has a blob is
the registry's to say, as ever.  While it does not answer, a manifest that it served under this repository is its
word.  Where the archive breaks off, the fill goes on with the registry at the byte; bytes of it that turn out wrong
are removed there.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from docxy.archive.calm import CalmArchive
from docxy.archive.interfaces import Found
from docxy.bodies import IBody
from docxy.names import Digest
from docxy.ranges import Span
from docxy.storage.interfaces import IBlobReader, State, StorageError
from docxy.storage.ledger import Ledger
from docxy.upstream.blob_response import BlobResponse

SOURCE = "the archive"


@frozen
class ArchiveAnswer:
    """What a fill needs of a response."""

    found: Found
    source: str = SOURCE

    def body(self) -> IBody:
        return self.found.body

    def header(self, name: str) -> str | None:
        """None: there are no headers."""
        return None

    def abandon(self) -> None:
        self.found.body.close()


class ArchivedBlobs:
    """What is behind one cache."""

    _log = Logger()

    def __init__(self, archive: CalmArchive, ledger: Ledger) -> None:
        self.archive = archive
        self._ledger = ledger

    async def open(self, digest: Digest, first: int, size: int | None) -> BlobResponse | None:
        """The blob's bytes from `first` on; None: they cannot be had.  `size`: as a manifest lists it."""
        if digest.is_of_nothing:
            return None
        found = await self.archive.open(digest, first)
        if found is None:
            return None
        if size not in (None, found.size):
            # A manifest may be wrong too: nothing is removed for what it says.
            found.body.close()
            return None
        return BlobResponse(ArchiveAnswer(found), Span(first, found.size, found.size))

    def watch(self, reader: IBlobReader, end: Deferred[None] | None) -> None:
        """A fill goes on that began with the archive; `reader`: of it, closed here; `end`: of it, None: it was."""
        Deferred.fromCoroutine(self._watch(reader, end)).addErrback(
            lambda failure: self._log.failure("a fill from the archive is not noted", failure)
        )

    async def _watch(self, reader: IBlobReader, end: Deferred[None] | None) -> None:
        try:
            if end is not None:
                await end
            state = reader.state
        finally:
            reader.close()
        if state is State.VERIFIED:
            await self._note(reader.digest, archived=True)
        elif state is State.WRONG:
            await self.archive.wrong(reader.digest)

    async def _note(self, digest: Digest, archived: bool) -> None:
        try:
            await self._ledger.note(digest, archived)
        except StorageError as error:
            self._log.warn("{digest}: what the archive has is not noted: {error}", digest=digest, error=error)

"""Blobs in files of one directory, which any number of processes may share.

The law: what is there is what the files say (`docxy.storage.paths`); who owns a fill, what the locks
say (`docxy.storage.files`); how much there is, what the index says (`docxy.storage.index`).
Looking up, opening and locking a file is done on the reactor's thread, for it costs less than
going to another; everything that moves bytes or counts them is done in threads.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from docxy.names import Digest
from docxy.storage import check as checks
from docxy.storage import disk, files
from docxy.storage.committed import CommittedSizes
from docxy.storage.counts import Counts
from docxy.storage.disk import explained
from docxy.storage.eviction import Eviction
from docxy.storage.files import Claim
from docxy.storage.fill_file import FillFile
from docxy.storage.index import Index, IndexDamaged
from docxy.storage.interfaces import (
    BlobStat,
    IBlobReader,
    IBlobStore,
    IScratch,
    Joined,
    Pinned,
    StorageError,
)
from docxy.storage.ledger import Ledger
from docxy.storage.paths import Tree
from docxy.storage.remembered import Remembered
from docxy.storage.scratch import FileScratch, unnamed_file
from docxy.storage.shares import USUAL, Shares
from docxy.storage.survey import StoreSurvey
from docxy.storage.upkeep import Upkeep
from docxy.storage.uses import Uses
from docxy.storage.view import BlobView, FileReader
from docxy.storage.views import BlobViews
from docxy.storage.writing import FileWriter
from docxy.threads import InThread, shielded

P = ParamSpec("P")
T = TypeVar("T")

_PAGE = 500


@implementer(IBlobStore)
class FilesystemStore:
    """`start` before anything else, and after any fork; `stop` in the end.

    `budget`: bytes that the directory may take on the disk, with its databases; `shares`: of it.
    """

    _log = Logger()

    def __init__(
        self,
        directory: str,
        budget: int,
        clock: IReactorTime,
        in_thread: InThread,
        shares: Shares = USUAL,  # it never changes
    ) -> None:
        self._tree = Tree(os.path.abspath(directory))
        self._index = Index(self._tree)
        self.counts = Counts()
        self._remembered = Remembered(self._index, int(budget * shares.history), clock.seconds)
        self._eviction = Eviction(self._tree, self._index, self._remembered, shares.large, budget, self.counts)
        self._clock = clock
        self._in_thread = in_thread
        self._upkeep = Upkeep(self._tree.directory, self._index, in_thread)
        self._indexed, self._do = self._upkeep.indexed, self._upkeep.do
        self.survey = StoreSurvey(self._tree, self._index, self._indexed)
        self.ledger = Ledger(self._index, self._indexed)
        self._uses = Uses(clock, lambda uses: self._do(self._indexed(self._index.touch, uses)))
        self._sizes = CommittedSizes(self._tree, self._index, self._upkeep, self._uses, in_thread)
        self._views = BlobViews(self._tree, self._index, self._sizes, self._upkeep, clock, in_thread, self.delete)

    # -- life

    def start(self) -> None:
        """Open the cache; takes no longer for a full one.  Raises StorageError."""
        with explained("use", self._tree.directory):
            self._tree.create()
            if not os.access(self._tree.incoming_directory, os.W_OK | os.X_OK):
                raise StorageError(f"cannot write to {self._tree.directory}")
        with explained("share files with other processes (flock) in", self._tree.directory):
            files.must_lock(self._tree.index_lock)
        try:
            self._index.open()
        except IndexDamaged as error:
            self._upkeep.mend(error)
        else:
            self._do(self._indexed(self._index.tidy))
            self._do(self._indexed(self._eviction.trim))

    async def stop(self) -> None:
        """Write down what is to be kept.  Readers and writers must have ended."""
        self._uses.flush()
        await self._upkeep.ended()
        self._index.close()

    async def used(self) -> int:
        """Bytes of the directory on the disk, with all that is reserved for fills, of all processes."""
        return await self._indexed(self._eviction.used)

    async def free(self) -> int:
        """Bytes that the disk has free, after a block was written to it.  Raises StorageError."""
        with explained("look at", self._tree.directory):
            return await self._in_thread(self._eviction.free)

    # -- IBlobStore

    async def stat(self, digest: Digest) -> BlobStat | None:
        return await self._in_thread(self._index.stat, digest, self._uses.last(digest))

    def touch(self, digest: Digest) -> None:
        self._uses.note(digest)

    def remember(self, digest: Digest, until: float, parts: Sequence[Digest]) -> None:
        self._do(self._indexed(self._remembered.put, digest, until, parts))

    def belongs(self, digest: Digest, parts: Sequence[Digest]) -> None:
        self._do(self._indexed(self._remembered.add, digest, parts))

    async def open(self, digest: Digest) -> IBlobReader | None:
        view = self._views.known(digest) or await self._views.committed(digest) or self._views.followed(digest)
        # What was a fill at the first look may have its final name at the second.
        view = view or await self._views.committed(digest)
        return None if view is None else await self._read(view)

    async def _read(self, view: BlobView) -> IBlobReader:
        reader = self._reader(view)
        self.touch(view.digest)
        if view.size is None and view.watch is not None and not view.owned:
            try:
                await view.watch.learn_size()
            except BaseException:
                reader.close()
                raise
        return reader

    async def join(self, digest: Digest) -> Joined:
        reader = await self.open(digest)
        if reader is not None:
            return Joined(reader, None)
        return await shielded(self._join(digest), abandoned=self._abandon)

    def _abandon(self, joined: Joined) -> None:
        joined.reader.close()
        if joined.writer is not None:
            self._do(joined.writer.release())

    async def _join(self, digest: Digest) -> Joined:
        joined = await self._indexed(files.join, self._tree, digest, self._index.kept)
        if isinstance(joined, Claim):
            self.touch(digest)
            writer = self._write(digest, joined)
            return Joined(writer.open(), writer)
        view = self._views.known(digest)  # another join in this process may have come first
        if view is not None:
            os.close(joined.view)
        elif joined.size is not None:
            view = self._views.whole(digest, joined.view, joined.size)
        else:
            view = self._views.filled(digest, joined.view)
        return Joined(await self._read(view), None)

    def _reader(self, view: BlobView) -> FileReader:
        return FileReader(view, self._in_thread)

    def _write(self, digest: Digest, claim: Claim) -> FileWriter:
        return FileWriter(
            view=self._views.claimed(digest, claim),
            file=FillFile(digest, claim.owner),
            tree=self._tree,
            index=self._index,
            eviction=self._eviction,
            in_thread=self._indexed,
            clock=self._clock,
            reader=self._reader,
            renew=self._views.renew,
            uses=self._uses.take,
            now=self._uses.now,
        )

    async def pin(self, digests: Sequence[Digest]) -> Pinned:
        return await self._indexed(self._eviction.pin, digests)

    async def delete(self, digest: Digest) -> bool:
        path = self._tree.blob(digest)

        def unlink() -> bool:
            with explained("remove", path):
                return disk.unlink(path)

        return await self._indexed(self._index.remove, digest, unlink)

    async def scratch(self) -> IScratch:
        directory = self._tree.incoming_directory
        with explained("write to", directory):
            return FileScratch(await self._in_thread(unnamed_file, self._tree), directory, self._in_thread)

    async def list(self) -> AsyncIterator[BlobStat]:
        after = ""
        while True:
            page = await self._indexed(self._page, after)
            if not page:
                return
            for digest, blob in page:
                if blob is not None:
                    yield blob
                after = str(digest)

    def _page(self, after: str) -> Sequence[tuple[Digest, BlobStat | None]]:
        """In a thread: some blobs that the index knows; None for one whose file is not there."""
        return [(digest, self._index.stat(digest, 0.0)) for digest in self._index.page(after, _PAGE)]

    # -- checking, for the scrubber and for operators

    async def next_check(self, before: float) -> Digest | None:
        """A blob that was last checked before this time (seconds since the epoch), the oldest check first.

        It counts as checked from now on, so that no other process checks it too.
        """
        return await self._indexed(self._index.claim_check, self._clock.seconds(), before)

    async def verify(self, digest: Digest, pause: Callable[[], Awaitable[None]] | None = None) -> bool | None:
        """Whether a committed blob still hashes to its digest; None when it is not there.

        One that does not, or cannot be read, is deleted, so that it is fetched again.  `pause` is
        awaited between pieces.  Raises StorageError when it cannot be deleted.
        """
        path = self._tree.blob(digest)
        checked = await checks.run(digest, path, self._in_thread, pause)
        if checked is None:
            return None
        self.counts.scrub(checked.passed)
        if checked.passed:
            return True
        self._log.error("{path} is damaged ({why}): deleted", path=path, why=checked.why)
        await self.delete(digest)
        return False

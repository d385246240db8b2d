"""Blobs in files of one directory, which any number of processes may share.

The law: what is there is what the files say (`docxy.storage.paths`); who owns a fill, what the locks
say (`docxy.storage.files`); how much there is, what the index says (`docxy.storage.index`).
Looking up, opening and locking a file is done on the reactor's thread, for it costs less than
going to another; everything that moves bytes or counts them is done in threads.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.names import Digest
from docxy.storage import files
from docxy.storage.body import Body, FileReader
from docxy.storage.check import Check
from docxy.storage.files import Claim, explained
from docxy.storage.following import Watch
from docxy.storage.index import Index, IndexDamaged
from docxy.storage.interfaces import (
    BlobMissing,
    BlobStat,
    IBlobReader,
    IBlobStore,
    IBlobWriter,
    IScratch,
    State,
    StorageError,
    WriterBusy,
)
from docxy.storage.paths import Tree
from docxy.storage.scratch import FileScratch, unnamed_file
from docxy.storage.threads import InThread, shielded
from docxy.storage.writing import FileWriter, Fill

P = ParamSpec("P")
T = TypeVar("T")

FLUSH_INTERVAL = 5.0
"""Seconds within which a use is written down."""

_LOOKS = 10
"""A file may be renamed or evicted between two looks at it, but not again and again."""

_PAGE = 500


@implementer(IBlobStore)
class FilesystemStore:
    """`start` before anything else, and after any fork; `stop` in the end.

    `budget`: bytes that blobs and fills may have together.  `in_thread` calls its first argument
    with the others in a thread and gives a Deferred of the outcome.
    """

    _log = Logger()

    def __init__(self, directory: str, budget: int, clock: IReactorTime, in_thread: InThread) -> None:
        self._tree = Tree(os.path.abspath(directory))
        self._index = Index(self._tree, budget)
        self._clock = clock
        self._in_thread = in_thread
        self._bodies: dict[Digest, Body] = {}
        self._uses: dict[Digest, float] = {}
        self._last_use = 0.0
        self._flush: IDelayedCall | None = None
        self._background: set[Deferred[None]] = set()
        self._rebuilding = False

    # -- life

    def start(self) -> None:
        """Open the cache; takes no longer for a full one.  Raises StorageError."""
        with explained("use", self._tree.directory):
            self._tree.create()
            if not os.access(self._tree.incoming_directory, os.W_OK | os.X_OK):
                raise StorageError(f"cannot write to {self._tree.directory}")
        try:
            self._index.open()
        except IndexDamaged as error:
            self._mend(error)
        else:
            self._do(self._indexed(self._index.tidy))
            self._do(self._indexed(self._index.trim))

    async def stop(self) -> None:
        """Write down what is to be kept.  Readers and writers must have ended."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._do(self._indexed(self._index.touch, self._take_uses()))
        while self._background:
            await DeferredList(self._background)
        self._index.close()

    async def used(self) -> int:
        """Bytes of all blobs and of all that is reserved for fills, of all processes."""
        return await self._indexed(self._index.used)

    # -- IBlobStore

    async def stat(self, digest: Digest) -> BlobStat | None:
        return await self._in_thread(self._stat, digest, self._uses.get(digest, 0.0))

    def _stat(self, digest: Digest, used: float) -> BlobStat | None:
        """In a thread."""
        path = self._tree.blob(digest)
        with explained("look at", path):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                return None
        noted = self._index.last_used(digest)
        return BlobStat(digest, found.st_size, max(used, found.st_mtime if noted is None else noted))

    def touch(self, digest: Digest) -> None:
        self._uses[digest] = self._now()
        if self._flush is None:
            self._flush = self._clock.callLater(FLUSH_INTERVAL, self._write_uses)

    async def open(self, digest: Digest) -> IBlobReader:
        for _ in range(_LOOKS):
            body = self._known(digest) or await self._committed(digest) or self._followed(digest)
            if body is None:
                # What was a fill at the first look may have its final name at the second.
                if os.path.exists(self._tree.blob(digest)):
                    continue
                break
            reader = self._reader(body)
            self.touch(digest)
            if body.size is None and body.watch is not None and not body.owned:
                try:
                    await body.watch.learn_size()
                except BaseException:
                    reader.close()
                    raise
            return reader
        raise BlobMissing(f"{digest} is not in {self._tree.directory}")

    def _reader(self, body: Body) -> FileReader:
        return FileReader(body, self._in_thread)

    def _known(self, digest: Digest) -> Body | None:
        """The Body that this process has already, if it still is what a newcomer should read."""
        body = self._bodies.get(digest)
        if body is None or body.state is State.CANCELLED:
            return None
        if body.owned:
            return body
        body.hold()  # what the look tells its readers may make them close it
        try:
            if body.watch is not None:
                body.watch.look()
            if body.state is not State.FILLING:
                path = self._tree.blob(digest)
                with explained("look at", path):
                    here = files.names(path, os.fstat(body.descriptor))
                if body.state is not State.VERIFIED or not here:
                    return None
        finally:
            body.let_go()
        return None if body.closed else body

    async def _committed(self, digest: Digest) -> Body | None:
        path = self._tree.blob(digest)
        with explained("read", path):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            try:
                if not files.try_lock(descriptor, fcntl.LOCK_SH):
                    # Somebody evicts it, or gave it this name just now: either takes a moment.
                    await shielded(self._lock(os.dup(descriptor)))
                found = os.fstat(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        if not found.st_nlink:
            os.close(descriptor)
            return None
        known = self._known(digest)  # another open may have come first while this one waited
        if known is not None:
            os.close(descriptor)
            return known
        return self._add(Body(digest, descriptor, found.st_size, found.st_size, State.VERIFIED, self._forget))

    async def _lock(self, descriptor: int) -> None:
        """The lock is shared by all duplicates of a descriptor."""
        try:
            await self._in_thread(fcntl.flock, descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def _followed(self, digest: Digest) -> Body | None:
        """A fill that another process is at, if there is one."""
        path = self._tree.incoming(digest)
        with explained("read", path):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
        if files.try_lock(descriptor, fcntl.LOCK_SH):  # nobody writes it
            os.close(descriptor)
            return None
        return self._watched(Body(digest, descriptor, None, 0, State.FILLING, self._forget))

    def _watched(self, body: Body) -> Body:
        body.watch = Watch(body, self._tree, self._index, self._clock, self._in_thread)
        return self._add(body)

    def _add(self, body: Body) -> Body:
        self._bodies[body.digest] = body
        return body

    def _forget(self, body: Body) -> None:
        if self._bodies.get(body.digest) is body:
            del self._bodies[body.digest]

    async def write(self, digest: Digest) -> IBlobWriter:
        body = self._bodies.get(digest)
        if body is not None and body.owned:
            raise WriterBusy(f"{digest} is being written")
        return await shielded(self._claim(digest), abandoned=lambda writer: self._do(writer.release()))

    async def _claim(self, digest: Digest) -> FileWriter:
        claim = await self._indexed(files.claim, self._tree, digest, self._index.announced)
        body = self._bodies.get(digest)
        found = os.fstat(claim.view)
        if body is not None and body.identity == (found.st_dev, found.st_ino):
            os.close(claim.view)
            body.owned = True
            body.hold()
            if body.watch is not None:
                body.watch.stop()
            body.update(size=claim.size, written=claim.kept, state=State.FILLING)
        else:
            body = self._renew(digest, claim)
            body.hold()
        return FileWriter(
            body=body,
            fill=Fill(digest, claim.owner),
            tree=self._tree,
            index=self._index,
            in_thread=self._indexed,
            reader=self._reader,
            renew=self._renew,
            uses=self._take_uses,
            now=self._now,
        )

    def _renew(self, digest: Digest, claim: Claim) -> Body:
        body = Body(digest, claim.view, claim.size, claim.kept, State.FILLING, self._forget)
        return self._watched(body)

    async def delete(self, digest: Digest) -> bool:
        path = self._tree.blob(digest)

        def unlink() -> bool:
            with explained("remove", path):
                return files.unlink(path)

        return await self._indexed(self._index.remove, digest, unlink)

    async def scratch(self) -> IScratch:
        directory = self._tree.incoming_directory
        with explained("write to", directory):
            return FileScratch(await self._in_thread(unnamed_file, directory), directory, self._in_thread)

    async def list(self) -> AsyncIterator[BlobStat]:
        after = ""
        while True:
            page = await self._indexed(self._page, after)
            if not page:
                return
            for stat, here in page:
                if here:
                    yield stat
            after = str(page[-1][0].digest)

    def _page(self, after: str) -> Sequence[tuple[BlobStat, bool]]:
        """In a thread: some rows, and whether the file of each is there."""
        return [(stat, os.path.exists(self._tree.blob(stat.digest))) for stat in self._index.page(after, _PAGE)]

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
        checked = await shielded(self._check(digest, path), abandoned=lambda check: check.close() if check else None)
        if checked is None:
            return None
        try:
            while await self._in_thread(checked.go_on):
                if pause is not None:
                    await pause()
        finally:
            self._do(self._in_thread(checked.close))  # after the piece that a thread may be at
        if checked.passed:
            return True
        self._log.error("{path} is damaged ({why}): deleted", path=path, why=checked.why)
        await self.delete(digest)
        return False

    async def _check(self, digest: Digest, path: str) -> Check | None:
        with explained("check", path):
            try:
                return await self._in_thread(Check, digest, path)
            except FileNotFoundError:
                return None

    # -- book-keeping

    def _now(self) -> float:
        """Seconds since the epoch, never the same twice: the order of uses must be clear."""
        self._last_use = max(self._clock.seconds(), self._last_use + 1e-6)
        return self._last_use

    def _write_uses(self) -> None:
        self._flush = None
        self._do(self._indexed(self._index.touch, self._take_uses()))

    def _take_uses(self) -> dict[Digest, float]:
        uses, self._uses = self._uses, {}
        return uses

    def _indexed(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """As `in_thread`; an index that turns out to be damaged is mended meanwhile."""

        def failed(reason: Failure) -> Failure:
            if isinstance(reason.value, IndexDamaged):
                self._mend(reason.value)
            return reason

        return self._in_thread(work, *args, **kwargs).addErrback(failed)

    def _mend(self, error: IndexDamaged) -> None:
        """Count all files in a thread.  Hits go on; nothing new is kept until it is done."""
        if self._rebuilding:
            return
        self._rebuilding = True
        self._log.warn("counting the blobs in {path} anew: {error}", path=self._tree.directory, error=error)

        def counted(outcome: bool | Failure) -> bool | Failure:
            self._rebuilding = False
            if outcome is True:
                self._log.info("counted the blobs in {path}", path=self._tree.directory)
            return outcome

        self._do(self._in_thread(self._index.rebuild).addBoth(counted))

    def _do(self, work: Deferred[T] | Coroutine[Any, Any, T]) -> None:
        """Let work run that nobody waits for."""
        running = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)

        def done(outcome: object) -> None:
            self._background.discard(noted)
            if isinstance(outcome, Failure):
                self._log.error(
                    "upkeep of {path} failed: {error}", path=self._tree.directory, error=outcome.getErrorMessage()
                )

        noted: Deferred[None] = Deferred()
        self._background.add(noted)
        running.addBoth(done).chainDeferred(noted)

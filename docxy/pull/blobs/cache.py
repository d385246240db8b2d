"""Cached blobs of one upstream: hit, join and miss are one path.

The law: *one fill a digest, any number of followers.*  A blob is shown under a repository
only after the upstream served it under that repository; who may read the repository is
decided before anyone comes here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from docxy.bodies import BytesBody, IBody
from docxy.catalog.interfaces import IHeld
from docxy.errors import AccountRefused, RangeInvalid, TooManyRequests, UpstreamError
from docxy.names import Digest
from docxy.observe.trail import Fetched, begun_by, collecting
from docxy.pull.blobs.again import Source, resume_from
from docxy.pull.blobs.archived import ArchivedBlobs
from docxy.pull.blobs.far import Far, wanted_first
from docxy.pull.blobs.fills import Fills
from docxy.pull.blobs.follow import Following
from docxy.pull.blobs.parallel import Parallel
from docxy.pull.blobs.rest import is_whole, rest_of
from docxy.pull.blobs.resuming import Resuming
from docxy.pull.blobs.sizes import Sizes, believed, believed_size
from docxy.pull.blobs.touched import TouchedBlobs
from docxy.pull.cache_status import ARCHIVED, BYPASS, HIT, CacheStatus
from docxy.pull.caller import Caller
from docxy.pull.direct import direct_blob
from docxy.pull.interfaces import PulledBlob
from docxy.pull.refusals import RecentRefusals
from docxy.pull.rights.offline_tokens import only_cached
from docxy.pull.witness import listing
from docxy.ranges import Range, Span
from docxy.single_flight import SingleFlight
from docxy.storage.interfaces import IBlobReader, IBlobStore, IBlobWriter, State, StorageError
from docxy.storage.memory_cache import SMALL, MemoryCache
from docxy.upstream.blob_response import BlobResponse
from docxy.upstream.remote import Remote

_COLLAPSED = CacheStatus(fwd="miss", collapsed=True)
_STORED = CacheStatus(fwd="miss", stored=True)
"""Of a miss, fetched or confirmed: that the bytes are here already is another repository's business."""


@frozen
class Opened:
    """What asking the upstream for a blob came to."""

    reader: IBlobReader | None
    """Must be closed; None: the blob cannot be cached."""
    status: CacheStatus
    fetched: Fetched | None = None
    """How it is fetched; None where this process fetches nothing."""

    def again(self) -> Opened:
        """The same for another client."""
        return self if self.reader is None else evolve(self, reader=self.reader.again())

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()


MAX_OPENING = 1_000
"""Blobs of one upstream that are asked for and have no answer yet, whether or not their clients still wait; more go
past the cache, and end with their clients."""
_DIRECT = Opened(None, BYPASS)


class BlobCache:
    """Blobs of one upstream, in a store that may be shared with others."""

    _log = Logger()

    def __init__(
        self,
        remote: Remote,
        store: IBlobStore,
        recent: MemoryCache,
        held: IHeld,
        fills: Fills,
        parallel: Parallel | None,
        resuming: Resuming,
        archived: ArchivedBlobs | None,
        touched: TouchedBlobs | None,
        seconds: Callable[[], float],
    ) -> None:
        """`parallel`: adds connections to those of large blobs; `archived`: asked before the upstream.

        `touched`: serves ranges without a fill; None: they begin one.  `seconds`: the time since the epoch.
        """
        self._archived = archived
        self._touched = touched
        self.sizes = Sizes()
        """What manifests list, to be told of each that is served."""
        self._parallel = parallel
        self._resuming = resuming
        self._remote = remote
        self._store = store
        self._recent = recent
        self._held = held
        self._fills = fills
        self._opening: SingleFlight[tuple[str, Digest, str], Opened] = SingleFlight(Opened.again, Opened.close)
        self._refusals: RecentRefusals[tuple[str, Digest, str]] = RecentRefusals(seconds)

    async def blob(self, repository: str, digest: Digest, asked: Range | None, caller: Caller) -> PulledBlob:
        """The blob or a range of it."""
        data = self._recent.get(digest) if await self._held.blob(repository, digest) else None
        if data is not None:
            return _in_memory(data, asked)
        if self._touched is not None and asked is not None and not caller.cached_only:
            source, size = self._source(repository, digest, caller), self.sizes.get(repository, digest)
            pulled = await self._touched.blob(repository, digest, asked, size, source, caller)
            if pulled is not None:
                return pulled
        opened = await self._reader(repository, digest, caller, asked)
        if opened.reader is not None and opened.status == HIT and (opened.reader.size or 0) <= SMALL:
            opened.close()
            data = await self._recent.load(digest)
            if data is not None:
                return _in_memory(data, asked)
            # It was damaged, and is dropped; or it cannot be read.
            opened = await self._reader(repository, digest, caller, asked)
        reader, status = opened.reader, opened.status
        if reader is None:
            return await direct_blob(self._source(repository, digest, caller), digest, asked, self._resuming)
        try:
            size = reader.size
            # Without a size a range has no correct answer, and the whole is one.
            span = None if size is None else Span(0, size, size) if asked is None else asked.within(size)
        except BaseException:
            reader.close()
            raise

        async def reopen(position: int) -> IBlobReader | None:
            rest = None if far is None or span is None else Range(position, span.stop - 1)
            again = await self._reader(repository, digest, caller, rest)
            if opened.fetched is not None:
                opened.fetched.goes_on(again.fetched)
            return again.reader

        async def direct(reader: IBlobReader, position: int) -> IBody:
            if caller.cached_only:
                raise only_cached(str(digest))
            return await rest_of(self._source(repository, digest, caller), reader, span, position, self._resuming)

        far = None
        if self._parallel is not None and span is not None and not is_whole(span) and not caller.cached_only:
            far = Far(self._fills, digest, span, self._parallel.extra)
        body = Following(reader, span, reopen, direct, far, self._fills.followers)
        return PulledBlob(span, body, status, fetched=opened.fetched)

    async def size(self, repository: str, digest: Digest, caller: Caller) -> tuple[int | None, CacheStatus]:
        """How long the blob is; never downloads it."""
        if await self._held.blob(repository, digest):
            try:
                reader = await self._open_readable(digest)
            except StorageError:
                reader = None
            if reader is not None:
                reader.close()
                return reader.size, HIT
        if caller.cached_only:
            raise only_cached(str(digest))
        told = await self._remote.blob_size(repository, digest, caller.authorization)
        self._held.hold_blob(repository, digest)
        return believed_size(told, digest, self.sizes.get(repository, digest)), CacheStatus(fwd="miss")

    async def prefetch(self, repository: str, digest: Digest, caller: Caller) -> Deferred[None] | None:
        """Start filling a blob that is not there; its end, where this process fills it."""
        (await self._reader(repository, digest, caller)).close()
        return self._fills.end(digest)

    async def stop(self) -> None:
        """End what asks the upstream for blobs that are not there."""
        await self._opening.stop()

    async def _reader(self, repository: str, digest: Digest, caller: Caller, asked: Range | None = None) -> Opened:
        """A reader of a blob that this repository holds, as `_shown`, or none.

        `asked`: what a fill begins with that begins now.
        """
        if await self._held.blob(repository, digest):
            try:
                found = await self._store.open(digest)
                reader = None if found is None else await _shown(found)
            except StorageError as error:
                self._log.error("the cache cannot be read: {error}", error=error)
                if caller.cached_only:
                    raise only_cached(str(digest)) from error
                return _DIRECT
            if found is not None and found.state is State.STALLED and reader is None and not caller.cached_only:
                # Waited for long enough: to join it would be to wait as long again.
                return _DIRECT
            if reader is not None:
                if not caller.cached_only:
                    self._fills.join(digest, self._source(repository, digest, caller))
                if reader.state is State.VERIFIED:
                    return Opened(reader, HIT)
                return Opened(reader, _COLLAPSED, self._fills.fetched(digest))
        if caller.cached_only:
            raise only_cached(str(digest))
        key = (repository, digest, caller.credential)
        joined = key in self._opening
        if not joined and len(self._opening) >= MAX_OPENING:
            return _DIRECT
        self._refusals.check(key)
        try:
            opened = await self._opening.do(key, lambda: self._open(repository, digest, caller, asked))
        except TooManyRequests as error:
            self._refusals.note(key, error)
            raise
        if opened.reader is None or (reader := await _shown(opened.reader)) is None:
            return _DIRECT
        if joined:
            self._fills.join(digest, self._source(repository, digest, caller))
        return Opened(reader, _COLLAPSED if joined else opened.status, opened.fetched)

    async def _open_readable(self, digest: Digest) -> IBlobReader | None:
        """A reader as `_shown`; None when there is neither a blob nor a live fill."""
        reader = await self._store.open(digest)
        return None if reader is None else await _shown(reader)

    async def _open(self, repository: str, digest: Digest, caller: Caller, asked: Range | None) -> Opened:
        """Make the blob readable under this repository: ask the upstream, and fill if nobody does."""
        if self._fills.failed_lately(digest):
            return _DIRECT
        try:
            joined = await self._store.join(digest)
        except StorageError as error:
            self._log.error("{digest} is not cached: {error}", digest=digest, error=error)
            return _DIRECT
        try:
            if joined.writer is not None:
                if self._fills.is_full:
                    joined.reader.close()
                    await joined.writer.release()
                    return _DIRECT
                fetched = Fetched(begun_by(), (self._remote.name, repository))
                with collecting(fetched):
                    return await self._start(repository, joined.reader, joined.writer, caller, fetched, asked)
            return await self._confirm(repository, joined.reader, caller)
        except BaseException:
            joined.reader.close()
            raise

    async def _confirm(self, repository: str, reader: IBlobReader, caller: Caller) -> Opened:
        """The bytes are here or on their way; that this repository has them is the upstream's to say.

        Somebody's fill of them may be about to find that out.
        """
        digest = reader.digest
        shown = await _shown(reader)
        if await self._held.blob(repository, digest, latest=True):
            return Opened(shown, _COLLAPSED) if shown is not None else _DIRECT
        await self._remote.blob_size(repository, digest, caller.authorization)
        self._held.hold_blob(repository, digest)
        if shown is None:
            return _DIRECT
        self._fills.join(digest, self._source(repository, digest, caller))
        return Opened(shown, _STORED)

    async def _start(
        self,
        repository: str,
        reader: IBlobReader,
        writer: IBlobWriter,
        caller: Caller,
        fetched: Fetched,
        asked: Range | None,
    ) -> Opened:
        digest = writer.digest
        source = self._source(repository, digest, caller)
        parallel, status = self._parallel, _STORED
        try:
            try:
                answer = await self._from_archive(repository, writer, caller)
                if answer is None:
                    answer = await self._first(source, repository, writer, asked)
                else:
                    parallel, status = None, ARCHIVED
                    fetched.archived = True
            except RangeInvalid:
                # What was kept of it is more than there is: it can't be right.
                await writer.discard()
                reader.close()
                reader = writer.open()
                answer = await source(None)
        except BaseException:
            reader.close()
            await writer.release()
            raise
        self._held.hold_blob(repository, digest)
        try:
            # Other processes look there once they see the fill grow.
            await self._held.flushed()
            if answer.span is not None:
                await writer.announce(answer.span.size)
        except BaseException as error:
            answer.response.abandon()
            await writer.release()
            reader.close()
            if not isinstance(error, StorageError):
                raise
            self._log.warn("{digest} is not cached: {error}", digest=digest, error=error)
            self._fills.failed(digest)
            return _DIRECT
        if reader.state is State.WITHDRAWN:  # what was kept was of another size
            reader.close()
            reader = writer.open()
        self._fills.start(writer, source, answer, parallel, (self._remote.name, repository), fetched)
        if status is ARCHIVED and self._archived is not None:
            self._archived.watch(reader.again(), self._fills.end(digest))
        return Opened(reader, status, fetched)

    async def _from_archive(self, repository: str, writer: IBlobWriter, caller: Caller) -> BlobResponse | None:
        """The archive's answer, where the upstream says that this repository has the blob; None: there is none.

        Raises what the upstream says.
        """
        if self._archived is None:
            return None
        digest, asked = writer.digest, resume_from(writer)
        listed = self.sizes.get(repository, digest)
        first = 0 if asked is None else asked.first or 0
        answer = await self._archived.open(digest, first, listed)
        if answer is None or await self._held.blob(repository, digest, latest=True):
            return answer
        try:
            told = await self._remote.blob_size(repository, digest, caller.authorization)
        except (UpstreamError, TooManyRequests) as error:
            # Who may read the repository was decided before; that it has the blob, a manifest of it says.
            if isinstance(error, AccountRefused) or not (
                listed is not None or await listing(self._held, self._recent, repository, digest)
            ):
                answer.response.abandon()
                raise
            return answer
        except BaseException:
            answer.response.abandon()
            raise
        if listed is None and answer.span is not None and told not in (None, 0, answer.span.size):
            # One of them is wrong: the digest decides, of what the upstream sends.
            answer.response.abandon()
            return None
        return answer

    async def _first(self, source: Source, repository: str, writer: IBlobWriter, asked: Range | None) -> BlobResponse:
        """What a fill begins with: a range that its client waits for, if that is far from what is here."""
        size = self.sizes.get(repository, writer.digest) or writer.size
        wanted = None
        if self._parallel is not None and self._parallel.extra.may:
            wanted = wanted_first(asked, writer, size)
        if wanted is not None:
            with suppress(RangeInvalid):  # the client's mistake, as the size will show
                return await source(wanted)
        return await source(resume_from(writer))

    def _source(self, repository: str, digest: Digest, caller: Caller) -> Source:
        async def ask(asked: Range | None) -> BlobResponse:
            answer = await self._remote.blob(repository, digest, asked, caller.authorization)
            return believed(answer, self.sizes.get(repository, digest))

        return ask


async def _shown(reader: IBlobReader) -> IBlobReader | None:
    """The reader once its size or its first byte can be shown to a client.

    None, and it is closed, when that will not be.  A size of 0 is shown when it is verified: there is
    no last byte to hold back.  Of bytes that turned out wrong this client has seen none yet: it is
    served past the cache, for they may be the last fetch's and not what the upstream sends now.
    """
    try:
        while reader.state is State.FILLING and not (reader.size or reader.readable):
            await reader.changed()
    except BaseException:
        reader.close()
        raise
    if reader.state is not State.WRONG and (reader.size or reader.readable or reader.state is State.VERIFIED):
        return reader
    reader.close()
    return None


def _in_memory(data: bytes, asked: Range | None) -> PulledBlob:
    """All of a blob or a range of it; raises RangeInvalid."""
    span = Span(0, len(data), len(data)) if asked is None else asked.within(len(data))
    return PulledBlob(span, BytesBody(data[span.first : span.stop]), HIT)

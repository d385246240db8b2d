"""Cached blobs of one upstream: hit, join and miss are one path.

The law: *one fill a digest, any number of followers.*  A blob is shown under a repository
only after the upstream served it under that repository; who may read the repository is
decided before anyone comes here.
"""

from __future__ import annotations

import enum

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from docxy.errors import RangeInvalid, TooManyRequests, UpstreamError
from docxy.flight import SingleFlight
from docxy.names import Digest
from docxy.pull.direct import direct_blob
from docxy.pull.fill import Fills, Source, resume_from
from docxy.pull.follow import Following
from docxy.pull.interfaces import PulledBlob
from docxy.pull.limits import Limits
from docxy.pull.passes import only_cached
from docxy.pull.status import BYPASS, HIT, MISS, CacheStatus
from docxy.pull.wide import Widener
from docxy.ranges import Range, Span
from docxy.storage.interfaces import BlobMissing, IBlobReader, IBlobStore, IBlobWriter, State, StorageError, WriterBusy
from docxy.storage.recent import SMALL, Recent
from docxy.storage.records import UpstreamCatalog
from docxy.streaming import BytesBody
from docxy.upstream.body import IBody
from docxy.upstream.remote import BlobResponse, Remote

ROUNDS = 20
"""How often opening a blob may find that another writer came or went meanwhile."""


class Opened(enum.Enum):
    """What opening a blob came to."""

    STARTED = "started"  # a fill was started
    JOINED = "joined"  # somebody else's asking showed that it is there
    CONFIRMED = "confirmed"  # the bytes were here; the upstream said that this repository has them too
    AGAIN = "again"  # what was kept of it was dropped
    DIRECT = "direct"  # it can't be cached


_COLLAPSED = CacheStatus(fwd="miss", collapsed=True)
_STATUS = {
    Opened.STARTED: CacheStatus(fwd="miss", stored=True),
    Opened.JOINED: _COLLAPSED,
    Opened.CONFIRMED: MISS,
}


class BlobCache:
    """Blobs of one upstream, in a store that may be shared with others."""

    _log = Logger()

    def __init__(
        self,
        remote: Remote,
        store: IBlobStore,
        recent: Recent,
        catalog: UpstreamCatalog,
        fills: Fills,
        widener: Widener | None = None,
    ) -> None:
        """`widener`: adds connections to those of large blobs."""
        self._widener = widener
        self._remote = remote
        self._store = store
        self._recent = recent
        self._catalog = catalog
        self._fills = fills
        self._opening: SingleFlight[tuple[str, Digest, str], Opened] = SingleFlight()
        self._limits: Limits[tuple[str, Digest, str]] = Limits(catalog.whole.seconds)

    async def blob(
        self,
        repository: str,
        digest: Digest,
        asked: Range | None,
        authorization: str | None,
        credential: str,
        cached_only: bool = False,
    ) -> PulledBlob:
        """The blob or a range of it; `cached_only`: the upstream cannot be asked in this client's name."""
        data = self._recent.get(digest) if self._catalog.holds_blob(repository, digest) else None
        if data is not None:
            return _in_memory(data, asked)
        reader, status = await self._reader(repository, digest, authorization, credential, cached_only)
        if reader is None:
            return await direct_blob(self._remote, repository, digest, asked, authorization, BYPASS)
        try:
            size = reader.size
            assert size is not None
            if size <= SMALL and status == HIT and (data := await self._recent.load(digest)) is not None:
                reader.close()
                return _in_memory(data, asked)
            span = Span(0, size, size) if asked is None else asked.within(size)
        except BaseException:
            reader.close()
            raise

        async def reopen() -> IBlobReader | None:
            return (await self._reader(repository, digest, authorization, credential, cached_only))[0]

        async def direct(rest: Span) -> IBody:
            if cached_only:
                raise only_cached(str(digest))
            wanted = Range(rest.first, rest.stop - 1)
            pulled = await direct_blob(self._remote, repository, digest, wanted, authorization, BYPASS)
            if pulled.span != rest:
                pulled.body.close()
                raise UpstreamError(f"the upstream cannot send {rest} of {digest}")
            return pulled.body

        return PulledBlob(span, Following(reader, span, reopen, direct), status)

    async def size(
        self, repository: str, digest: Digest, authorization: str | None, credential: str, cached_only: bool = False
    ) -> tuple[int | None, CacheStatus]:
        """How long the blob is; never downloads it."""
        if self._catalog.holds_blob(repository, digest):
            try:
                reader = await self._open_readable(digest)
            except StorageError:
                reader = None
            if reader is not None:
                reader.close()
                return reader.size, HIT
        if cached_only:
            raise only_cached(str(digest))
        size = await self._remote.blob_size(repository, digest, authorization)
        self._catalog.hold(repository, digest)
        return size, CacheStatus(fwd="miss")

    async def prefetch(
        self, repository: str, digest: Digest, authorization: str | None, credential: str
    ) -> Deferred[None] | None:
        """Start filling a blob that is not there; its end, where this process fills it."""
        reader, _ = await self._reader(repository, digest, authorization, credential, cached_only=False)
        if reader is not None:
            reader.close()
        return self._fills.end(digest)

    async def _reader(
        self, repository: str, digest: Digest, authorization: str | None, credential: str, cached_only: bool
    ) -> tuple[IBlobReader | None, CacheStatus]:
        """A reader whose size is known, of a blob this repository holds; None: only to be had directly."""
        asked: CacheStatus | None = None
        for _ in range(ROUNDS):
            try:
                opened = await self._open_readable(digest)
            except StorageError as error:
                self._log.error("the cache cannot be read: {error}", error=error)
                if cached_only:
                    raise only_cached(str(digest)) from error
                return None, BYPASS
            if opened is not None:
                # What the upstream just said holds even if the catalog could not keep it.
                if asked is not None or self._catalog.holds_blob(repository, digest):
                    if not cached_only:
                        self._fills.join(digest, self._source(repository, digest, authorization))
                    return opened, asked or (HIT if opened.state is State.VERIFIED else _COLLAPSED)
                opened.close()
            if cached_only:
                raise only_cached(str(digest))
            key = (repository, digest, credential)
            joined = key in self._opening
            self._limits.check(key)
            try:
                outcome = await self._opening.do(key, lambda: self._open(repository, digest, authorization))
            except TooManyRequests as error:
                self._limits.note(key, error)
                raise
            if outcome is Opened.DIRECT:
                return None, BYPASS
            if outcome is not Opened.AGAIN:
                asked = _COLLAPSED if joined else _STATUS[outcome]
        raise UpstreamError(f"{digest} cannot be opened at the moment")

    async def _open_readable(self, digest: Digest) -> IBlobReader | None:
        """A reader once its size is known; None when there is neither a blob nor a live fill."""
        try:
            reader = await self._store.open(digest)
        except BlobMissing:
            return None
        try:
            while reader.size is None and reader.state is State.FILLING:
                await reader.changed()
        except BaseException:
            reader.close()
            raise
        if reader.size is None or reader.state in (State.RELEASED, State.CANCELLED):
            reader.close()
            return None
        return reader

    async def _open(self, repository: str, digest: Digest, authorization: str | None) -> Opened:
        """Make the blob readable under this repository: ask the upstream, and fill if nobody does."""
        if self._fills.failed_lately(digest):
            return Opened.DIRECT
        source = self._source(repository, digest, authorization)
        try:
            writer = await self._store.write(digest)
        except WriterBusy:
            # The bytes are there or on their way; that this repository has them is the upstream's to say.
            return await self._confirm(repository, digest, authorization)
        except StorageError as error:
            self._log.error("{digest} is not cached: {error}", digest=digest, error=error)
            return Opened.DIRECT
        return await self._start(repository, writer, source)

    async def _confirm(self, repository: str, digest: Digest, authorization: str | None) -> Opened:
        """That the upstream has the blob under this repository; not asked while someone's fill finds it out."""
        try:
            reader = await self._open_readable(digest)
        except StorageError:
            reader = None
        if reader is not None:
            reader.close()
        if self._catalog.holds_blob(repository, digest):
            return Opened.JOINED
        await self._remote.blob_size(repository, digest, authorization)
        self._catalog.hold(repository, digest)
        return Opened.CONFIRMED

    async def _start(self, repository: str, writer: IBlobWriter, source: Source) -> Opened:
        digest = writer.digest
        try:
            answer = await source(resume_from(writer))
        except RangeInvalid:
            # What was kept of it is more than there is: it can't be right.
            await writer.cancel()
            return Opened.AGAIN
        except BaseException:
            await writer.release()
            raise
        self._catalog.hold(repository, digest)
        try:
            if answer.span is None:
                raise StorageError(f"{answer.response.source} does not say how long it is")
            await writer.announce(answer.span.size)
        except BaseException as error:
            answer.response.abandon()
            await writer.release()
            if not isinstance(error, StorageError):
                raise
            self._log.warn("{digest} is not cached: {error}", digest=digest, error=error)
            self._fills.failed(digest)
            return Opened.DIRECT
        self._fills.start(writer, source, answer, self._widener)
        return Opened.STARTED

    def _source(self, repository: str, digest: Digest, authorization: str | None) -> Source:
        async def ask(asked: Range | None) -> BlobResponse:
            return await self._remote.blob(repository, digest, asked, authorization)

        return ask


def _in_memory(data: bytes, asked: Range | None) -> PulledBlob:
    """All of a blob or a range of it; raises RangeInvalid."""
    span = Span(0, len(data), len(data)) if asked is None else asked.within(len(data))
    return PulledBlob(span, BytesBody(data[span.first : span.stop]), HIT)

"""A fill: one upstream's bytes into one writer, over every failure on the way.

The law: *the fill owns itself.*  No client starts it twice, slows it or ends it.  When the
upstream breaks off it goes on from the last byte, with backoff, by whichever client's
right still holds; when it cannot, what is there stays for the next one to resume.  Bytes
that turn out wrong are withdrawn, never completed.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from docxy.bodies import EndUntold, IBody
from docxy.errors import RangeInvalid, RegistryError, TooManyRequests, UpstreamError
from docxy.names import Digest
from docxy.observe.tracing import ISpan
from docxy.observe.trail import Fetched
from docxy.pull.blobs.again import ATTEMPTS, Source, resume_from, sends_parts
from docxy.pull.blobs.ahead import Ahead, Demands
from docxy.pull.blobs.backoff import Backoff
from docxy.pull.blobs.parallel import Parallel, ParallelBody
from docxy.pull.blobs.running import Running
from docxy.ranges import Range, Span
from docxy.storage.interfaces import DigestMismatch, IBlobReader, IBlobWriter, NoSpace, StorageError
from docxy.upstream.blob_response import BlobResponse

MAX_SOURCES = 16


class WrongBytes(Exception):
    """What the upstream sends is not what it sent before."""


class Fill:
    """Runs until the blob is committed, or given up."""

    _log = Logger()

    def __init__(
        self,
        writer: IBlobWriter,
        source: Source,
        clock: IReactorTime,
        backoff: Backoff,
        unstorable: Callable[[Digest], None],
        parallel: Parallel | None,
        about: tuple[str, str],
        note_resumed: Callable[[], None],
        fetched: Fetched,
        span: ISpan,
        demands: Demands,
    ) -> None:
        """`unstorable`: told, before those who follow are, that the store failed; `fetched`: notes how it goes.

        `parallel`: adds connections; None: one is enough.  `about`: the upstream's name and the repository.
        `note_resumed`: called when the upstream broke off and the fill goes on.  `demands`: see `Ahead`.
        """
        self._parallel = parallel
        self._grows = True
        self._demands = demands
        self.ahead: Ahead | None = None
        """What is fetched before its turn; None while the upstream is not known to send parts."""
        self._about = about
        self._note_resumed = note_resumed
        self._body: IBody | None = None
        self._joined = 1
        self.fetched = fetched
        self.span = span
        self._failed: str | None = "stopped"
        self._started = clock.seconds()
        self._writer = writer
        self._unstorable = unstorable
        self._sources = [source]
        self._clock = clock
        self._backoff = backoff

    def join(self, source: Source) -> None:
        """Another client may read this too: its right serves when the first one's ends."""
        self._sources = [*self._sources[-(MAX_SOURCES - 1) :], source]
        self._joined += 1
        self.span.joined()

    def running(self) -> Running:
        """It, at this moment."""
        self._look_at_connections()
        upstream, repository = self._about
        writer = self._writer
        return Running(
            writer.digest,
            upstream,
            repository,
            writer.size,
            writer.offset,
            self._joined,
            self.fetched.connections,
            self.fetched.resumed,
            self._started,
            self.fetched.received,
            self.fetched.failovers,
            self.fetched.connecting,
            self.fetched.slowed,
            self.fetched.request_id,
        )

    def _look_at_connections(self) -> None:
        if isinstance(self._body, ParallelBody):
            self.fetched.used(self._body.connections)

    def ended(self) -> Running:
        """It runs no more; how it was."""
        running = self.running()
        self.span.end(running.told(), self._failed)
        return running

    async def run(self, answer: BlobResponse) -> None:
        """Move everything.  `answer` is the first response, whose size, if known, was announced.  Raises nothing."""
        writer = self._writer
        try:
            await self._move(answer)
            await writer.commit()
            self._failed = None
        except DigestMismatch as error:
            self._failed = str(error)
            self._log.error("{digest}: wrong bytes, nothing kept: {error}", digest=writer.digest, error=error)
        except WrongBytes as error:
            self._failed = str(error)
            self._log.error("{digest}: {error}; nothing kept", digest=writer.digest, error=error)
            await writer.reject()
        except StorageError as error:
            self._failed = str(error)
            self._log.error("{digest} is not cached: {error}", digest=writer.digest, error=error)
            self._unstorable(writer.digest)
            # What did not fit must not stay and keep out what would.
            await (writer.cancel() if isinstance(error, NoSpace) else writer.release())
        except RegistryError as error:
            self._failed = str(error)
            self._log.warn(
                "{digest}: given up at {offset} of {size} bytes: {error}",
                digest=writer.digest,
                offset=writer.offset,
                size=writer.size,
                error=error,
            )
            await writer.release()
        except BaseException:
            await writer.release()
            raise
        finally:
            self._close_ahead()

    def _close_ahead(self) -> None:
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            ahead.close()

    async def _move(self, answer: BlobResponse) -> None:
        attempt = 0
        current = self._adopted(answer)
        endpoint = answer.endpoint
        while True:
            before = self._writer.offset
            try:
                if current is None and (self.ahead is None or self.ahead.at(before) is None):
                    current = await self._ask_again()
                    if current is None:
                        return
                    if current.endpoint != endpoint:
                        self.fetched.failed_over()
                        endpoint = current.endpoint
                ended = await self._append(current)
                if self._writer.offset == self._writer.size or (ended and self._writer.size is None):
                    return
                raise UpstreamError(f"{self._source_of(current)} ended the body early")
            except (UpstreamError, TooManyRequests) as error:
                self._grows = False
                self.fetched.resume()
                if current is not None:
                    current.broke()
                current = None
                attempt = 1 if self._writer.offset > before else attempt + 1
                if attempt > ATTEMPTS:
                    raise
                self._note_resumed()
                self._log.info(
                    "{digest}: {error}; going on from byte {offset}",
                    digest=self._writer.digest,
                    error=error,
                    offset=self._writer.offset,
                )
                await deferLater(self._clock, self._backoff.delay(attempt, error), lambda: None)

    def _source_of(self, answer: BlobResponse | None) -> str:
        return self._about[0] if answer is None else answer.response.source

    def _adopted(self, answer: BlobResponse) -> BlobResponse | None:
        """The first response; None where its bytes are far behind what is here, as the first client wants them."""
        span = answer.span
        if span is None or span.first <= self._writer.offset or self._parallel is None:
            return answer
        self._looks_ahead(self._parallel, span.size).adopt(span, answer)
        return None

    def _looks_ahead(self, parallel: Parallel, size: int) -> Ahead:
        if self.ahead is None:
            self.ahead = parallel.ahead(size, self._ask_part, self._demands)
            self.ahead.position = self.ahead.limit = self.ahead.sent_to = self._writer.offset
        return self.ahead

    async def _ask_part(self, asked: Range) -> BlobResponse:
        return await self._sources[-1](asked)

    async def _ask_again(self) -> BlobResponse | None:
        """A response from the current offset, with the right of a client that may still read the blob.

        None: there is nothing behind the offset.
        """
        asked, offset = resume_from(self._writer), self._writer.offset
        if self.ahead is not None and (stop := self.ahead.stretch(offset)) < self.ahead.size:
            asked = Range(offset, stop - 1)
        while True:
            source = self._sources[-1]
            try:
                return await source(asked)
            except RangeInvalid as error:
                if self._writer.size is None:  # what is here may be all of it: the digest decides
                    return None
                raise WrongBytes(error.message) from error
            except (UpstreamError, TooManyRequests):
                raise
            except RegistryError:
                # This client's right has ended (or the blob is gone); another's may hold.
                if len(self._sources) == 1:
                    raise
                self._sources.remove(source)

    async def _append(self, answer: BlobResponse | None) -> bool:
        """Write what comes; whether the body came to its end, which says nothing where the size is known.

        None: what comes next was fetched ahead.
        """
        writer = self._writer
        body, span = self._opened(answer)
        source = self._source_of(answer)
        reader: IBlobReader | None = None
        try:
            if span is not None and (writer.size not in (None, span.size) or span.first > writer.offset):
                raise WrongBytes(f"{source} has something else there now ({span})")
            position, stop, size = (0, None, writer.size) if span is None else (span.first, span.stop, span.size)
            while position != stop:
                data = await _read(body, span)
                if not data:
                    return True
                self.fetched.received += len(data)
                self._look_at_connections()
                if position < writer.offset:
                    # A server without Range support starts again: what it sends must be what it sent.
                    reader = reader or writer.open()
                    await _compare(reader, position, data[: writer.offset - position])
                fresh = data[max(0, writer.offset - position) :]
                position += len(data)
                if size is not None and position > size:
                    raise WrongBytes(f"{source} sent more than the {size} bytes that were announced")
                if fresh:
                    await writer.write(fresh)
            return True
        finally:
            body.close()
            if reader is not None:
                reader.close()

    def _opened(self, answer: BlobResponse | None) -> tuple[IBody, Span | None]:
        """The bytes that an answer brings, and those behind them where the upstream sends parts; and what they are."""
        offset, parallel = self._writer.offset, self._parallel
        if answer is None:
            assert self.ahead is not None and parallel is not None
            there = Span(offset, self.ahead.size, self.ahead.size)
            body = self._body = parallel.body(None, there, self.ahead, self._grows)
            return body, there
        span = answer.span
        if span is None or parallel is None or span.first != offset or not sends_parts(answer):
            return answer.response.body(), span
        if self._writer.size not in (None, span.size):
            return answer.response.body(), span
        ahead = self._looks_ahead(parallel, span.size)
        body = self._body = parallel.body(answer.response.body(), span, ahead, self._grows)
        return body, Span(offset, span.size, span.size)


async def _read(body: IBody, span: Span | None) -> bytes:
    """The next piece; of a body that nobody knows the size of, an end that was not told is one: the digest decides."""
    try:
        return await body.read()
    except EndUntold:
        if span is not None:
            raise
        return b""


async def _compare(reader: IBlobReader, position: int, data: bytes) -> None:
    """Raises WrongBytes when what was written at `position` differs from `data`."""
    done = 0
    # The last byte written may be withheld; the digest looks at it in the end.
    while done < len(data) and position + done < reader.readable:
        kept = await reader.read(position + done, len(data) - done)
        if not kept or kept != data[done : done + len(kept)]:
            raise WrongBytes(f"the upstream sent other bytes at {position + done} than before")
        done += len(kept)

"""A fill: one upstream's bytes into one writer, whatever happens on the way.

The law: *the fill owns itself.*  No client starts it twice, slows it or ends it.  When the
upstream breaks off it goes on from the last byte, with backoff, by whichever client's
right still holds; when it cannot, what is there stays for the next one to resume.  Bytes
that turn out wrong are withdrawn, never completed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.errors import RangeInvalid, RegistryError, TooManyRequests, UpstreamError
from docxy.names import Digest
from docxy.pull.wide import Widener
from docxy.ranges import Range
from docxy.storage.interfaces import DigestMismatch, IBlobReader, IBlobWriter, StorageError
from docxy.upstream.body import IBody
from docxy.upstream.remote import BlobResponse

Source = Callable[[Range | None], Awaitable[BlobResponse]]
"""Asks the original URL anew (fresh redirect, fresh token), in one client's name."""

ATTEMPTS = 8
"""How often in a row the upstream may fail without a byte of progress."""
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 15.0
MAX_SOURCES = 16
UNSTORABLE_FOR = 60.0
"""Seconds for which a blob that could not be stored is not tried again."""


class WrongBytes(Exception):
    """What the upstream sends is not what it sent before."""


@frozen
class Backoff:
    """How long to wait before an attempt; pure."""

    random: Random

    def delay(self, attempt: int, error: RegistryError | None = None) -> float:
        """Seconds before attempt number `attempt` (from 1); what the upstream asked for, within reason."""
        told = error.retry_after if isinstance(error, TooManyRequests) else None
        if told is not None:
            return min(told, 2 * _LONGEST_DELAY)
        return min(_FIRST_DELAY * 3.0 ** (attempt - 1), _LONGEST_DELAY) * self.random.uniform(0.5, 1.0)


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
        widener: Widener | None = None,
    ) -> None:
        """`unstorable`: told, before those who follow are, that the store failed.

        `widener`: adds connections; None: one is enough.
        """
        self._widener = widener
        self._writer = writer
        self._unstorable = unstorable
        self._sources = [source]
        self._clock = clock
        self._backoff = backoff

    def join(self, source: Source) -> None:
        """Another client may read this too: its right serves when the first one's ends."""
        self._sources = [*self._sources[-(MAX_SOURCES - 1) :], source]

    async def run(self, answer: BlobResponse) -> None:
        """Move everything.  `answer` is the first response, whose size was announced.  Raises nothing."""
        writer = self._writer
        try:
            await self._move(answer)
            await writer.commit()
        except DigestMismatch as error:
            self._log.error("{digest}: wrong bytes, nothing kept: {error}", digest=writer.digest, error=error)
        except WrongBytes as error:
            self._log.error("{digest}: {error}; nothing kept", digest=writer.digest, error=error)
            await writer.cancel()
        except StorageError as error:
            self._log.error("{digest} is not cached: {error}", digest=writer.digest, error=error)
            self._unstorable(writer.digest)
            await writer.release()
        except RegistryError as error:
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

    async def _move(self, answer: BlobResponse) -> None:
        attempt = 0
        current: BlobResponse | None = answer
        while True:
            before = self._writer.offset
            try:
                if current is None:
                    current = await self._ask_again()
                await self._append(current)
                if self._writer.offset == self._writer.size:
                    return
                raise UpstreamError(f"{current.response.source} ended the body early")
            except (UpstreamError, TooManyRequests) as error:
                self._widener = None
                if current is not None:
                    current.broke()
                current = None
                attempt = 1 if self._writer.offset > before else attempt + 1
                if attempt > ATTEMPTS:
                    raise
                self._log.info(
                    "{digest}: {error}; going on from byte {offset}",
                    digest=self._writer.digest,
                    error=error,
                    offset=self._writer.offset,
                )
                await deferLater(self._clock, self._backoff.delay(attempt, error), lambda: None)

    async def _ask_again(self) -> BlobResponse:
        """A response from where we are, in the name of whoever may still have it."""
        asked = resume_from(self._writer)
        while True:
            source = self._sources[-1]
            try:
                return await source(asked)
            except RangeInvalid as error:
                raise WrongBytes(error.message) from error
            except (UpstreamError, TooManyRequests):
                raise
            except RegistryError:
                # This client's right has ended (or the blob is gone); another's may hold.
                if len(self._sources) == 1:
                    raise
                self._sources.remove(source)

    async def _append(self, answer: BlobResponse) -> None:
        writer, span = self._writer, answer.span
        body: IBody = answer.response.body()
        reader: IBlobReader | None = None
        try:
            if span is None or span.size != writer.size or span.first > writer.offset:
                raise WrongBytes(f"{answer.response.source} has something else there now ({span})")
            position = span.first
            if self._widener is not None and position == writer.offset and _sends_parts(answer):
                body = self._widener.widen(body, span, self._sources[-1])
            while position < span.stop and (data := await body.read()):
                if position < writer.offset:
                    # A server without Range support starts again: what it sends must be what it sent.
                    reader = reader or writer.open()
                    await _compare(reader, position, data[: writer.offset - position])
                fresh = data[max(0, writer.offset - position) :]
                position += len(data)
                if position > span.size:
                    raise WrongBytes(f"{answer.response.source} sent more than the {span.size} bytes it announced")
                if fresh:
                    await writer.write(fresh)
        finally:
            body.close()
            if reader is not None:
                reader.close()


def _sends_parts(answer: BlobResponse) -> bool:
    """Whether whoever answered can be asked for ranges: it says so (RFC 9110 section 14.3), or just was."""
    header = answer.response.header("Accept-Ranges") or ""
    return "bytes" in header.lower() or (answer.span is not None and answer.span.first > 0)


def resume_from(writer: IBlobWriter) -> Range | None:
    """The range that is still to come; when all is there, its last byte, for there is no empty range."""
    offset = writer.offset if writer.size is None else min(writer.offset, writer.size - 1)
    return Range(offset, None) if offset > 0 else None


async def _compare(reader: IBlobReader, position: int, data: bytes) -> None:
    """Raises WrongBytes when what was written at `position` differs from `data`."""
    done = 0
    # The last byte written may be withheld; the digest looks at it in the end.
    while done < len(data) and position + done < reader.readable:
        kept = await reader.read(position + done, len(data) - done)
        if not kept or kept != data[done : done + len(kept)]:
            raise WrongBytes(f"the upstream sent other bytes at {position + done} than before")
        done += len(kept)


class Fills:
    """The fills that this process runs, for all upstreams."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, backoff: Backoff) -> None:
        self._clock = clock
        self._backoff = backoff
        self._fills: dict[Digest, Fill] = {}
        self._running: dict[Digest, Deferred[None]] = {}
        self._ends: dict[Digest, list[Deferred[None]]] = {}
        self._unstorable: dict[Digest, float] = {}

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._fills

    def __len__(self) -> int:
        return len(self._fills)

    def start(self, writer: IBlobWriter, source: Source, answer: BlobResponse, widener: Widener | None = None) -> None:
        """Run a fill until it ends."""
        digest = writer.digest
        fill = self._fills[digest] = Fill(writer, source, self._clock, self._backoff, self.failed, widener)
        running = Deferred.fromCoroutine(fill.run(answer))
        if not running.called:
            self._running[digest] = running
        running.addBoth(self._ended, digest)

    def _ended(self, outcome: object, digest: Digest) -> None:
        if isinstance(outcome, Failure) and not outcome.check(CancelledError):
            self._log.failure("the fill of {digest} failed", outcome, digest=digest)
        del self._fills[digest]
        self._running.pop(digest, None)
        for waiting in self._ends.pop(digest, []):
            waiting.callback(None)

    def failed(self, digest: Digest) -> None:
        """This blob could not be stored."""
        now = self._clock.seconds()
        self._unstorable = {each: until for each, until in self._unstorable.items() if until > now}
        self._unstorable[digest] = now + UNSTORABLE_FOR

    def failed_lately(self, digest: Digest) -> bool:
        """Whether it would most likely fail again."""
        return self._unstorable.get(digest, 0.0) > self._clock.seconds()

    def join(self, digest: Digest, source: Source) -> None:
        """Another client may read what is being filled."""
        fill = self._fills.get(digest)
        if fill is not None:
            fill.join(source)

    def end(self, digest: Digest) -> Deferred[None] | None:
        """Fires when the fill that runs has ended; None when none does."""
        if digest not in self._fills:
            return None
        waiting: Deferred[None] = Deferred()
        self._ends.setdefault(digest, []).append(waiting)
        return waiting

    async def stop(self) -> None:
        """End every fill; what they have is kept for the next process."""
        for digest, running in list(self._running.items()):
            end = self.end(digest)
            running.cancel()
            if end is not None:
                await end

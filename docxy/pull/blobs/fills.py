"""The fills that a process runs: one a digest, at most `MAX_FILLS` at once, each started and ended here.

The law: every client that wants a digest joins its fill; what could not be stored is not tried again for a while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial

from cachetools import LRUCache, TTLCache
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.names import Digest
from docxy.observe.exchange import Exchange
from docxy.observe.tracing import ITracer, Work
from docxy.observe.trail import Fetched
from docxy.pull.blobs.again import Source
from docxy.pull.blobs.ahead import NEAR, Ahead, Demands
from docxy.pull.blobs.backoff import Backoff
from docxy.pull.blobs.fill import Fill
from docxy.pull.blobs.followers import Followers
from docxy.pull.blobs.parallel import Parallel
from docxy.pull.blobs.running import MOST_COUNTED, NamedCounts, Running
from docxy.storage.interfaces import IBlobWriter
from docxy.upstream.blob_response import BlobResponse

MAX_FILLS, MAX_UNSTORABLE = 256, 10_000
UNSTORABLE_FOR = 60.0
"""Seconds for which a blob that could not be stored is not tried again."""
PAST_SHARE = 50
"""A fill of another process lets pass, beside it, one byte in this many of its blob, or NEAR of a smaller one."""
PAST_LEAST = 64 << 10
"""Bytes that such a request counts for at least."""
PAST_FILLS = 1000
"""Blobs for which it is remembered how many were."""


class Fills:
    """The fills that this process runs, for all upstreams."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, backoff: Backoff, tracer: ITracer, tell: Callable[[Exchange], object]
    ) -> None:
        """`tell`: told of each fill when it begins and when it is over, for those who join it in other processes."""
        self._tell = tell
        self._tracer = tracer
        self._clock = clock
        self._backoff = backoff
        self.resumed = NamedCounts(MOST_COUNTED)
        """How often fills went on after an upstream broke off, by its name."""
        self.followers = Followers()
        """Clients of this process that follow a fill, whichever process runs it."""
        self._fills: dict[Digest, Fill] = {}
        self._running: dict[Digest, Deferred[None]] = {}
        self._ends: dict[Digest, list[Deferred[None]]] = {}
        self._unstorable: TTLCache[Digest, None] = TTLCache(MAX_UNSTORABLE, UNSTORABLE_FOR, timer=clock.seconds)
        self._feeders: list[Callable[[], Awaitable[object]]] = []
        self._stopping = False
        self._demands = Demands()
        self._past: MutableMapping[Digest, int] = LRUCache(PAST_FILLS)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._fills

    def __len__(self) -> int:
        return len(self._fills)

    def running(self) -> list[Running]:
        """Each fill at this moment."""
        return [fill.running() for fill in self._fills.values()]

    def start(
        self,
        writer: IBlobWriter,
        source: Source,
        answer: BlobResponse,
        parallel: Parallel | None,
        about: tuple[str, str],
        fetched: Fetched,
    ) -> None:
        """Run a fill until it ends; `about`: the upstream's name and the repository; `fetched`: notes how it goes."""
        digest = writer.digest

        def note_resumed() -> None:
            self.resumed[about[0]] += 1

        upstream, repository = about
        told = {"docxy.upstream": upstream, "docxy.repository": repository, "docxy.digest": str(digest)}
        span = self._tracer.begin(Work.FILL, told)
        fill = self._fills[digest] = Fill(
            writer,
            source,
            self._clock,
            self._backoff,
            self.failed,
            parallel,
            about,
            note_resumed,
            fetched,
            span,
            self._demands,
        )
        self._tell(fill.running().noted(self._clock.seconds(), over=False))
        with span.within():
            running = Deferred.fromCoroutine(fill.run(answer))
        if not running.called:
            self._running[digest] = running
        running.addBoth(self._ended, digest)
        if self._stopping:
            running.cancel()

    def _ended(self, outcome: object, digest: Digest) -> None:
        if isinstance(outcome, Failure) and not outcome.check(CancelledError):
            self._log.failure("the fill of {digest} failed", outcome, digest=digest)
        self._tell(self._fills.pop(digest).ended().noted(self._clock.seconds(), over=True))
        self._running.pop(digest, None)
        for waiting in self._ends.pop(digest, []):
            waiting.callback(None)

    def failed(self, digest: Digest) -> None:
        """This blob could not be stored."""
        self._unstorable[digest] = None

    def failed_lately(self, digest: Digest) -> bool:
        """Whether it would most likely fail again."""
        return digest in self._unstorable

    @property
    def is_full(self) -> bool:
        """Whether no more may begin: a fill goes on when its clients are gone, so these do not bound them."""
        return len(self._fills) >= MAX_FILLS

    def join(self, digest: Digest, source: Source) -> None:
        """Another client may read what is being filled."""
        fill = self._fills.get(digest)
        if fill is not None:
            fill.join(source)

    def ahead(self, digest: Digest, size: int) -> Ahead | None:
        """What the fill that runs here fetches before its turn; None where no fill of `size` bytes does."""
        fill = self._fills.get(digest)
        ahead = None if fill is None else fill.ahead
        return ahead if ahead is not None and ahead.size == size else None

    def may_pass(self, digest: Digest, count: int, size: int) -> bool:
        """Whether `count` bytes may be fetched beside the fill of another process; they then count as fetched."""
        passed = self._past.get(digest, 0) + max(count, PAST_LEAST)
        if digest in self._fills or passed > max(NEAR, size // PAST_SHARE):
            return False
        self._past[digest] = passed
        return True

    def fetched(self, digest: Digest) -> Fetched | None:
        """How the fill that runs goes; None when none does."""
        fill = self._fills.get(digest)
        return None if fill is None else fill.fetched

    def end(self, digest: Digest) -> Deferred[None] | None:
        """Fires when the fill that runs has ended; None when none does."""
        if digest not in self._fills:
            return None
        waiting: Deferred[None] = Deferred()
        self._ends.setdefault(digest, []).append(waiting)
        return waiting

    def fed_by(self, stop: Callable[[], Awaitable[object]]) -> Callable[[], None]:
        """`stop`: ends something that starts fills, and is called before they are ended; unless what this returns is
        called first."""
        self._feeders.append(stop)
        return partial(self._feeders.remove, stop)

    def give_up(self, digest: Digest) -> None:
        """End a fill that nobody is to have; what it has stays as that of any that was interrupted."""
        running = self._running.get(digest)
        if running is not None:
            running.cancel()

    async def stop(self) -> None:
        """End every fill, and let no other begin; what they have is kept for the next process."""
        self._stopping = True
        for stop in self._feeders:
            await stop()
        for digest, running in list(self._running.items()):
            end = self.end(digest)
            running.cancel()
            if end is not None:
                await end

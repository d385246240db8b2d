"""What runs beside the site: started before the first request, stopped after the last.

The law: each service ends what it started, in the order in which one part needs another.
"""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from docxy.catalog.interfaces import ICatalog, Stays, no_tag
from docxy.daemon.issuing.standing import CertificateStanding
from docxy.daemon.reloads import Reload
from docxy.daemon.timers import every
from docxy.names import Digest
from docxy.observe.condition import Condition
from docxy.observe.recorder import IModel
from docxy.observe.state import Notes, told
from docxy.pull.blobs.fills import Fills
from docxy.pull.gates.pins import Pins
from docxy.storage.counts import Counts
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import IBlobStore, Pinned, StorageError
from docxy.storage.ledger import Ledger
from docxy.storage.presence import Presence
from docxy.storage.scrub import Scrubber
from docxy.storage.shares import USUAL, Shares
from docxy.threads import Threads
from docxy.upstream.endpoints import Endpoints
from docxy.upstream.quota import Quota
from docxy.upstream.tokens import TokenService

TELL_INTERVAL = 1.0
"""Seconds."""
LOOK_INTERVAL = 30.0
"""Seconds between two looks at what the cache holds, at least."""
_LOOK_SHARE = 100
"""Times as long as such a look took docxy pauses: it costs no more than this part of a core."""
_LOOK_AHEAD = 3600.0
_RATE_OF = 5.0
"""Seconds whose bytes are a rate."""
_MOST_LOOKS = 50
"""Of one fill, remembered for its rate."""
"""Seconds: the longest pause."""
PURGE_INTERVAL = 60.0
"""Seconds; a purge that removes nothing costs a few index lookups."""
_UNSEEN = 90 * 24 * 3600.0
_SHORT = 24 * 3600.0
"""Seconds: see `ICatalog.purge`."""


@frozen
class OpenCache:
    """A cache that is open."""

    store: IBlobStore
    catalog: ICatalog
    service: IService
    """Its upkeep, whose stop closes it."""
    used: Callable[[], Awaitable[int]]
    """Bytes that are kept or reserved, by all processes.  Raises StorageError."""
    free: Callable[[], Awaitable[int]]
    """Bytes that its disk has free, after something was written to it.  Raises StorageError where that fails."""
    contents: Callable[[], Awaitable[Mapping[str, Any]]]
    """See `docxy.daemon.contents`."""
    budget: int
    """Bytes it may take."""
    counts: Counts
    """What its upkeep did in this process."""
    staying: list[Stays] = field(factory=list)
    """Asked by each purge of the catalog which tags are to stay."""
    ledger: Ledger | None = None
    """What of it is in the archive; None: it has no files that could be put there."""
    shares: Shares = USUAL
    """Of its budget."""


class CacheUpkeep(Service):
    """Checks and purges the cache, in the one process that does; closes it at the stop."""

    def __init__(
        self,
        store: FilesystemStore,
        catalog: ICatalog,
        threads: Sequence[Threads],
        scrubber: Scrubber,
        first: bool,
        staying: Sequence[Stays],
        presence: Presence,
        history: Callable[[], float],
        reactor: Any,
    ) -> None:
        """`first`: whether this is the process that sees to the upkeep; `threads`: they run already.

        `staying`: see `OpenCache`; asked at each purge, as is `history`, for which see `ICatalog.purge`.
        """
        self._staying = staying
        self._presence = presence
        self._history = history
        self._store = store
        self._catalog = catalog
        self._threads = threads
        self._scrubber = scrubber
        self._first = first
        self._purge = every(PURGE_INTERVAL, reactor, self._purge_catalog, "catalog upkeep")

    def _purge_catalog(self) -> Deferred[None]:
        def stays(upstream: str, repository: str, tag: str) -> bool:
            return any(each(upstream, repository, tag) for each in self._staying)

        return Deferred.fromCoroutine(
            self._catalog.purge(_UNSEEN, _SHORT, self._history(), stays if self._staying else no_tag)
        )

    def startService(self) -> None:
        Service.startService(self)
        if self._first:
            self._scrubber.start()
            self._purge.startService()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._purge.running:
            await maybeDeferred(self._purge.stopService)
        await self._scrubber.stop()
        await self._store.stop()
        await self._catalog.close()
        self._presence.close()
        for threads in self._threads:
            threads.stopService()


class Fillings(Service):
    """The fills of this process, and the cache that they fill, which is closed after they have ended."""

    def __init__(self, fills: Fills, cache: IService) -> None:
        self._fills = fills
        self._cache = cache

    def startService(self) -> None:
        Service.startService(self)
        self._cache.startService()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._fills.stop()
        await maybeDeferred(self._cache.stopService)


class Around(Service):
    """Services, and one that starts before them and stops after them."""

    def __init__(self, outer: IService, inner: IService) -> None:
        self._outer = outer
        self._inner = inner

    def startService(self) -> None:
        Service.startService(self)
        self._outer.startService()
        self._inner.startService()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(self._inner.stopService)
        await maybeDeferred(self._outer.stopService)


@define
class Way:
    """How to reach an upstream, and how that fares."""

    endpoints: Endpoints
    tokens: TokenService
    quotas: dict[str, Quota]
    """Of each account of docxy's own, by its name; that of the anonymous one is empty."""
    cooled: Counter[str] = field(factory=Counter)
    """What became of what was too young for the cooldown."""

    def limited_until(self) -> float:
        """When a 429 of every account is over, in seconds since the epoch; 0: no account is limited."""
        return min((quota.limited_until for quota in self.quotas.values()), default=0.0)


class Telling(Service):
    """Tells the read model, now and then, what this process is at."""

    _log = Logger()

    def __init__(
        self,
        model: IModel,
        condition: Condition,
        fills: Fills | None,
        ways: Mapping[str, Way],
        notes: Notes,
        cache: OpenCache | None,
        pins: Pins | None,
        expires: Callable[[], float | None] | None,
        standing: Callable[[], CertificateStanding] | None,
        archive: Callable[[], Mapping[str, Any]] | None,
        clock: IReactorTime,
        reactor: Any,
    ) -> None:
        """`ways`: by the upstream's name; `cache`, `pins`: what to tell of; None where another process tells of it.

        `archive`: how it is; None: there is none.

        `condition`: why this process cannot use the cache.  `expires`: when the certificate ends, in seconds
        since the epoch; None: plain HTTP.
        `standing`: how getting one goes; None: another process tells.  `clock`: tells the time since the epoch.
        """
        self._model = model
        self._fills = fills
        self._ways = ways
        self._notes = notes
        self._cache = cache
        self._pins = pins
        self._condition = condition
        self._expires = expires
        self._standing = standing
        self._archive = archive
        self._seconds = clock.seconds
        self._offsets: dict[Digest, deque[tuple[float, int]]] = {}
        """Of each fill, when it was looked at of late, and how far it was."""
        self._contents: Mapping[str, Any] = {}
        self._look_due = 0.0
        self._timer = every(TELL_INTERVAL, reactor, self._tell, "telling the read model")

    def startService(self) -> None:
        Service.startService(self)
        self._timer.startService()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return maybeDeferred(self._timer.stopService)

    def _tell(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._state())

    async def _state(self) -> None:
        now = self._seconds()
        followers = {} if self._fills is None else self._fills.followers.counted()
        fills = self._running(now, followers)
        running = {fill["digest"] for fill in fills}
        state: dict[str, Any] = {
            "fills": fills,
            "following": {str(digest): count for digest, count in followers.items() if str(digest) not in running},
            "upstreams": {
                name: told(self._notes.note(name), now, way.endpoints.due, way.limited_until())
                for name, way in self._ways.items()
            },
        }
        if self._cache is not None:
            with suppress(StorageError):
                held = Pinned(0, 0) if self._pins is None else self._pins.held
                used = await self._cache.used()
                pinned = {"pinned": held.kept, "pins": held.wanted}
                state["cache"] = {
                    "used": used,
                    "budget": self._cache.budget,
                    "shares": self._cache.shares.told(),
                    **pinned,
                    **self._contents,
                }
            self._look(self._cache, now)
        if self._condition.cache_failure is not None:
            state["cache_failure"] = self._condition.cache_failure
        expires = None if self._expires is None else self._expires()
        if expires is not None:
            state["certificate_expires"] = expires
        if self._standing is not None:
            state["certificate"] = self._standing().to_json()
        if self._archive is not None:
            state["archive"] = self._archive()
        self._model.sampled(state)

    def _look(self, cache: OpenCache, now: float) -> None:
        """Learn anew, now and then, what the cache holds; nothing waits for it."""
        # A clock that was set back would put it off.
        if self._look_due - _LOOK_AHEAD <= now < self._look_due:
            return
        self._look_due = now + _LOOK_AHEAD
        Deferred.fromCoroutine(self._learn(cache)).addErrback(
            lambda failure: self._log.failure("what the cache holds cannot be told", failure)
        )

    async def _learn(self, cache: OpenCache) -> None:
        began = self._seconds()
        self._contents = await cache.contents() or self._contents
        now = self._seconds()
        self._look_due = now + min(_LOOK_AHEAD, max(LOOK_INTERVAL, _LOOK_SHARE * (now - began)))

    def _running(self, now: float, followers: Mapping[Digest, int]) -> list[dict[str, Any]]:
        """The fills of this process, with their rates of late: bytes come in bursts, of which one look sees none."""
        before, self._offsets = self._offsets, {}
        found = []
        for fill in [] if self._fills is None else self._fills.running():
            seen = self._offsets[fill.digest] = before.get(fill.digest) or deque([(fill.started, 0)], _MOST_LOOKS)
            seen.append((now, fill.offset))
            while len(seen) > 2 and seen[1][0] <= now - _RATE_OF:
                seen.popleft()
            since, offset = seen[0]
            rate = max(0.0, fill.offset - offset) / max(now - since, 0.001)
            found.append(
                {
                    "digest": str(fill.digest),
                    "upstream": fill.upstream,
                    "repository": fill.repository,
                    "size": fill.size,
                    "offset": fill.offset,
                    "rate": round(rate),
                    "readers": followers.get(fill.digest, 0),
                    "connections": fill.connections,
                    "started": fill.started,
                }
            )
        return found


class Closing(Service):
    """Calls something at the stop, and waits for it."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    def stopService(self) -> Deferred[Any]:
        Service.stopService(self)
        return maybeDeferred(self._close)


class HangUp(Service):
    """Loads again, at a SIGHUP, what the operator may have changed; what docxy looks at by itself too."""

    def __init__(self, reloads: Sequence[Reload], reactor: Any) -> None:
        """`reloads`: called one after the other."""
        self._reloads = reloads
        self._reactor = reactor
        self._before: Any = None

    def startService(self) -> None:
        Service.startService(self)
        self._reactor.callWhenRunning(self._listen)

    def _listen(self) -> None:
        if self.running:
            self._before = signal.signal(signal.SIGHUP, self._hung_up)

    def _hung_up(self, *_: object) -> None:
        for reload in self._reloads:
            self._reactor.callFromThread(reload)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)

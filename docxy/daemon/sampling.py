"""Looks, now and then, at what a process is doing and at what it needs.

The law: it only looks: the meter, `/ready` and the operator's log learn what it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from docxy.archive.calm import CalmArchive
from docxy.daemon.drain import Watched
from docxy.daemon.issuing.standing import CertificateStanding
from docxy.daemon.services import OpenCache, Way
from docxy.daemon.timers import every
from docxy.observe.condition import Condition
from docxy.observe.metrics import Count, IMeter
from docxy.pull.blobs.fills import Fills
from docxy.pull.putting import Putting
from docxy.storage.interfaces import StorageError

SAMPLE_INTERVAL = 5.0
"""Seconds."""

Counted = tuple[Count, tuple[str, ...], int]


def counted(
    ways: Mapping[str, Way], fills: Fills | None, cache: OpenCache | None, archive: CalmArchive | None
) -> Iterator[Counted]:
    """What this process has counted since its start: what, its labels, how many."""
    for name, way in ways.items():
        yield Count.FAILED_OVER, (name,), way.endpoints.failovers
        yield Count.TOKENS, (name, "granted"), way.tokens.granted
        yield Count.TOKENS, (name, "refused"), way.tokens.refused
        for outcome, count in way.cooled.items():
            yield Count.COOLED, (name, outcome), count
        for account, quota in way.quotas.items():
            yield Count.SPENT, (name, account), quota.spent
        if fills is not None:
            yield Count.RESUMED, (name,), fills.resumed[name]
    if cache is not None:
        yield Count.EVICTED, (), cache.counts.evicted
        yield Count.EVICTED_BYTES, (), cache.counts.evicted_bytes
        yield Count.SCRUBBED, ("sound",), cache.counts.sound
        yield Count.SCRUBBED, ("damaged",), cache.counts.damaged
    if archive is not None:
        for labels, count in archive.counts.items():
            yield Count.ARCHIVED, labels, count


class Sampling(Service):
    """Tells the meter and the condition what it sees, and the operator when the cache fails."""

    _log = Logger()

    def __init__(
        self,
        meter: IMeter,
        condition: Condition,
        registry: Watched,
        fills: Fills | None,
        cache: OpenCache | None,
        archive: CalmArchive | None,
        putting: Putting | None,
        ways: Mapping[str, Way],
        expires: Callable[[], float | None] | None,
        standing: Callable[[], CertificateStanding] | None,
        first: bool,
        seconds: Callable[[], float],
        reactor: Any,
    ) -> None:
        """`ways`: by the upstream's name; `expires`: when the certificate ends, in seconds since the epoch.
        `standing`: how getting certificates goes; None: another process does, or nobody.

        `first`: whether this process speaks for all of how the cache is; `seconds`: since the epoch.
        """
        self._meter = meter
        self._condition = condition
        self._registry = registry
        self._fills = fills
        self._cache = cache
        self._archive = archive
        self._putting = putting
        self._ways = ways
        self._expires = expires
        self._standing = standing
        self._first = first
        self._seconds = seconds
        self._timer = every(SAMPLE_INTERVAL, reactor, self._sample, "sampling")

    def startService(self) -> None:
        Service.startService(self)
        self._timer.startService()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        self._count()
        return maybeDeferred(self._timer.stopService)

    def _sample(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._take())

    async def _take(self) -> None:
        fills = 0 if self._fills is None else len(self._fills)
        self._meter.sampled(self._registry.in_progress, self._registry.connected, fills)
        if self._expires is not None:
            until = self._expires()
            if until is not None:
                self._meter.certified(until)
        if self._standing is not None:
            standing = self._standing()
            self._meter.renewing(standing.record.failures, standing.renews)
        self._count()
        self._reach()
        if self._archive is not None:
            waiting = None if self._putting is None else self._putting.waiting
            self._meter.archived(self._archive.failure is None, waiting)
        if self._cache is not None:
            await self._look(self._cache)
        self._condition.looked = True

    def _count(self) -> None:
        for what, labels, total in counted(self._ways, self._fills, self._cache, self._archive):
            self._meter.counted(what, labels, total)

    def _reach(self) -> None:
        """Which upstreams docxy asks."""
        now = self._seconds()
        unreachable = {name for name, way in self._ways.items() if way.endpoints.due > now}
        for name, way in self._ways.items():
            self._meter.reachable(name, name in unreachable, way.limited_until() > now)
        self._condition.unreachable = len(unreachable) == len(self._ways)

    async def _look(self, cache: OpenCache) -> None:
        """Whether the cache can be used, and how full it is."""
        failed = self._condition.cache_failure is not None
        try:
            used, free = await cache.used(), await cache.free()
        except StorageError as error:
            self._condition.cache_failure = str(error)
            if self._first:
                self._meter.failing()
            if self._first and not failed:
                self._log.error("degraded: the cache cannot be used, clients are served past it: {why}", why=error)
        else:
            self._condition.cache_failure = None
            if self._first:
                self._meter.kept(used, cache.budget, free)
            if self._first and failed:
                self._log.info("the cache can be used again")

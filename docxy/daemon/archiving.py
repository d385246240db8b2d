"""The archive beside a cache: looked at when docxy starts, filled while it serves.

The law: *docxy serves while the archive fails.*  The log says what is wrong with it, and nothing waits for the look.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import frozen
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from docxy.archive.calm import CalmArchive
from docxy.archive.interfaces import ArchiveError, IArchive
from docxy.archive.links import Links
from docxy.daemon.timers import every
from docxy.pull.marking import Marking
from docxy.pull.putting import Putting
from docxy.settings.model import ArchiveSettings, Redirect
from docxy.storage.interfaces import IBlobStore
from docxy.storage.ledger import Ledger

PUT_INTERVAL = 2.0
"""Seconds between two looks at what is to be put."""
MARK_INTERVAL = 600.0
"""Seconds between two looks at what was used."""
CHECK = "check"
"""The record that is written and read at the start: a bucket that is not there looks like one that is empty."""


@frozen
class OpenArchive:
    """An archive, and the service that opens and closes it."""

    archive: IArchive
    service: IService


class Archiving(Service):
    """One process's part of it; stopped before the cache is closed."""

    _log = Logger()

    def __init__(
        self,
        service: IService,
        calm: CalmArchive,
        putting: Putting | None,
        marking: Marking,
        links: Links | None,
        reactor: Any,
    ) -> None:
        """`service`: the archive's own; `putting`: None where another process puts; `links`: to be stopped with it."""
        self._service = service
        self._calm = calm
        self._putting = putting
        self._links = links
        self._marks = every(MARK_INTERVAL, reactor, partial(_marked, marking), "marking uses in the archive")
        self._timer = None if putting is None else every(PUT_INTERVAL, reactor, self._put, "putting into the archive")

    def _put(self) -> Deferred[None] | None:
        return None if self._putting is None else Deferred.fromCoroutine(self._putting.work())

    def startService(self) -> None:
        Service.startService(self)
        self._service.startService()
        self._marks.startService()
        if self._timer is not None:
            Deferred.fromCoroutine(self.check())
            self._timer.startService()

    async def check(self) -> None:
        """Whether the archive can be written and read; tells the operator.  Raises nothing."""
        if await self._calm.attempt(self._checked()) is None:
            self._log.info("the archive is {name}", name=self._calm.archive.name)

    async def _checked(self) -> None:
        archive = self._calm.archive
        await archive.put_record(CHECK, b"docxy\n")
        if await archive.record(CHECK) is None:
            raise ArchiveError(f"{archive.name}: docxy may write there, but not read what it wrote")

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._putting is not None:
            self._putting.stop()
        if self._links is not None:
            await self._links.stop()
        # It ends what is being put, for which the timer waits.
        stopped = maybeDeferred(self._service.stopService)
        await maybeDeferred(self._marks.stopService)
        if self._timer is not None:
            await maybeDeferred(self._timer.stopService)
        await stopped


@frozen
class ProcessArchive:
    """What one process has of an archive."""

    calm: CalmArchive
    putting: Putting | None
    """None where another process puts."""
    links: Links | None
    """None: no client is sent there."""
    service: Archiving


def archive_behind(
    archive: OpenArchive,
    settings: ArchiveSettings,
    store: IBlobStore,
    ledger: Ledger,
    first: bool,
    clock: IReactorTime,
    seconds: Callable[[], float],
    reactor: Any,
) -> ProcessArchive:
    """What is behind a cache; `first`: whether this process puts, and tells of what is in the cache."""
    calm = CalmArchive(archive.archive, clock)
    links = None if settings.redirect is Redirect.NEVER else Links(calm, clock)
    putting = Putting(calm, store, ledger, settings.puts, clock) if first else None
    marking = Marking(calm, ledger if first else None, links, seconds)
    return ProcessArchive(calm, putting, links, Archiving(archive.service, calm, putting, marking, links, reactor))


def state_of(calm: CalmArchive, putting: Putting | None) -> dict[str, Any]:
    """How the archive is, for the read model; `putting`: None where another process puts."""
    return {
        "name": calm.archive.name,
        "failure": calm.failure,
        "failed": sum(count for (_, outcome), count in calm.counts.items() if outcome in ("failed", "wrong")),
        "put": calm.moved["put"],
        "read": calm.moved["read"],
        "waiting": None if putting is None else putting.waiting,
    }


def _marked(marking: Marking) -> Deferred[None]:
    return Deferred.fromCoroutine(marking.work())

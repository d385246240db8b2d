"""The read model of one docxy with all that it needs, in the only process or in the supervisor.

The law: it comes up even if the disk or the admin socket cannot be used, and says so: docxy is not
kept from serving by what shows how it serves.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

import docxy
from docxy.access.open_gate import OpenGate
from docxy.addresses import Perimeter
from docxy.daemon.listeners import IServing
from docxy.daemon.notify import Notices
from docxy.daemon.policy import PolicyReload
from docxy.daemon.reloads import Reload
from docxy.daemon.timers import every
from docxy.daemon.upgrade.adopted import UnixPort, leave
from docxy.daemon.upgrade.successor import CannotUpgrade, Upgrades
from docxy.daemon.upgrade.takeover import Passed
from docxy.daemon.webhooks import Outbox, Webhooks
from docxy.errors import NotFound
from docxy.observe.access_log import Nowhere
from docxy.observe.history import PullHistory
from docxy.observe.journal import Pull
from docxy.observe.metrics import NoMeter
from docxy.observe.model import About, ReadModel
from docxy.observe.sums import Sums
from docxy.observe.view import LocalView, News
from docxy.questions import IWorkers
from docxy.settings.model import Config, JournalMode
from docxy.settings.policy import Policy
from docxy.steward.keeping import LOOK, Keeper
from docxy.steward.lines import Failed
from docxy.steward.processes import Processes
from docxy.steward.steward import Steward, Stewardship
from docxy.storage.paths import Tree
from docxy.threads import Threads
from docxy.web.acts import Acts
from docxy.web.admin import Admin, AdminSite
from docxy.web.connections import Connections

HOLD = 1.0
"""Seconds within which every worker has told what it answered: twice the time between two batches."""

SUMS_EVERY = 60.0
"""Seconds after which what was counted is written down."""

_log = Logger()


class Observatory:
    """Model, history, news and the admin socket."""

    def __init__(self, config: Config, counted: Callable[[str], object], clock: IReactorTime, reactor: Any) -> None:
        """`config`: with its public URL and the number of workers that serve; `clock`: of the time since the epoch.

        `counted`: see `docxy.daemon.webhooks.Outbox`.
        """
        assert config.public_url is not None, "derived once the ports are open"
        about = About(
            version=docxy.__version__,
            public_url=config.public_url,
            started=clock.seconds(),
            auth=config.auth.value,
            upstreams=[upstream.name for upstream in config.upstreams],
            cache=config.cache,
            workers=config.workers,
            libraries=[upstream.name for upstream in config.upstreams if upstream.library],
            aliases={upstream.name: sorted(upstream.aliases) for upstream in config.upstreams},
            any_registry=config.any_registry is not None,
        )
        self.news = News(reactor)
        self.model = ReadModel(
            about,
            clock.seconds,
            self._finished,
            self.news.publish,
            hold=0.0 if config.workers == 1 else HOLD,
            names=config.journal is JournalMode.CLIENTS,
        )
        url = config.public_url
        self._webhooks = Webhooks(
            lambda each: Outbox(each, url, counted, clock.seconds, reactor, reactor), config.webhooks
        )
        self.model.alerts.subscribe(self._webhooks.put)
        self._threads: Threads | None = None
        self._history: PullHistory | None = None
        if config.cache is not None and config.cache_size is not None and config.journal is not JournalMode.OFF:
            # One thread: the history's jobs run in their order.
            self._threads = Threads(reactor, 1, "history")
            self._threads.startService()
            self._history = PullHistory(Tree(config.cache).history, config.cache_size, self._threads.in_thread, clock)
        self._sums = every(SUMS_EVERY, reactor, self._keep_sums, "keeping what was counted")
        self.view = LocalView(self.model, self._history, self.news, clock.seconds)
        self._config = config
        self._clock = clock
        self._reactor = reactor
        self._port: IListeningPort | None = None
        self._left: IListeningPort | None = None
        """Keeps the socket that was left, until the process ends."""
        self._passed: int | None = None
        """The admin socket of the docxy from which this one takes over."""
        self._site: AdminSite | None = None
        self._admin: Admin | None = None
        self._acts: Acts | None = None
        self._stewardship: Stewardship | None = None
        self._keeper: Keeper | None = None
        self._keeping: TimerService | None = None

    def take_up(self, config: Config) -> None:
        """Go by what of other settings is in force at once."""
        self._webhooks.take_up(config.webhooks)

    def open(
        self,
        workers: IWorkers,
        policy: Callable[[], Policy],
        kept: Callable[[int, int], object],
        upgrades: Upgrades,
        passed: Passed | None,
        reloads: Sequence[Reload] = (),
    ) -> None:
        """Answer on the admin socket, and keep what the policy says.

        `workers`: the processes that serve, which are there by now; `policy`: the one in force; `kept`: hears how
        many images are kept, and how many of them are gone; `upgrades`: of this docxy; `passed`: the admin socket
        of the docxy from which this one takes over; `reloads`: what is loaded again here, beside them.
        """
        config = self._config
        # Not before: by then docxy is the user whose the files of the cache are.
        self._reactor.callWhenRunning(self._look_back)
        opened: Callable[[], Steward] = _no_cache
        if config.cache is not None and config.cache_size is not None:
            self._stewardship = Stewardship(
                config, policy, config.cache, config.cache_size, workers, self.view, self._clock, self._reactor
            )
            opened = self._stewardship.steward
            self._keeper = Keeper(lambda: policy().keeps, opened, self.model.gone, kept)
            self._keeping = every(LOOK, self._reactor, self._keeper.look, "keeping images")
            self._reactor.callWhenRunning(self._keeping.startService)
        if config.admin_socket is None:
            return

        async def upgrade() -> int:
            try:
                return await upgrades.upgrade()
            except CannotUpgrade as error:
                raise Failed(f"docxy goes on as before: {error}") from None

        self._acts = Acts(opened, Processes(workers, tuple(reloads), upgrade), self._reactor)
        self._admin = Admin(self.view, self._acts, self._reactor)
        self._site = AdminSite(
            self._admin, OpenGate(Perimeter), Nowhere(), NoMeter(), Connections(0, 0, time.time), time.time
        )
        if passed is None or passed.description != config.admin_socket:
            self._port = self._listen(config.admin_socket, self._site, self._reactor)
        else:
            self._passed = passed.descriptor

    def _look_back(self) -> None:
        """Begin with what was before the start."""
        self.view.look_back()
        if self._history is not None:
            self._history.sums().addCallback(self._restore)
            self._sums.startService()

    def _restore(self, sums: Sums) -> None:
        self.model.traffic.restore(sums.minutes)
        self.model.ledger.restore(sums.charges)
        self.news.publish()

    def _keep_sums(self) -> None:
        if self._history is not None:
            self._history.keep_sums(Sums(self.model.traffic.unwritten(), self.model.ledger.unwritten()))

    def upgrade_failed(self, why: str) -> None:
        """No other docxy took over from this one."""
        self.model.upgrade_failure = why
        self.news.publish()

    def take_over(self) -> None:
        """Answer on the admin socket of the docxy that has stopped to."""
        if self._passed is not None and self._site is not None:
            port = UnixPort(self._passed, self._site, self._reactor)
            port.startListening()  # type: ignore[no-untyped-call]  # not annotated
            port.own()
            self._port = port

    def admin(self) -> Passed | None:
        """The admin socket, for another docxy to take over; None: there is none."""
        if self._port is None or self._config.admin_socket is None:
            return None
        return Passed(self._config.admin_socket, self._port.fileno(), socket.AF_UNIX)  # type: ignore[attr-defined]  # of Port

    async def retire(self, grace: float) -> None:
        """Another docxy has taken over: return when the commands that run here have ended, after `grace` at most."""
        port, self._port = self._port, None
        if port is not None:
            leave(port)
            self._left = port
        if self._admin is not None:
            self._admin.retire()
        await self._end_keeping()
        if self._acts is not None:
            with suppress(TimeoutError):
                await self._acts.ended().addTimeout(grace, self._reactor)

    async def _end_keeping(self) -> None:
        if self._keeping is not None and self._keeping.running:
            await maybeDeferred(self._keeping.stopService)
        if self._keeper is not None:
            await self._keeper.stop()

    def _listen(self, path: str, site: AdminSite, reactor: Any) -> IListeningPort | None:
        try:
            os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
            port: IListeningPort = reactor.listenUNIX(path, site, mode=0o600, wantPID=True)
        except (CannotListenError, OSError) as error:
            why = getattr(error, "socketError", error)
            _log.warn(
                "no admin socket at {path}: {why}; another docxy may have it, --admin-socket names another",
                path=path,
                why=getattr(why, "strerror", None) or why,
            )
            return None
        return port

    def _finished(self, pull: Pull) -> None:
        if self._history is not None:
            self._history.keep(self.model.told(pull))

    async def stop(self) -> None:
        """Close the socket, and write down what is on its way."""
        self.news.stop()
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        if self._acts is not None:
            await self._acts.stop()
        await self._end_keeping()
        if self._stewardship is not None:
            await self._stewardship.stop()
        self.model.end()
        self._webhooks.stop()
        if self._sums.running:
            await maybeDeferred(self._sums.stopService)
        self._keep_sums()
        if self._history is not None and self._threads is not None:
            await self._history.close()
            self._threads.stopService()


def _no_cache() -> Steward:
    raise NotFound("this docxy has no cache: it is off, or could not be used (docxy status)")


@implementer(IServing)
@frozen
class Observed:
    """What serves, and what watches it, which ends last."""

    serving: IServing
    observatory: Observatory
    reload: PolicyReload
    notices: Notices
    upgrades: Upgrades

    def abort(self) -> None:
        self.serving.abort()

    async def retire(self, grace: float) -> None:
        # Both at once: neither may accept any more when this returns for the first time.
        ended = Deferred.fromCoroutine(self.observatory.retire(grace))
        await _awaited(self.serving.retire(grace))
        await ended

    async def stop(self, grace: float) -> None:
        self.upgrades.stop()
        await self.notices.stop()
        self.reload.stop()
        await _awaited(self.serving.stop(grace))
        await self.observatory.stop()


async def _awaited(work: Any) -> Any:
    return await (work if isinstance(work, Deferred) else Deferred.fromCoroutine(work))

"""Starts workers, starts again those that end, and leads what they say to each other.

The law: the ports stay open here when a worker ends, so that no connection is refused; a
worker that ends is started again, later each time if it does not live long; one that
stands still is replaced; at the stop all get the grace, and none outlives it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from docxy.daemon.listeners import IServing
from docxy.daemon.notify import VARIABLES
from docxy.daemon.signals import held_back
from docxy.daemon.timers import every
from docxy.daemon.workers.link import WorkerLink
from docxy.daemon.workers.messages import HEARTBEAT
from docxy.daemon.workers.observing import NEWS, Desk
from docxy.daemon.workers.process import Worker
from docxy.daemon.workers.settings import send_settings
from docxy.daemon.workers.start import CHANNEL, Start
from docxy.observe.prometheus import DIRECTORY, Tally
from docxy.settings.model import Config
from docxy.settings.policy import Policy
from docxy.siblings import LocalSlots

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a worker that ended is started again."""
MOST_SILENT = 6
"""Heartbeats that may be missing until a worker is taken for one that stands still."""
FEW_SILENT = 2
"""Heartbeats that may be missing of a worker that lives."""
LONG_ENOUGH = 60.0
"""Seconds of a worker's life after which its end is no sign that the next one will end too."""
_AT_ONCE = 1.0
"""Seconds that a worker has when it is to end at once."""
_LAST_WORDS = 5.0
"""Seconds beyond the grace for what comes after the last request: what is kept is written down."""

_log = Logger()


@implementer(IServing)
class Supervisor:
    """The workers of one daemon."""

    def __init__(
        self,
        start: Start,
        descriptors: Sequence[int],
        prints: bool,
        tally: Tally | None,
        desk: Desk,
        reactor: Any,
    ) -> None:
        """`start`: what each worker gets at its start; `descriptors`: of the listeners, in its order.

        `prints`: whether what workers print goes where the supervisor prints; else it is logged.
        `tally`: what workers count; None: nothing.  `desk`: hears what they do.
        """
        self.desk = desk
        self._start = start
        self._descriptors = descriptors
        self._prints = prints
        self._reactor = reactor
        self._workers: dict[int, Worker[WorkerLink]] = {}
        self._restarts: dict[int, IDelayedCall] = {}
        self._short_lives: dict[int, int] = {}
        """Of each number: how many workers in a row lived shortly."""
        self._pause = backoffPolicy(FIRST_PAUSE, LONGEST_PAUSE, 2.0, jitter=lambda: 0.0)
        self._watch = every(HEARTBEAT, reactor, self._look, "the look at the workers")
        self._slots: dict[int, LocalSlots] = {}
        self._stopping = False
        self._retiring = False
        self.all_ready: Deferred[None] = Deferred()
        """Fires when all workers serve for the first time."""
        self._reloads = 0
        """SIGHUPs since the start."""
        self._reloaded: list[Deferred[None]] = []
        """Each waits until all workers have followed the last one."""
        self._before: Any = None
        self._at_once: IDelayedCall | None = None
        self._tally = tally
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        self._environ = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        self._environ["PYTHONPATH"] = paths
        if tally is not None:
            self._environ[DIRECTORY] = tally.directory

    def start(self) -> None:
        """Begin as soon as the reactor runs."""
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self._stopping:
            return
        self._before = signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hang_up))
        for number in range(1, self._start.config.workers + 1):
            self._spawn(number)
        self._watch.startService()
        pids = ", ".join(str(worker.pid) for worker in self._workers.values())
        _log.info("{count} workers: {pids}", count=len(self._workers), pids=pids)

    def _restart(self, number: int) -> None:
        del self._restarts[number]
        if self._tally is not None:
            self._tally.restarted()
        self._spawn(number)

    def _spawn(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        link = WorkerLink(self, number)
        factory: Factory[Any] = Factory.forProtocol(lambda: link)
        factory.noisy = False
        worker = Worker(evolve(self._start, number=number), link, self._reactor.seconds(), self._reloads)
        try:
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
            outputs: dict[int, int | str] = {1: 1, 2: 2} if self._prints else {1: "r", 2: "r"}
            passed = dict(enumerate([theirs.fileno(), *self._descriptors], CHANNEL))
            with held_back():
                self._reactor.spawnProcess(
                    worker,
                    sys.executable,
                    [sys.executable, "-m", "docxy.worker", str(number)],
                    env=self._environ,
                    childFDs={0: "w", **outputs, **passed},
                )
        finally:
            ours.close()
            theirs.close()
        self._workers[number] = worker
        self._look_at_reloads()
        worker.ended.addCallback(lambda _: self._ended(worker))

    def _ended(self, worker: Worker[WorkerLink]) -> None:
        number = worker.start.number
        self.desk.forget(number)
        if self._tally is not None:
            self._tally.forget(number)
        if self._stopping or self._retiring:
            return
        lived = self._reactor.seconds() - worker.since
        short = 0 if lived >= LONG_ENOUGH else self._short_lives.get(number, 0)
        self._short_lives[number] = short + 1
        pause = self._pause(short)
        _log.error(
            "worker {number} ended after {lived:.0f} s; starting it again in {pause:g} s",
            number=number,
            lived=lived,
            pause=pause,
        )
        self._restarts[number] = self._reactor.callLater(pause, self._restart, number)

    def _look(self) -> None:
        """Replace workers that stand still: other workers' clients may wait for what they fetch."""
        for worker in self._workers.values():
            if not worker.link.is_ready:
                continue
            worker.link.silent += 1
            if worker.link.silent > MOST_SILENT:
                _log.error(
                    "worker {number} has not answered for {seconds:g} s; killed",
                    number=worker.start.number,
                    seconds=MOST_SILENT * HEARTBEAT,
                )
                worker.link.is_ready = False
                worker.signal(signal.SIGKILL)

    def ready_links(self) -> dict[int, WorkerLink]:
        """The links to the workers that serve, by their numbers."""
        return {number: worker.link for number, worker in sorted(self._workers.items()) if worker.link.is_ready}

    def serves(self) -> bool:
        """Whether a worker answers clients."""
        return any(worker.link.is_ready for worker in self._workers.values())

    def lives(self) -> bool:
        """Whether every worker has given a heartbeat lately."""
        links = [worker.link for worker in self._workers.values()]
        return bool(links) and all(link.is_ready and link.silent <= FEW_SILENT for link in links)

    def _hang_up(self) -> None:
        """Tell the workers, at once or when they are ready."""
        self._reloads += 1
        for worker in self._workers.values():
            if worker.link.is_ready:
                self._reload(worker)

    def _reload(self, worker: Worker[WorkerLink]) -> None:
        asked = self._reloads

        def done(_: object) -> None:
            worker.reloads = max(worker.reloads, asked)
            self._look_at_reloads()

        # One that ends is started again, and loads everything then.
        worker.link.reload().addCallbacks(done, lambda _: None)

    def _look_at_reloads(self) -> None:
        if self._reloaded and all(worker.reloads == self._reloads for worker in self._workers.values()):
            reloaded, self._reloaded = self._reloaded, []
            for each in reloaded:
                each.callback(None)

    def reloaded(self) -> Deferred[None]:
        """Fires when every worker has done what the last SIGHUP asked for; without a SIGHUP at once."""
        reloaded: Deferred[None] = Deferred()
        self._reloaded.append(reloaded)
        self._look_at_reloads()
        return reloaded

    def ready(self, link: WorkerLink) -> None:
        """A worker may be told to reload."""
        for worker in self._workers.values():
            if worker.link is link:
                self._tell_settings(worker)
                if worker.reloads < self._reloads:
                    self._reload(worker)
        if not self.all_ready.called and len(self.ready_links()) == self._start.config.workers:
            self.all_ready.callback(None)

    def policy(self) -> Policy:
        """What of it is about images."""
        return self._start.config.policy

    def config(self) -> Config:
        """What is in force."""
        return self._start.config

    def put_in_force(self, config: Config) -> None:
        """Other settings: for the workers that serve at once, for others when they are ready, and for later ones."""
        self._start = evolve(self._start, config=config)
        for worker in self._workers.values():
            self._tell_settings(worker)

    def _tell_settings(self, worker: Worker[WorkerLink]) -> None:
        config = self._start.config
        if worker.link.is_ready and worker.config is not config:
            worker.config = config
            send_settings(worker.link, config)

    def slots(self, limit: int) -> LocalSlots:
        """What workers share of connections, `limit` under each key."""
        slots = self._slots.get(limit)
        if slots is None:
            slots = self._slots[limit] = LocalSlots(limit)
        return slots

    def pass_on(self, speaker: WorkerLink, topic: str, facts: str) -> None:
        """What one worker told, to all others."""
        for worker in self._workers.values():
            if worker.link is not speaker and worker.link.is_ready:
                worker.link.told(topic, facts)

    def abort(self) -> None:
        alive = [worker for worker in self._workers.values() if not worker.ended.called]
        for worker in alive:
            worker.signal(signal.SIGINT)
        self._at_once = self._reactor.callLater(_AT_ONCE, self._kill, alive)

    def news(self) -> None:
        """Tell all workers that the read model has changed."""
        for worker in self._workers.values():
            if worker.link.is_ready:
                worker.link.told(NEWS, "[]")

    async def retire(self, grace: float) -> None:
        self._retiring = True
        self._cancel_restarts()
        alive = [worker for worker in self._workers.values() if not worker.ended.called]
        for worker in alive:
            if worker.link.is_ready:
                worker.link.retire(grace)
            else:
                worker.signal(signal.SIGTERM)
        late = self._reactor.callLater(grace + _LAST_WORDS, self._kill, alive)
        await DeferredList([worker.ended for worker in alive])
        if late.active():
            late.cancel()

    def _cancel_restarts(self) -> None:
        for restart in self._restarts.values():
            restart.cancel()
        self._restarts = {}

    async def stop(self, grace: float) -> None:
        self._stopping = True
        if self._watch.running:
            await maybeDeferred(self._watch.stopService)
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
        self._cancel_restarts()
        alive = [worker for worker in self._workers.values() if not worker.ended.called]
        for worker in alive:
            worker.signal(signal.SIGTERM)
        kill = self._reactor.callLater(grace + _LAST_WORDS, self._kill, alive)
        await DeferredList([worker.ended for worker in alive])
        for call in (kill, self._at_once):
            if call is not None and call.active():
                call.cancel()
        if self._tally is not None:
            self._tally.close()

    def _kill(self, workers: Sequence[Worker[WorkerLink]]) -> None:
        for worker in workers:
            if not worker.ended.called:
                _log.error("worker {number} does not end; killed", number=worker.start.number)
                worker.signal(signal.SIGKILL)

"""Starts workers, starts again those that end, and leads what they say to each other.

The law: the ports stay open here, whatever becomes of a worker, so that no connection is refused; a
worker that ends is started again, later each time if it does not live long; at the stop all get the
grace, and none outlives it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.amp import AMP
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.doors import IServing
from docxy.shared import LocalSlots
from docxy.workers.messages import Acquire, Quiet, Ready, Release, Tell
from docxy.workers.start import CHANNEL, Start

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from docxy.prometheus import Tally

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a worker that ended is started again."""
LONG_ENOUGH = 60.0
"""Seconds of a worker's life after which its end is no sign that the next one will end too."""
_LAST_WORDS = 5.0
"""Seconds beyond the grace for what comes after the last request: what is kept is written down."""

_log = Logger()


class Hub(Quiet):
    """The supervisor's end of the channel to one worker."""

    def __init__(self, supervisor: Supervisor) -> None:
        AMP.__init__(self)
        self._supervisor = supervisor
        self._held: list[tuple[int, str]] = []
        self._waiting: set[Deferred[Any]] = set()
        self.is_ready = False

    @Ready.responder
    def ready(self) -> dict[str, object]:
        self.is_ready = True
        self._supervisor.ready(self)
        return {}

    @Acquire.responder
    def acquire(self, key: str, limit: int) -> Deferred[dict[str, object]]:
        answer: Deferred[dict[str, object]] = Deferred()
        waiting = self._supervisor.slots(limit).acquire(key)
        self._waiting.add(waiting)

        def acquired(_: object) -> None:
            self._waiting.discard(waiting)
            self._held.append((limit, key))
            answer.callback({})

        waiting.addCallbacks(acquired, lambda _: None)
        return answer

    @Release.responder
    def release(self, key: str, limit: int) -> dict[str, object]:
        if (limit, key) in self._held:
            self._held.remove((limit, key))
            self._supervisor.slots(limit).release(key)
        return {}

    @Tell.responder
    def tell(self, topic: str, facts: str) -> dict[str, object]:
        self._supervisor.pass_on(self, topic, facts)
        return {}

    def told(self, topic: str, facts: str) -> None:
        """Another worker told this."""
        AMP.callRemote(self, Tell, topic=topic, facts=facts)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        Quiet.connectionLost(self, reason)
        self.is_ready = False
        for waiting in [*self._waiting]:
            waiting.cancel()
        for limit, key in self._held:
            self._supervisor.slots(limit).release(key)
        self._held = []


@define(eq=False)
class Worker(ProcessProtocol):
    """One worker process, from its start to its end."""

    start: Start
    hub: Hub
    since: float
    owed_hangup: bool = field(default=False, init=False)
    """Whether a SIGHUP came before it was ready."""
    ended: Deferred[None] = field(factory=Deferred, init=False)
    _rest: dict[int, bytes] = field(factory=dict, init=False)
    pid: int = field(default=0, init=False)
    transport: Any = field(default=None, init=False)

    def connectionMade(self) -> None:
        self.pid = self.transport.pid
        self.transport.writeToChild(0, self.start.dump())
        self.transport.closeChildFD(0)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._rest[childFD] = (self._rest.get(childFD, b"") + data).split(b"\n")
        for line in lines:
            self._log_line(line)

    def _log_line(self, line: bytes) -> None:
        _log.info("{number}: {line}", number=self.start.number, line=line.decode("utf-8", "backslashreplace"))

    def processEnded(self, reason: Failure) -> None:
        for line in self._rest.values():
            if line:
                self._log_line(line)
        self.ended.callback(None)

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.transport is not None and self.transport.pid is not None:
            self.transport.signalProcess(signal.Signals(number).name[3:])


@implementer(IServing)
class Supervisor:
    """The workers of one daemon."""

    def __init__(self, start: Start, descriptors: Sequence[int], prints: bool, reactor: Any) -> None:
        """`start`: what all of them are told; `descriptors`: of the doors, in its order.

        `prints`: whether what workers print goes where the supervisor prints; else it is logged.
        """
        self._start = start
        self._descriptors = descriptors
        self._prints = prints
        self._reactor = reactor
        self._workers: dict[int, Worker] = {}
        self._restarts: dict[int, IDelayedCall] = {}
        self._pauses: dict[int, float] = {}
        self._slots: dict[int, LocalSlots] = {}
        self._stopping = False
        self._before: Any = None
        self._tally: Tally | None = None
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        self._environ = {**os.environ, "PYTHONPATH": paths}

    def count(self) -> tuple[CollectorRegistry, CollectorRegistry]:
        """Have workers count what they do: the registries that show it.  Before `start` only."""
        # Only here: it is large.
        from docxy.prometheus import DIRECTORY, Tally

        self._tally = Tally()
        self._environ[DIRECTORY] = self._tally.directory
        return self._tally.own, self._tally.workers

    def start(self) -> None:
        """Begin as soon as the reactor runs."""
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self._stopping:
            return
        self._before = signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hang_up))
        for number in range(1, self._start.config.workers + 1):
            self._spawn(number)
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
        hub = Hub(self)
        factory: Factory[Any] = Factory.forProtocol(lambda: hub)
        factory.noisy = False
        worker = Worker(evolve(self._start, number=number), hub, self._reactor.seconds())
        try:
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
            outputs: dict[int, int | str] = {1: 1, 2: 2} if self._prints else {1: "r", 2: "r"}
            passed = dict(enumerate([theirs.fileno(), *self._descriptors], CHANNEL))
            self._reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-m", "docxy.workers.worker", str(number)],
                env=self._environ,
                childFDs={0: "w", **outputs, **passed},
            )
        finally:
            ours.close()
            theirs.close()
        self._workers[number] = worker
        worker.ended.addCallback(lambda _: self._ended(worker))

    def _ended(self, worker: Worker) -> None:
        number = worker.start.number
        if self._tally is not None:
            self._tally.forget(worker.pid)
        if self._stopping:
            return
        lived = self._reactor.seconds() - worker.since
        pause = _FIRST_PAUSE if lived >= LONG_ENOUGH else self._pauses.get(number, _FIRST_PAUSE)
        self._pauses[number] = min(2 * pause, _LONGEST_PAUSE)
        _log.error(
            "worker {number} ended after {lived:.0f} s; it is started again in {pause:g} s",
            number=number,
            lived=lived,
            pause=pause,
        )
        self._restarts[number] = self._reactor.callLater(pause, self._restart, number)

    def _hang_up(self) -> None:
        """Tell the workers, at once or when they are ready."""
        for worker in self._workers.values():
            worker.owed_hangup = not worker.hub.is_ready
            if worker.hub.is_ready:
                worker.signal(signal.SIGHUP)

    def ready(self, hub: Hub) -> None:
        """A worker may be sent signals."""
        for worker in self._workers.values():
            if worker.hub is hub and worker.owed_hangup:
                worker.signal(signal.SIGHUP)

    def slots(self, limit: int) -> LocalSlots:
        """What workers share of connections, `limit` under each key."""
        slots = self._slots.get(limit)
        if slots is None:
            slots = self._slots[limit] = LocalSlots(limit)
        return slots

    def pass_on(self, speaker: Hub, topic: str, facts: str) -> None:
        """What one worker told, to all others."""
        for worker in self._workers.values():
            if worker.hub is not speaker and worker.hub.is_ready:
                worker.hub.told(topic, facts)

    async def stop(self, grace: float) -> None:
        self._stopping = True
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
        for restart in self._restarts.values():
            restart.cancel()
        alive = [worker for worker in self._workers.values() if not worker.ended.called]
        for worker in alive:
            worker.signal(signal.SIGTERM)
        kill = self._reactor.callLater(grace + _LAST_WORDS, self._kill, alive)
        await DeferredList([worker.ended for worker in alive])
        if kill.active():
            kill.cancel()
        if self._tally is not None:
            self._tally.close()

    def _kill(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            if not worker.ended.called:
                _log.error("worker {number} does not end; killed", number=worker.start.number)
                worker.signal(signal.SIGKILL)

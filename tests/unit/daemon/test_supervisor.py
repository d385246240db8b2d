"""The supervisor without processes: which workers it starts, replaces and ends, on a clock of the test."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.amp import AmpBox, parseString
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.workers import supervisor
from docxy.daemon.workers.messages import HEARTBEAT, Reload
from docxy.daemon.workers.observing import Desk
from docxy.daemon.workers.start import Start
from docxy.daemon.workers.supervisor import FIRST_PAUSE, LONG_ENOUGH, LONGEST_PAUSE, MOST_SILENT, Supervisor
from docxy.names import Digest
from docxy.settings.load import load
from docxy.settings.policy import Policy, Recall
from tests.harness.built import read_model


@define(eq=False)
class Process:
    """A worker's process, which does nothing."""

    protocol: Any
    pid: int
    signals: list[str] = field(factory=list)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        return

    def closeChildFD(self, descriptor: int) -> None:
        return

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def end(self) -> None:
        """It ends, and with it its link."""
        self.protocol.link.connectionLost(Failure(ProcessTerminated()))
        self.protocol.processEnded(Failure(ProcessTerminated()))


class Reactor(Clock):
    """As much of one as the supervisor needs."""

    def __init__(self) -> None:
        Clock.__init__(self)
        self.processes: list[Process] = []
        self.masks: list[set[int]] = []
        """Signals that each process begins with blocked."""

    def callFromThread(self, work: Callable[..., object], *args: Any) -> None:
        work(*args)

    def callWhenRunning(self, work: Callable[[], object]) -> None:
        work()

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        factory.buildProtocol(None).makeConnection(StringTransport())

    def spawnProcess(self, protocol: Any, *args: object, **kwargs: object) -> None:
        self.masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        process = Process(protocol, 1000 + len(self.processes))
        self.processes.append(process)
        protocol.makeConnection(process)


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        config = load({}, {"CERT_PATH": "off", "CACHE_DIR": "off", "WORKERS": "2"})
        start = Start(0, config, "00" * 32, None, (), False)
        view, model = read_model(start.config, self.reactor)
        self.supervisor = Supervisor(start, [], True, None, Desk(model, view), self.reactor)
        self.supervisor.start()
        self.addCleanup(self.end)
        for process in self.reactor.processes:
            process.protocol.link.ready()

    def end(self) -> None:
        stopping = Deferred.fromCoroutine(self.supervisor.stop(0))
        for process in self.reactor.processes:
            if not process.protocol.ended.called:
                process.end()
        self.successResultOf(stopping)

    def beats(self, *processes: Process, count: int) -> None:
        """So many heartbeats pass, of which these workers send theirs."""
        for _ in range(count):
            self.reactor.advance(HEARTBEAT)
            for process in processes:
                process.protocol.link.alive()

    def test_interrupted_while_it_begins(self) -> None:
        """A worker begins with SIGINT held back, the supervisor goes on without."""
        self.assertEqual([signal.SIGINT in mask for mask in self.reactor.masks], [True, True])
        self.assertNotIn(signal.SIGINT, signal.pthread_sigmask(signal.SIG_BLOCK, []))

    def test_stands_still(self) -> None:
        """A worker of which nothing is heard is killed, once, and another one starts; one that answers stays."""
        still, lively = self.reactor.processes
        self.beats(lively, count=MOST_SILENT)
        self.assertEqual((still.signals, lively.signals), ([], []))
        self.beats(lively, count=2)
        self.assertEqual((still.signals, lively.signals), (["KILL"], []))
        still.end()
        self.beats(lively, count=1)
        self.assertEqual(len(self.reactor.processes), 3)

    def test_retires(self) -> None:
        """When another docxy has taken over, those that serve end in their time, others at once; none starts again."""
        serving, other = self.reactor.processes
        other.end()
        self.reactor.advance(FIRST_PAUSE)
        fresh = self.reactor.processes[2]
        sent = serving.protocol.link.transport
        sent.clear()
        retiring = Deferred.fromCoroutine(self.supervisor.retire(60.0))
        (box,) = parseString(sent.value())
        self.assertEqual((box[b"_command"], box[b"grace"]), (b"Retire", b"60.0"))
        self.assertEqual((serving.signals, fresh.signals), ([], ["TERM"]))
        fresh.end()
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.reactor.processes), 3)
        self.assertNoResult(retiring)
        serving.end()
        self.successResultOf(retiring)

    def test_retires_late(self) -> None:
        """A worker that does not end within the grace is killed."""
        processes = self.reactor.processes
        retiring = Deferred.fromCoroutine(self.supervisor.retire(10.0))
        for _ in range(4):
            self.beats(*processes, count=1)
        self.assertEqual([process.signals for process in processes], [["KILL"], ["KILL"]])
        for process in processes:
            process.end()
        self.successResultOf(retiring)

    def test_all_ready(self) -> None:
        """It is known when all workers serve for the first time."""
        self.successResultOf(self.supervisor.all_ready)

    def test_slow_start(self) -> None:
        """A worker that is not ready yet is left alone."""
        first, other = self.reactor.processes
        first.end()
        self.beats(other, count=1)
        fresh = self.reactor.processes[2]
        self.beats(other, count=3 * MOST_SILENT)
        self.assertEqual(fresh.signals, [])

    def test_pauses(self) -> None:
        """Workers that end soon are started again ever later; one that lived long starts anew."""
        pause = FIRST_PAUSE
        for _ in range(8):
            last = self.reactor.processes[-1]
            last.end()
            self.reactor.advance(pause - 0.01)
            self.assertIs(self.reactor.processes[-1], last)
            self.reactor.advance(0.01)
            self.assertIsNot(self.reactor.processes[-1], last)
            pause = min(2 * pause, LONGEST_PAUSE)
        self.reactor.advance(LONG_ENOUGH)
        self.reactor.processes[-1].end()
        before = len(self.reactor.processes)
        self.reactor.advance(FIRST_PAUSE)
        self.assertEqual(len(self.reactor.processes), before + 1)

    def asked_to_reload(self, process: Process) -> list[bytes]:
        """The tags of the questions that this worker got since the last look."""
        transport = process.protocol.link.transport
        boxes = parseString(transport.value())
        transport.clear()
        return [box[b"_ask"] for box in boxes if box[b"_command"] == Reload.commandName]

    def answer(self, process: Process, tag: bytes) -> None:
        process.protocol.link.ampBoxReceived(AmpBox({b"_answer": tag}))

    def test_reload(self) -> None:
        """A reload has ended when every worker has done what the last SIGHUP asked for."""
        first, second = self.reactor.processes
        self.successResultOf(self.supervisor.reloaded())
        signal.raise_signal(signal.SIGHUP)
        reloaded = self.supervisor.reloaded()
        (tag,) = self.asked_to_reload(first)
        self.answer(first, tag)
        self.assertNoResult(reloaded)
        (before,) = self.asked_to_reload(second)
        signal.raise_signal(signal.SIGHUP)
        (tag,) = self.asked_to_reload(first)
        self.answer(first, tag)
        self.answer(second, before)
        self.assertNoResult(reloaded)
        (tag,) = self.asked_to_reload(second)
        self.answer(second, tag)
        self.successResultOf(reloaded)

    def test_reload_of_the_dead(self) -> None:
        """A worker that ends meanwhile is waited for until its successor is there, which reads everything anew."""
        first, second = self.reactor.processes
        signal.raise_signal(signal.SIGHUP)
        reloaded = self.supervisor.reloaded()
        (tag,) = self.asked_to_reload(first)
        self.answer(first, tag)
        second.end()
        self.assertNoResult(reloaded)
        self.reactor.advance(FIRST_PAUSE)
        self.successResultOf(reloaded)
        self.reactor.processes[-1].protocol.link.ready()
        self.assertEqual(self.asked_to_reload(self.reactor.processes[-1]), [])

    def test_reload_before_ready(self) -> None:
        """A worker that is not ready may have read the old files: it is told once it is."""
        first, second = self.reactor.processes
        second.end()
        self.reactor.advance(FIRST_PAUSE)
        fresh = self.reactor.processes[-1]
        signal.raise_signal(signal.SIGHUP)
        reloaded = self.supervisor.reloaded()
        (tag,) = self.asked_to_reload(first)
        self.answer(first, tag)
        self.assertEqual(self.asked_to_reload(fresh), [])
        fresh.protocol.link.ready()
        self.assertNoResult(reloaded)
        (tag,) = self.asked_to_reload(fresh)
        self.answer(fresh, tag)
        self.successResultOf(reloaded)

    def test_policy(self) -> None:
        """Other settings go to the workers that serve, once; one that starts later, or is ready later, has them too."""
        told: list[tuple[Any, Policy]] = []
        self.patch(supervisor, "send_settings", lambda link, config: told.append((link, config.policy)))
        first, other = self.reactor.processes
        policy = Policy((), (Recall(Digest.of(b"bad"), None, "bad"),))
        first.end()
        self.beats(other, count=1)
        late = self.reactor.processes[2]
        self.supervisor.put_in_force(evolve(self.supervisor.config(), policy=policy))
        self.assertEqual(told, [(other.protocol.link, policy)])
        late.protocol.link.ready()
        self.assertEqual(told[1:], [(late.protocol.link, policy)])
        late.end()
        self.beats(other, count=1)
        fresh = self.reactor.processes[3]
        self.assertEqual(fresh.protocol.start.config.policy, policy)
        fresh.protocol.link.ready()
        self.assertEqual(len(told), 2)

    def test_abort(self) -> None:
        """Told to end at once, workers are interrupted, and those that still do not end are killed."""
        quick, stuck = self.reactor.processes
        stopped = Deferred.fromCoroutine(self.supervisor.stop(300))
        self.assertNoResult(stopped)
        self.supervisor.abort()
        self.assertEqual((quick.signals, stuck.signals), (["TERM", "INT"], ["TERM", "INT"]))
        quick.end()
        self.reactor.advance(1)
        self.assertEqual((quick.signals, stuck.signals), (["TERM", "INT"], ["TERM", "INT", "KILL"]))
        stuck.end()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

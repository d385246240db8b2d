"""Upgrades without processes: what the new docxy is given, when it takes over, and what becomes of one that fails.

That no transfer is cut is shown by `tests/process/workers/test_upgrade.py`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.upgrade.adopted import UnixPort, leave
from docxy.daemon.upgrade.handover import refusal
from docxy.daemon.upgrade.pidfile import PidFile
from docxy.daemon.upgrade.successor import PATIENCE, CannotUpgrade, Command, Upgrades
from docxy.daemon.upgrade.takeover import VARIABLE, Given, Passed, Takeover
from docxy.settings.model import ConfigError
from tests.unit.access.harness import logged

GIVEN = Given(
    7, (Passed("tcp:443", 10, socket.AF_INET),), Passed("/run/admin.sock", 11, socket.AF_UNIX), 12, ("c", "k")
)


@define
class Notices:
    """Keeps what it hears."""

    heard: list[object] = field(factory=list)

    def upgrading(self) -> None:
        self.heard.append("upgrading")

    def upgraded(self, pid: int) -> None:
        self.heard.append(pid)

    def not_upgraded(self, why: str) -> None:
        self.heard.append(why)


class Reactor(Clock):
    """Starts no process."""

    def __init__(self) -> None:
        Clock.__init__(self)
        self.spawned: list[tuple[Any, dict[str, Any]]] = []
        self.signals: list[str] = []
        self.transport = StringTransport()
        self.link: Any = None
        self.stopped = 0

    def callWhenRunning(self, work: Callable[..., object], *args: object) -> None:
        return

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        self.link = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.link.makeConnection(self.transport)

    def spawnProcess(self, protocol: Any, executable: str, argv: tuple[str, ...], **how: Any) -> None:
        self.spawned.append((argv, how))
        protocol.transport = self

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def stop(self) -> None:
        self.stopped += 1

    # As a port's reactor.

    def addReader(self, reader: IReadDescriptor) -> None:
        return

    def removeReader(self, reader: IReadDescriptor) -> None:
        return

    removeWriter = removeReader


class UpgradeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor, self.notices = Reactor(), Notices()
        self.retired: list[Deferred[None]] = []
        self.failed: list[str] = []
        self.upgrades = self.make(None)

    def make(self, why_not: str | None) -> Upgrades:
        upgrades = Upgrades(
            Command(("docxy", "--port", "1"), "/srv"), lambda: GIVEN, why_not, self.failed.append, self.reactor
        )
        upgrades.start(self.notices, self.retire)
        return upgrades

    async def retire(self) -> None:
        self.retired.append(Deferred())
        await self.retired[-1]

    def begin(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self.upgrades.upgrade())

    def failure(self, upgrade: Deferred[int]) -> str:
        return str(self.failureResultOf(upgrade, CannotUpgrade).value)

    def test_takes_over(self) -> None:
        """The new one gets every descriptor; when it serves, this one says go, and ends when it has retired."""
        upgrade = self.begin()
        ((argv, how),) = self.reactor.spawned
        self.assertEqual((argv, how["path"], how["env"][VARIABLE]), (("docxy", "--port", "1"), "/srv", "3"))
        given = Given.load(self.reactor.transport.value())
        self.assertEqual([how["childFDs"][number] for number in given.descriptors()], [10, 11, 12])
        self.assertEqual((given.pem, given.pid), (("c", "k"), 7))
        self.reactor.transport.clear()
        self.assertNoResult(upgrade)
        self.assertEqual(self.retired, [])
        self.reactor.link.dataReceived(b'{"ready": 42}\r\n')
        self.assertNoResult(upgrade)
        self.assertEqual((self.reactor.transport.value(), len(self.retired)), (b"go\r\n", 1))
        self.assertEqual(self.notices.heard, ["upgrading", 42])
        self.reactor.link.dataReceived(b'{"took": true}\r\n')
        self.assertEqual(self.successResultOf(upgrade), 42)
        self.assertEqual(self.reactor.stopped, 0)
        self.retired[0].callback(None)
        self.assertEqual(self.reactor.stopped, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIn("42 has taken over", self.failure(self.begin()))

    def test_fails(self) -> None:
        """A new one that says why it does not start, that ends, or that is late changes nothing, and ends."""
        late = f"the new docxy did not serve within {PATIENCE:g} s"
        for happens, why in (
            (lambda: self.reactor.link.dataReceived(b'{"failed": "no such file"}\r\n'), "no such file"),
            (lambda: self.reactor.link.connectionLost(), "the new docxy ended before it served"),
            (lambda: self.reactor.advance(PATIENCE), late),
            (self.upgrades.stop, "this docxy stops"),
        ):
            self.notices.heard.clear()
            self.reactor.signals.clear()
            with logged() as lines:
                upgrade = self.begin()
                self.assertIn("under way", self.failure(self.begin()))
                happens()
            self.assertIn(why, self.failure(upgrade))
            self.assertIn(f"the upgrade failed, and this docxy goes on: {why}", lines[-1])
            self.assertEqual(self.notices.heard[0], "upgrading")
            self.assertIn(why, str(self.notices.heard[1]))
            self.assertIn(why, self.failed[-1])
            self.assertEqual(self.reactor.signals, ["TERM"])
            self.assertEqual((self.retired, self.reactor.getDelayedCalls(), self.reactor.stopped), ([], [], 0))

    def test_refused(self) -> None:
        """Where nobody could learn the new number, or docxy is a container's first process, nothing is started."""
        self.assertIn("first process", refusal({}, "/run/docxy.pid", {}, 1) or "")
        self.assertIn("--chroot", refusal({"chroot": "/srv"}, "/run/docxy.pid", {}, 2) or "")
        self.assertIn("--pidfile", refusal({}, "", {}, 2) or "")
        self.assertIsNone(refusal({}, "/run/docxy.pid", {}, 2))
        self.assertIsNone(refusal({}, "", {"NOTIFY_SOCKET": "/run/notify"}, 2))
        self.upgrades = self.make("it is the first process")
        self.assertEqual(self.failure(self.begin()), "it is the first process")
        self.assertEqual((self.reactor.spawned, self.notices.heard), ([], []))

    def test_command(self) -> None:
        """The new one's environment is this one's, without what is for this process alone."""
        command = Command.of_this_process("/srv")
        self.assertEqual((command.argv[0], command.argv[1:]), (sys.executable, tuple(sys.orig_argv[1:])))
        environ = {"WATCHDOG_PID": "7", "LISTEN_PID": "7", "LISTEN_FDS": "1", "WATCHDOG_USEC": "9", "CACHE_DIR": "/c"}
        self.assertEqual(command.environ(environ), {"WATCHDOG_USEC": "9", "CACHE_DIR": "/c", VARIABLE: "3"})


class TakeoverTests(SynchronousTestCase):
    def takeover(self) -> tuple[Takeover, socket.socket]:
        old, new = socket.socketpair()
        self.addCleanup(old.close)
        old.sendall(Given(7).dump() + b"\r\n")
        takeover = Takeover.of({VARIABLE: str(new.detach())})
        assert takeover is not None
        return takeover, old

    def test_told(self) -> None:
        """Whatever ends the start is told to the old docxy."""
        takeover, old = self.takeover()
        with contextlib.suppress(SystemExit), takeover.told():
            sys.exit("docxy: no such port")
        self.assertEqual(old.recv(100), b'{"failed": "docxy: no such port"}\r\n')

    def test_none(self) -> None:
        """Without the variable there is none; one that somebody else has set ends the start, in a line."""
        self.assertIsNone(Takeover.of({}))
        for value in ("x", "9999"):
            error = self.assertRaises(ConfigError, Takeover.of, {VARIABLE: value})
            self.assertIn(VARIABLE, str(error))


class PidFileTests(SynchronousTestCase):
    def test_goes_over(self) -> None:
        """The new number comes through the old one's descriptor; only who has the file last removes it."""
        path = Path(self.mktemp()).resolve()
        path.write_text("1234567")
        old: dict[str, Any] = {"pidfile": str(path)}
        before = PidFile(old, "", None)
        before.privilegedStartService()
        assert before.descriptor is not None
        self.addCleanup(os.close, before.descriptor)
        new: dict[str, Any] = {"pidfile": ""}
        after = PidFile(new, str(path), before.descriptor)
        before.leave()
        after.take()
        self.assertEqual(path.read_text(), str(os.getpid()))
        self.assertEqual((old["pidfile"], new["pidfile"]), ("", str(path)))

    def test_none(self) -> None:
        """There may be none."""
        none = PidFile({"pidfile": ""}, "", None)
        none.privilegedStartService()
        none.take()
        self.assertEqual((none.path, none.descriptor), ("", None))


class UnixPortTests(SynchronousTestCase):
    def test_file(self) -> None:
        """The socket's mode stays; its file and its lock are the new one's once it owns them, and go with it."""
        path = f"/tmp/docxy-port-{os.getpid()}"
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(path)
        os.chmod(path, 0o600)
        listening.listen()
        os.symlink("1", f"{path}.lock")
        factory: Factory[Any] = Factory()
        factory.noisy = False
        first, second = (UnixPort(listening.fileno(), factory, Reactor()) for _ in range(2))
        for port in (first, second):
            port.startListening()
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        first.connectionLost(None)  # type: ignore[arg-type]  # it is not looked at
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)  # not shut down
        second.own()
        self.assertEqual(os.readlink(f"{path}.lock"), str(os.getpid()))
        leave(first)
        second.connectionLost(None)  # type: ignore[arg-type]  # it is not looked at
        self.assertEqual([os.path.lexists(each) for each in (path, f"{path}.lock")], [False, False])

"""What the service manager hears, on a socket of the test's."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.notify import STATUS_INTERVAL, TICK, Notices, ServiceManager, status_line


class Reactor(Clock):
    """A clock that runs from the start."""

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        call()

    def callFromThread(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        self.callLater(0, call, *args, **kwargs)


class NoticesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(os.path.relpath(self.mktemp(), os.getcwd()))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(self.socket.close)
        self.socket.bind(self.path)
        self.clock = Reactor()
        self.serves = self.lives = True
        self.reloaded = succeed(None)
        self.status = "2 workers"

    def start(self, **environ: str) -> Notices:
        manager = ServiceManager({"NOTIFY_SOCKET": self.path, **environ}, 42)
        notices = Notices(
            manager, lambda: self.serves, lambda: self.lives, lambda: self.reloaded, lambda: self.status, self.clock
        )
        notices.start()
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(notices.stop())))
        return notices

    def told(self) -> list[str]:
        """What came since the last look."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


class NoticesTests(NoticesCase):
    def test_ready(self) -> None:
        """READY comes once, when clients are answered, and then a line that says what docxy is at."""
        self.serves = False
        self.start()
        self.assertEqual(self.told(), [])
        self.serves = True
        self.clock.pump([TICK] * 3)
        self.assertEqual(self.told(), ["READY=1", "STATUS=2 workers"])

    def test_status(self) -> None:
        """The line comes again when it has changed, not at each look."""
        self.start()
        self.told()
        self.clock.pump([TICK] * int(2 * STATUS_INTERVAL / TICK))
        self.assertEqual(self.told(), [])
        self.status = "1 worker"
        self.clock.pump([TICK] * int(STATUS_INTERVAL / TICK))
        self.assertEqual(self.told(), ["STATUS=1 worker"])

    def test_watchdog(self) -> None:
        """The watchdog is fed well within its time, and only while every process lives."""
        self.start(WATCHDOG_USEC="20000000", WATCHDOG_PID="42")
        self.assertIn("WATCHDOG=1", self.told())
        self.clock.pump([TICK] * 20)
        self.assertEqual(self.told().count("WATCHDOG=1"), 4)
        self.lives = False
        self.clock.pump([TICK] * 20)
        self.assertEqual(self.told(), [])
        self.lives = True
        self.clock.advance(TICK)
        self.assertEqual(self.told(), ["WATCHDOG=1"])

    def test_watchdog_of_another(self) -> None:
        """A watchdog that waits for another process, or for no time, is not fed."""
        for environ in ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "43"}, {"WATCHDOG_USEC": "soon"}, {}):
            self.start(**environ)
            self.clock.pump([TICK] * 20)
            self.assertNotIn("WATCHDOG=1", self.told())

    def test_reload(self) -> None:
        """A SIGHUP is a reload: what reloads does so between RELOADING, with its time, and READY."""
        reloaded: list[list[str]] = []
        before = signal.signal(signal.SIGHUP, lambda *_: self.clock.callLater(0, lambda: reloaded.append(self.told())))
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        self.start()
        self.told()
        signal.raise_signal(signal.SIGHUP)
        self.clock.advance(0)
        ((reloading,),) = reloaded
        self.assertRegex(reloading, r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
        self.assertEqual(self.told(), ["READY=1"])

    def test_reload_of_workers(self) -> None:
        """READY waits until every process has reloaded; docxy that stops meanwhile is not ready any more."""
        notices = self.start()
        for stops in (False, True):
            self.told()
            self.reloaded = Deferred()
            signal.raise_signal(signal.SIGHUP)
            self.clock.advance(0)
            self.assertEqual([each.partition("=")[0] for each in self.told()], ["RELOADING"])
            if stops:
                self.successResultOf(Deferred.fromCoroutine(notices.stop()))
                self.told()
            self.reloaded.callback(None)
            self.assertEqual(self.told(), [] if stops else ["READY=1"])

    def test_hangup_is_harmless(self) -> None:
        """A SIGHUP that nobody else listens to ends nothing, without a service manager too."""
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        self.start(NOTIFY_SOCKET="")
        signal.raise_signal(signal.SIGHUP)
        self.clock.advance(0)
        self.assertEqual(self.told(), [])

    def test_stop(self) -> None:
        """STOPPING comes at the stop, and nothing after it."""
        notices = self.start(WATCHDOG_USEC="4000000")
        self.told()
        self.successResultOf(Deferred.fromCoroutine(notices.stop()))
        self.clock.pump([TICK] * 20)
        self.assertEqual(self.told(), ["STOPPING=1"])

    def test_nobody_listens(self) -> None:
        """A socket that is gone, or full, is no error."""
        os.unlink(self.path)
        self.start(WATCHDOG_USEC="4000000")
        self.clock.pump([TICK] * 20)
        abstract = ServiceManager({"NOTIFY_SOCKET": "@docxy-that-is-not-there"}, 42)
        abstract.tell(READY=1)

    def test_abstract(self) -> None:
        """`@` stands for the zero byte of an abstract address."""
        name = f"docxy-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as there:
            there.bind(f"\0{name}")
            ServiceManager({"NOTIFY_SOCKET": f"@{name}"}, 42).tell(READY=1)
            self.assertEqual(there.recv(100), b"READY=1")


class StatusTests(SynchronousTestCase):
    def test_line(self) -> None:
        """One line: processes, fills, hits, cache, and registries that are not as they should be."""
        snapshot: dict[str, Any] = {
            "docxy": {"workers": 2, "cache_failure": None},
            "traffic": {"hour": {"answers": 8, "hits": 6}},
            "fills": [{}],
            "cache": {"used": 3_200_000_000, "budget": 20_000_000_000},
            "upstreams": [
                {"name": "docker.io", "named": True, "state": "limited"},
                {"name": "ghcr.io", "named": True, "state": "ok"},
                {"name": "evil.example", "named": False, "state": "backing-off"},
            ],
        }
        self.assertEqual(
            status_line(snapshot),
            "2 workers; 1 layer on the way; 75 % hits within an hour; cache 3.2 GB of 20 GB; docker.io answers 429",
        )
        snapshot["docxy"] = {"workers": 1, "cache_failure": "gone"}
        snapshot["traffic"]["hour"]["answers"] = 0
        snapshot["upstreams"][0]["state"] = "backing-off"
        self.assertEqual(
            status_line(snapshot), "1 process; 1 layer on the way; the cache cannot be used; docker.io does not answer"
        )

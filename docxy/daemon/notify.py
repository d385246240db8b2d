"""What docxy tells the service manager (sd_notify(3)): it serves, reloads, lives, stops, and what it is at.

The law: without `NOTIFY_SOCKET` nothing is sent, and a message that cannot be sent is lost: docxy does not
wait for systemd.  `WATCHDOG=1` goes out only while every process has shown lately that it lives.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from docxy.daemon.timers import every
from docxy.settings.parsers import shown_size

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What the service manager sets, for the main process alone."""
TICK = 1.0
"""Seconds, at most, between two looks."""
STATUS_INTERVAL = 10.0
"""Seconds."""

_log = Logger()


class ServiceManager:
    """Its socket, and how long it waits for a sign of life."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        """`pid`: of this process, for which the variables must be."""
        path = environ.get("NOTIFY_SOCKET", "")
        # An abstract address (unix(7)) begins with a zero byte, for which `@` stands.
        self._path = f"\0{path[1:]}" if path.startswith("@") else path
        usec, owner = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(pid))
        self.patience = int(usec) / 1e6 if path and usec.isdigit() and owner == str(pid) else 0.0
        """Seconds without `WATCHDOG=1` after which it ends docxy; 0: it waits for none."""

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return bool(self._path)

    def tell(self, **told: object) -> None:
        """Send variables in one message."""
        if not self._path:
            return
        message = "\n".join(f"{name}={value}" for name, value in told.items()).encode("utf-8", "replace")
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(message, self._path)


class Notices:
    """Tells the service manager, from the start to the stop; a SIGHUP on the way is a reload."""

    def __init__(
        self,
        manager: ServiceManager,
        serves: Callable[[], bool],
        lives: Callable[[], bool],
        reloaded: Callable[[], Deferred[None]],
        status: Callable[[], str],
        reactor: Any,
    ) -> None:
        """`serves`: whether clients are answered yet; `lives`: whether every process showed lately that it does.

        `reloaded`: fires when every process has done what the last SIGHUP asked for.  `status`: one line.
        """
        self._manager = manager
        self._serves = serves
        self._lives = lives
        self._reloaded = reloaded
        self._status = status
        self._reactor = reactor
        self._is_ready = False
        self._stopped = False
        self._left = False
        """Whether another docxy has taken over."""
        self._said = ""
        self._fed: float | None = None
        self._status_due = 0.0
        self._before: Any = None
        tick = min(TICK, manager.patience / 4) if manager.patience else TICK
        self._timer = every(tick, reactor, self._look, "the word to the service manager")

    def start(self) -> None:
        """Begin as soon as the reactor runs, after those that listen to SIGHUP already."""
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self._stopped:
            return
        self._before = signal.signal(signal.SIGHUP, self._hung_up)
        if self._manager.listens:
            self._timer.startService()

    def _look(self) -> None:
        if not self._is_ready and self._serves():
            self._is_ready = True
            self._manager.tell(READY=1)
        now = self._reactor.seconds()
        due = self._fed is None or now - self._fed >= self._manager.patience / 4
        if self._manager.patience and due and self._lives():
            self._fed = now
            self._manager.tell(WATCHDOG=1)
        if self._is_ready and now >= self._status_due:
            self._status_due = now + STATUS_INTERVAL
            status = self._status()
            if status != self._said:
                self._said = status
                self._manager.tell(STATUS=status)

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        # The reactor calls these in order, and what the others do at a SIGHUP between them.
        self._reactor.callFromThread(self._reloading)
        if callable(self._before):
            self._before(number, frame)
        self._reactor.callFromThread(self._done)

    def _done(self) -> None:
        self._reloaded().addCallback(lambda _: self._tell_reloaded())

    def _tell_reloaded(self) -> None:
        if not self._stopped:
            _log.info("SIGHUP: reloaded")
            self._manager.tell(READY=1)

    def _reloading(self) -> None:
        # systemd goes by this clock to tell this reload from an earlier one (Type=notify-reload).
        self._manager.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def upgrading(self) -> None:
        """Another docxy starts that is to take over."""
        self._reloading()

    def not_upgraded(self, why: str) -> None:
        """It did not, and this one goes on."""
        self._said = f"the upgrade failed: {why}"
        self._status_due = self._reactor.seconds() + STATUS_INTERVAL
        self._manager.tell(READY=1, STATUS=" ".join(self._said.split()))

    def upgraded(self, pid: int) -> None:
        """It has taken over, and from now on this process is not the one that is watched."""
        if self._timer.running:
            self._timer.stopService()
        self._manager.tell(MAINPID=pid, READY=1)
        self._stopped = self._left = True

    async def stop(self) -> None:
        """The stop of docxy has begun."""
        self._stopped = True
        if not self._left:
            self._manager.tell(STOPPING=1)
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
        if self._timer.running:
            stopped: Deferred[Any] = maybeDeferred(self._timer.stopService)
            await stopped


def status_line(snapshot: Mapping[str, Any]) -> str:
    """What the read model knows, in one line without names of repositories."""
    workers, hour, cache = snapshot["docxy"]["workers"], snapshot["traffic"]["hour"], snapshot["cache"]
    fills = len(snapshot["fills"])
    parts = [f"{workers} workers" if workers > 1 else "1 process", f"{fills} layer{'s' * (fills != 1)} on the way"]
    if hour["answers"]:
        parts.append(f"{100 * hour['hits'] // hour['answers']} % hits within an hour")
    if snapshot["docxy"]["cache_failure"]:
        parts.append("the cache cannot be used")
    elif cache:
        parts.append(f"cache {shown_size(cache['used'])} of {shown_size(cache['budget'])}")
    for state, words in (("backing-off", "does not answer"), ("limited", "answers 429")):
        named = [upstream for upstream in snapshot["upstreams"] if upstream["named"]]
        names = [upstream["name"] for upstream in named if upstream["state"] == state]
        parts += [f"{name} {words}" for name in names]
    return "; ".join(parts)

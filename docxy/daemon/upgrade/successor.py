"""The old docxy's side: starts the new one, gives it the ports, and goes when that one serves.

The laws: *a new docxy that fails changes nothing*: this one goes on, and says why; one upgrade at a time; what this
process was started with is what the new one is started with, so that only the code and the files are new.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ReactorNotRunning
from twisted.internet.protocol import Factory, ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from docxy.daemon.upgrade.takeover import LONGEST, VARIABLE, Given

PATIENCE = 120.0
"""Seconds within which the new docxy must serve."""
_TAKES = 10.0
"""Seconds for which the answer waits until the new docxy has taken pidfile and admin socket, too."""
_NOT_PASSED = (VARIABLE, "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Variables that are for this process alone."""
_CHANNEL = 3

_log = Logger()


class CannotUpgrade(Exception):
    """This docxy goes on; the message says why."""


@frozen
class Command:
    """How this process was started."""

    argv: tuple[str, ...]
    directory: str

    @classmethod
    def of_this_process(cls, directory: str) -> Command:
        """`directory`: where it was started, which it may have left."""
        return cls((sys.executable, *sys.orig_argv[1:]), directory)

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The new process's, whose socket to this one is `_CHANNEL`."""
        passed = {name: value for name, value in environ.items() if name not in _NOT_PASSED}
        return {**passed, VARIABLE: str(_CHANNEL)}


class INotices(Protocol):
    """What hears how an upgrade goes: see `docxy.daemon.notify.Notices`."""

    def upgrading(self) -> None: ...

    def upgraded(self, pid: int) -> None: ...

    def not_upgraded(self, why: str) -> None: ...


class Upgrades:
    """Upgrades of this process: at a SIGUSR2, and when the operator asks."""

    def __init__(
        self,
        command: Command,
        given: Callable[[], Given],
        refusal: str | None,
        failed: Callable[[str], object],
        reactor: Any,
    ) -> None:
        """`given`: what the new docxy gets, with this process's descriptors; `refusal`: why there can be none.

        `failed`: called with why a new one did not take over, for the status.
        """
        self._tell_failed = failed
        self._command = command
        self._given = given
        self._refusal = refusal
        self._reactor = reactor
        self._notices: INotices | None = None
        self._retire: Callable[[], Awaitable[None]] | None = None
        self._before: Any = None
        self._link: _LinkToNew | None = None
        self._successor: int | None = None

    def start(self, notices: INotices, retire: Callable[[], Awaitable[None]]) -> None:
        """Listen as soon as the reactor runs.

        `retire`: takes no new connections, from its call on, and returns when all transfers have ended, or their
        time has; then this process ends.
        """
        self._notices, self._retire = notices, retire
        self._reactor.callWhenRunning(self._listen)

    def _listen(self) -> None:
        self._before = signal.signal(signal.SIGUSR2, lambda *_: self._reactor.callFromThread(self._signalled))

    def _signalled(self) -> None:
        Deferred.fromCoroutine(self.upgrade()).addErrback(lambda failure: failure.trap(CannotUpgrade))

    def stop(self) -> None:
        """This docxy stops: the one that was to take over ends, too."""
        if self._before is not None:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if self._link is not None:
            self._link.give_up("this docxy stops")

    async def upgrade(self) -> int:
        """Start the new docxy and have it take over: its process.  Raises CannotUpgrade."""
        if self._notices is None or self._retire is None:
            raise CannotUpgrade("docxy is still starting")
        if self._link is not None:
            raise CannotUpgrade("an upgrade is under way already")
        if self._successor is not None:
            raise CannotUpgrade(f"process {self._successor} has taken over, and this one only ends its transfers")
        if self._refusal is not None:
            _log.error("no upgrade: {why}", why=self._refusal)
            raise CannotUpgrade(self._refusal)
        _log.info("upgrade: starting {argv}", argv=" ".join(self._command.argv))
        self._notices.upgrading()
        process = _Process()
        try:
            link = self._link = self._spawn(process)
        except OSError as error:
            why = (
                f"this user cannot run {self._command.argv[0]} in {self._command.directory}: {error.strerror or error}"
            )
            raise self._failed(why, process) from None
        late = self._reactor.callLater(PATIENCE, link.give_up, f"the new docxy did not serve within {PATIENCE:g} s")
        try:
            pid = await link.told
        except CannotUpgrade as error:
            raise self._failed(str(error), process) from None
        finally:
            self._link = None
            if late.active():
                late.cancel()
        self._successor = pid
        _log.info("upgrade: process {pid} serves; this one ends when its transfers have ended", pid=pid)
        self._notices.upgraded(pid)
        retiring = Deferred.fromCoroutine(self._leave(self._retire))
        retiring.addErrback(lambda failure: _log.failure("the end of this docxy's transfers failed", failure))
        link.tell(b"go")
        # The command that asked finds the new one in the pidfile and on the admin socket.
        late = self._reactor.callLater(_TAKES, link.taken)
        await link.took
        if late.active():
            late.cancel()
        return pid

    async def _leave(self, retire: Callable[[], Awaitable[None]]) -> None:
        try:
            await retire()
        finally:
            _log.info("upgrade: nothing is being answered here any more")
            try:
                self._reactor.stop()
            except ReactorNotRunning:
                _log.debug("this docxy stops already")

    def _failed(self, why: str, process: _Process) -> CannotUpgrade:
        process.end()
        _log.error("the upgrade failed, and this docxy goes on: {why}", why=why)
        assert self._notices is not None
        self._notices.not_upgraded(why)
        self._tell_failed(why)
        return CannotUpgrade(why)

    def _spawn(self, process: _Process) -> _LinkToNew:
        given, passed = self._given(), {}
        child = _CHANNEL

        def place(descriptor: int) -> int:
            nonlocal child
            child += 1
            passed[child] = descriptor
            return child

        given = evolve(
            given,
            listeners=tuple(evolve(each, descriptor=place(each.descriptor)) for each in given.listeners),
            admin=None if given.admin is None else evolve(given.admin, descriptor=place(given.admin.descriptor)),
            pidfile=None if given.pidfile is None else place(given.pidfile),
        )
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        link = _LinkToNew()
        factory: Factory[Any] = Factory.forProtocol(lambda: link)
        factory.noisy = False
        try:
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
            self._reactor.spawnProcess(
                process,
                self._command.argv[0],
                self._command.argv,
                env=self._command.environ(os.environ),
                path=self._command.directory,
                childFDs={0: 0, 1: 1, 2: 2, _CHANNEL: theirs.fileno(), **passed},
            )
        finally:
            ours.close()
            theirs.close()
        link.tell(given.dump())
        return link


class _LinkToNew(LineOnlyReceiver):
    """The connection to the new docxy."""

    MAX_LENGTH = LONGEST

    def __init__(self) -> None:
        self.told: Deferred[int] = Deferred()
        """Its process, once it serves; fails with CannotUpgrade."""
        self.took: Deferred[None] = Deferred()
        """Fires when it has taken over, or is gone."""

    def tell(self, line: bytes) -> None:
        if self.transport is not None:
            self.transport.write(line + b"\r\n")

    def lineReceived(self, line: bytes) -> None:
        told = json.loads(line)
        if "took" in told:
            self.taken()
        elif "ready" in told:
            self._tell(told["ready"])
        else:
            self.give_up(str(told.get("failed")))

    def give_up(self, why: str) -> None:
        """Nobody takes over: the new docxy ends when it notices that this connection does."""
        self._tell(Failure(CannotUpgrade(why)))
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.taken()
        self._tell(Failure(CannotUpgrade("the new docxy ended before it served; the log has what it said")))

    def taken(self) -> None:
        """Wait no longer."""
        if not self.took.called:
            self.took.callback(None)

    def _tell(self, what: int | Failure) -> None:
        if self.told.called:
            return
        if isinstance(what, Failure):
            self.told.errback(what)
        else:
            self.told.callback(what)


class _Process(ProcessProtocol):
    """The new docxy, or the one that started it, where it daemonizes itself."""

    def end(self) -> None:
        """End it, if it is still there."""
        try:
            if self.transport is not None:
                self.transport.signalProcess("TERM")
        except ProcessExitedAlready:
            return

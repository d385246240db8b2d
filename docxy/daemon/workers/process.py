"""A worker as its supervisor has it: a process, what it prints, and what it was told."""

from __future__ import annotations

import signal
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.daemon.workers.start import Start
from docxy.observe.daemon_log import WHOLE
from docxy.settings.model import Config

L = TypeVar("L")

_lines = Logger(WHOLE)


@define(eq=False)
class Worker(ProcessProtocol, Generic[L]):
    """One worker process, from its start to its end."""

    start: Start
    link: L
    """The channel to it."""
    since: float
    reloads: int
    """How many SIGHUPs, of those that the supervisor got, it has followed; what came before its start counts."""
    config: Config = field(init=False)
    """What it was told last."""
    ended: Deferred[None] = field(factory=Deferred, init=False)
    _rest: dict[int, bytes] = field(factory=dict, init=False)
    pid: int = field(default=0, init=False)
    transport: Any = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.config = self.start.config

    def connectionMade(self) -> None:
        self.pid = self.transport.pid
        self.transport.writeToChild(0, self.start.dump())
        self.transport.closeChildFD(0)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._rest[childFD] = (self._rest.get(childFD, b"") + data).split(b"\n")
        for line in lines:
            self._log_line(line)

    def _log_line(self, line: bytes) -> None:
        # Where the log has docxy's own form, a worker's line has it already.
        _lines.info("{number}: {whole}", number=self.start.number, whole=line.decode("utf-8", "backslashreplace"))

    def processEnded(self, reason: Failure) -> None:
        for line in self._rest.values():
            if line:
                self._log_line(line)
        self.ended.callback(None)

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.transport is not None and self.transport.pid is not None:
            self.transport.signalProcess(signal.Signals(number).name[3:])

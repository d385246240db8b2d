"""Where the daemon's log goes, under twistd.

The law: docxy's own observer takes the place of twistd's, and writes where that one would; what twistd
does in other ways (`--syslog`, `--logger`) stays its own, with its form and all its lines.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from attrs import frozen
from twisted.application.service import MultiService
from twisted.logger import ILogObserver
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from docxy.daemon.upgrade.takeover import Takeover
from docxy.observe.daemon_log import DaemonObserver
from docxy.settings.model import Config


@frozen
class Output:
    """What becomes of the log."""

    prints: bool
    """Whether it is what the daemon prints; else workers' lines go through the supervisor."""
    own: bool
    """Whether docxy writes its lines; else twistd does."""

    @classmethod
    def of(cls, twistd: Mapping[str, Any] | None) -> Output:
        """As twistd's options say; None: there is no twistd."""
        if twistd is None:
            return cls(prints=False, own=False)
        own = not twistd.get("syslog") and twistd.get("logger") is None
        prints = own and bool(twistd.get("nodaemon")) and twistd.get("logfile") in (None, "-")
        # Without a terminal there is nothing to print to: twistd says so.
        return cls(prints, own and (prints or twistd.get("logfile") != "-"))


class _Appended(LogFile):
    """A log file that two docxys may write to, of which one takes over from the other."""

    def _openFile(self) -> None:
        LogFile._openFile(self)
        descriptor = self._file.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)


class RootService(MultiService):
    """The top of the services, which brings the log's observer to the application that it becomes part of."""

    def __init__(
        self, config: Config, twistd: Mapping[str, Any] | None, takeover: Takeover | None, reactor: Any
    ) -> None:
        """`twistd`: its options; `takeover`: who hears of a start that fails."""
        self._takeover = takeover
        MultiService.__init__(self)
        self._config = config
        self._twistd = twistd
        self._reactor = reactor

    def setServiceParent(self, parent: Any) -> None:
        output = Output.of(self._twistd)
        if output.own and self._twistd is not None and isinstance(parent, Componentized):
            file = sys.stdout if output.prints else self._file(self._twistd.get("logfile") or "twistd.log")
            observer = DaemonObserver(file, self._config.log_format, self._config.log_level, True)
            parent.setComponent(ILogObserver, observer)
        MultiService.setServiceParent(self, parent)

    def privilegedStartService(self) -> None:
        with self._told():
            MultiService.privilegedStartService(self)

    def startService(self) -> None:
        with self._told():
            MultiService.startService(self)

    def _told(self) -> AbstractContextManager[None]:
        return nullcontext() if self._takeover is None else self._takeover.told()

    def _file(self, path: str) -> TextIO:
        """The file, which SIGUSR1 turns over as twistd has it."""
        file: Any = _Appended.fromFullPath(path)  # type: ignore[no-untyped-call]  # not annotated
        if not signal.getsignal(signal.SIGUSR1):
            signal.signal(signal.SIGUSR1, lambda *_: self._reactor.callFromThread(file.rotate))
        opened: TextIO = file
        return opened

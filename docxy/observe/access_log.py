"""Where the lines of the access log go.

The law: a disk that fails, or a file that is moved away, keeps nobody waiting and ends nothing.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from docxy.observe.access_line import Answered, Form, form_of
from docxy.observe.daemon_log import WHOLE
from docxy.settings.model import ConfigError, LogFormat
from docxy.settings.parsers import DAEMON

_COMPLAIN_EVERY = 60.0

# Not a class's: that would have the class's name.
_lines = Logger(WHOLE)


class Lines(Protocol):
    """Where lines go."""

    def answered(self, request: Answered, address: str, now: float, seconds: float, /) -> object:
        """Write the line of a request; see `docxy.observe.access_line.Form`."""

    def close(self) -> object:
        """There are no more."""


def open_lines(where: str | None, format: LogFormat, clock: IReactorTime) -> Lines:
    """Where the lines go that `Config.access_log` sends there.  Raises ConfigError."""
    if where is None:
        return Nowhere()
    if where == DAEMON:
        return DaemonLog(form_of(format))
    try:
        return FileLog(where, form_of(format), clock)
    except OSError as error:
        raise ConfigError(f"the access log {where} cannot be written to: {error.strerror}") from None


class Nowhere:
    """No access log."""

    def answered(self, request: Answered, address: str, now: float, seconds: float) -> None:
        return

    def close(self) -> None:
        return


class Formed(ABC):
    """Lines in a form."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def answered(self, request: Answered, address: str, now: float, seconds: float) -> None:
        self.write(self._form(request, address, now, seconds))

    @abstractmethod
    def write(self, line: str) -> None:
        """Take one line, without its end."""


class DaemonLog(Formed):
    """Among all else that the daemon says."""

    def write(self, line: str) -> None:
        _lines.info("{whole}", whole=line)

    def close(self) -> None:
        return


class FileLog(Formed):
    """A file, written once in each turn of the reactor.

    If logrotate moves it away, docxy opens a new one.  Several processes may write to the same file.
    """

    _log = Logger()

    def __init__(self, path: str, form: Form, clock: IReactorTime) -> None:
        """Raises OSError when it cannot be written to."""
        Formed.__init__(self, form)
        self._path = path
        self._clock = clock
        self._lines: list[str] = []
        self._flush: IDelayedCall | None = None
        self._complained = -_COMPLAIN_EVERY
        self._descriptor = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: str) -> None:
        if self._descriptor < 0:
            return
        if self._flush is None:
            self._flush = self._clock.callLater(0, self._write)
        self._lines.append(line)

    def _write(self) -> None:
        self._flush = None
        lines, self._lines = self._lines, []
        text = "".join([f"{line}\n" for line in lines]).encode("utf-8", "backslashreplace")
        try:
            self._follow()
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError as error:
            if self._clock.seconds() - self._complained >= _COMPLAIN_EVERY:
                self._complained = self._clock.seconds()
                self._log.error("cannot write to {path}: {why}", path=self._path, why=error.strerror)

    def _follow(self) -> None:
        """Open the file anew if the path is not its own any more."""
        ours = os.fstat(self._descriptor)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh

    def close(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._write()
        os.close(self._descriptor)
        self._descriptor = -1

"""One line for each request, and where the lines go.

The law: no line holds a query or a header of a client's request, nor anything that could look like
another line.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python import log
from twisted.web.http import Request

from docxy.config import ConfigError
from docxy.values import DAEMON

_LONGEST_PATH = 512
_COMPLAIN_EVERY = 60.0


class Lines(Protocol):
    """Where lines go."""

    def write(self, line: str, /) -> object:
        """Take one line, without its end."""

    def close(self) -> object:
        """There are no more."""


def request_line(request: Request) -> str:
    """What is said of a request behind the client's address: ` "GET /v2/" 200 2`."""
    path = request.uri.partition(b"?")[0][:_LONGEST_PATH].decode("ascii", "backslashreplace")
    if not path.isprintable() or '"' in path or "\\" in path:
        path = "".join(c if c.isprintable() and c not in '"\\' else f"\\x{ord(c):02x}" for c in path)
    method = request.method[:16].decode("ascii", "backslashreplace")
    return f' "{ascii(method)[1:-1]} {path}" {request.code} {request.sentLength}'


def open_lines(where: str | None, clock: IReactorTime) -> Lines:
    """Where the lines go that `Config.access_log` sends there.  Raises ConfigError."""
    if where is None:
        return Nowhere()
    if where == DAEMON:
        return DaemonLog()
    try:
        return FileLog(where, clock)
    except OSError as error:
        raise ConfigError(f"the access log {where} cannot be written to: {error.strerror}") from None


class Nowhere:
    """No access log."""

    def write(self, line: str) -> None:
        return

    def close(self) -> None:
        return


class DaemonLog:
    """Among all else that the daemon has to say."""

    def write(self, line: str) -> None:
        log.logfile.write(f"{line}\n")

    def close(self) -> None:
        return


class FileLog:
    """A file, written once in each turn of the reactor.

    One that was moved away, as logrotate does, is made anew; several processes may write to the same.
    """

    _log = Logger()

    def __init__(self, path: str, clock: IReactorTime) -> None:
        """Raises OSError when it cannot be written to."""
        self._path = path
        self._clock = clock
        self._lines: list[str] = []
        self._flush: IDelayedCall | None = None
        self._complained = -_COMPLAIN_EVERY
        self._second, self._shown = -1, ""
        self._descriptor = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def write(self, line: str) -> None:
        if self._descriptor < 0:
            return
        if self._flush is None:
            self._flush = self._clock.callLater(0, self._write)
        self._lines.append(line)

    def _write(self) -> None:
        self._flush = None
        lines, self._lines = self._lines, []
        now = self._now()
        text = "".join([f"{now} {line}\n" for line in lines]).encode("utf-8", "backslashreplace")
        try:
            self._follow()
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError as error:
            if self._clock.seconds() - self._complained >= _COMPLAIN_EVERY:
                self._complained = self._clock.seconds()
                self._log.error("cannot write to {path}: {why}", path=self._path, why=error.strerror)

    def _now(self) -> str:
        """The time as twistd's log has it; lines of one second share it."""
        seconds = int(self._clock.seconds())
        if seconds != self._second:
            self._second = seconds
            self._shown = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
        return self._shown

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

"""A command on a terminal of its own, as somebody who types sees it.

The law: the command has this terminal and no other, so that what it asks of `/dev/tty` comes here, too.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.processes import PATIENCE

COLUMNS, LINES = 80, 24
_MOVED = re.compile(r"\x1b\[[0-9;]*[Hf]")
"""The cursor goes elsewhere."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Terminal:
    """One command."""

    def __init__(self, test: SynchronousTestCase, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """It ends with the test at the latest."""
        self._ours, theirs = pty.openpty()
        test.addCleanup(os.close, self._ours)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(self._ours)
        self.text = ""
        """All that was written, with what moves the cursor and changes colours."""
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environ, "TERM": "xterm"},
        )
        # What it wrote last can be read after its end.
        test.addCleanup(os.close, theirs)
        test.addCleanup(self._process.wait)
        test.addCleanup(self._process.kill)

    @property
    def lines(self) -> list[str]:
        """Every line that was ever drawn, as it can be read."""
        return [line.rstrip() for line in re.split(r"[\r\n]+", _CONTROL.sub("", _MOVED.sub("\n", self.text)))]

    @property
    def after(self) -> list[object]:
        """How the terminal is set, as `before`."""
        return termios.tcgetattr(self._ours)

    def until(self, words: str) -> None:
        """Return when these words have been written."""
        deadline = time.monotonic() + PATIENCE
        while words not in _CONTROL.sub("", self.text):
            left = deadline - time.monotonic()
            if left < 0:
                raise AssertionError(f"{words!r} did not come, but {self.text!r}")
            self._read(left)

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._ours, keys.encode())

    def ended(self) -> int:
        """Its exit status, when it has ended by itself."""
        status = self._process.wait(PATIENCE)
        while self._read(0):
            pass
        return status

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], seconds)
        if ready:
            self.text += os.read(self._ours, 65536).decode(errors="replace")
        return bool(ready)

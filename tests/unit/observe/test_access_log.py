"""The access log: where its lines go, and what becomes of a file that is moved or fails."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe.access_line import Combined
from docxy.observe.access_log import DaemonLog, FileLog, Nowhere, open_lines
from docxy.observe.daemon_log import DaemonObserver
from docxy.settings.log_level import LogLevels
from docxy.settings.model import ConfigError, LogFormat
from docxy.settings.parsers import DAEMON
from tests.harness.mirror import Logged


class FileLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.path = Path(self.mktemp())
        self.lines = FileLog(str(self.path), Combined(), self.clock)
        self.closed = False
        self.addCleanup(self.close)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.lines.close()

    def test_lines(self) -> None:
        """Lines are in the file after the turn in which they were written."""
        self.lines.write("one")
        self.lines.write("two")
        self.assertEqual(self.path.read_text(), "")
        self.clock.advance(0)
        self.lines.write("three \udc80")
        self.clock.advance(0)
        self.assertEqual(self.path.read_text().splitlines(), ["one", "two", "three \\udc80"])

    def test_appended(self) -> None:
        """What is there stays."""
        self.path.write_text("before\n")
        self.lines.write("after")
        self.clock.advance(0)
        self.assertEqual([line[-6:].strip() for line in self.path.read_text().splitlines()], ["before", "after"])

    def test_moved(self) -> None:
        """A file that is moved away, or removed, is made anew; not a line is lost or written twice."""
        moved = Path(self.mktemp())
        self.lines.write("one")
        self.clock.advance(0)
        os.rename(self.path, moved)
        self.lines.write("two")
        self.clock.advance(0)
        self.assertIn("one", moved.read_text())
        self.assertNotIn("two", moved.read_text())
        self.assertIn("two", self.path.read_text())
        os.unlink(self.path)
        self.lines.write("three")
        self.clock.advance(0)
        self.assertIn("three", self.path.read_text())

    def test_closed(self) -> None:
        """At the close what waits is written; what comes later is dropped."""
        self.lines.write("one")
        self.close()
        self.assertIn("one", self.path.read_text())
        self.lines.write("two")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failing(self) -> None:
        """A disk that fails is told of, once a minute, and nothing else comes of it."""
        logged = Logged()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        self.path.unlink()
        self.path.mkdir()
        for _ in range(3):
            self.lines.write("lost")
            self.clock.advance(1)
        self.assertEqual(len(logged.events), 1)
        self.clock.advance(60)
        self.lines.write("lost")
        self.clock.advance(0)
        told = [formatEvent(event) for event in logged.events]
        self.assertEqual(told, [f"cannot write to {self.path}: Is a directory"] * 2)
        self.path.rmdir()
        self.lines.write("kept")
        self.clock.advance(0)
        self.assertIn("kept", self.path.read_text())


class WhereTests(SynchronousTestCase):
    def test_where(self) -> None:
        """A file, the daemon's log, or nowhere."""
        clock = Clock()
        lines = open_lines(self.mktemp(), LogFormat.COMBINED, clock)
        self.assertIsInstance(lines, FileLog)
        lines.close()
        self.assertIsInstance(open_lines(DAEMON, LogFormat.JSON, clock), DaemonLog)
        nowhere = open_lines(None, LogFormat.COMBINED, clock)
        self.assertIsInstance(nowhere, Nowhere)
        request: Any = None
        nowhere.answered(request, "192.0.2.1", 0.0, 0.0)
        nowhere.close()

    def test_unwritable(self) -> None:
        """A file that cannot be written to is named when docxy starts."""
        path = str(Path(self.mktemp()) / "docxy.log")
        error = self.assertRaises(ConfigError, open_lines, path, LogFormat.COMBINED, Clock())
        self.assertEqual(str(error), f"the access log {path} cannot be written to: No such file or directory")

    def test_daemon(self) -> None:
        """The daemon's log gets each line whole: nothing stands before it."""
        written = StringIO()
        observer = DaemonObserver(written, LogFormat.COMBINED, LogLevels("error"), True)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        lines = DaemonLog(Combined())
        lines.write("one {two}")
        lines.close()
        self.assertEqual(written.getvalue(), "one {two}\n")

"""The access log: what a line says, where it goes, and what becomes of a file that is moved or fails."""

from __future__ import annotations

import os
import time
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python import log
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from docxy.accesslog import DaemonLog, FileLog, Nowhere, open_lines, request_line
from docxy.config import ConfigError
from docxy.values import DAEMON
from tests.mirror import Logged


def asked(uri: bytes, method: bytes = b"GET") -> str:
    request = DummyRequest([])
    request.uri, request.method, request.code, request.sentLength = uri, method, 200, 7
    return request_line(request)  # type: ignore[arg-type]  # as much of one as is needed


class LineTests(SynchronousTestCase):
    def test_line(self) -> None:
        """Method, path, status and bytes; never the query."""
        self.assertEqual(asked(b"/v2/a/manifests/b?ns=x&token=sesame"), ' "GET /v2/a/manifests/b" 200 7')

    def test_forged(self) -> None:
        """Nothing a client writes ends the line or its quotes, or is a terminal's control sequence."""
        for uri, shown in (
            (b'/a" 500 1', "/a\\x22 500 1"),
            (b"/a\\", "/a\\x5c"),
            (b"/\x1b[2J", "/\\x1b[2J"),
            (b"/\xff\xfe", "/\\x5cxff\\x5cxfe"),
            (b"/a\r\n127.0.0.1", "/a\\x0d\\x0a127.0.0.1"),
        ):
            self.assertEqual(asked(uri), f' "GET {shown}" 200 7')
        self.assertEqual(asked(b"/", b"G\nT\xff"), ' "G\\nT\\\\xff /" 200 7')

    def test_long(self) -> None:
        """A path or a method of any length makes a line of some hundred characters."""
        self.assertLess(len(asked(b"/" + b"a" * 10_000, b"M" * 10_000)), 600)


class FileLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.path = Path(self.mktemp())
        self.lines = FileLog(str(self.path), self.clock)
        self.closed = False
        self.addCleanup(self.close)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.lines.close()

    def test_lines(self) -> None:
        """Lines are in the file after the turn in which they were written, each with the time."""
        self.lines.write("one")
        self.lines.write("two")
        self.assertEqual(self.path.read_text(), "")
        self.clock.advance(0)
        self.clock.advance(1)
        self.lines.write("three \udc80")
        self.clock.advance(0)
        first, second, third = self.path.read_text().splitlines()
        shown = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(1_800_000_000))
        self.assertEqual((first, second), (f"{shown} one", f"{shown} two"))
        self.assertTrue(third.endswith("01+0000 three \\udc80") or third[19:].endswith(" three \\udc80"), third)
        self.assertNotEqual(third[:19], shown[:19])

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
        self.assertIn(" one", moved.read_text())
        self.assertNotIn("two", moved.read_text())
        self.assertIn(" two", self.path.read_text())
        os.unlink(self.path)
        self.lines.write("three")
        self.clock.advance(0)
        self.assertIn(" three", self.path.read_text())

    def test_closed(self) -> None:
        """At the close what waits is written; what comes later is dropped."""
        self.lines.write("one")
        self.close()
        self.assertIn(" one", self.path.read_text())
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
        self.assertIn(" kept", self.path.read_text())


class WhereTests(SynchronousTestCase):
    def test_where(self) -> None:
        """A file, the daemon's log, or nowhere."""
        clock = Clock()
        lines = open_lines(self.mktemp(), clock)
        self.assertIsInstance(lines, FileLog)
        lines.close()
        self.assertIsInstance(open_lines(DAEMON, clock), DaemonLog)
        nowhere = open_lines(None, clock)
        self.assertIsInstance(nowhere, Nowhere)
        nowhere.write("line")
        nowhere.close()

    def test_unwritable(self) -> None:
        """A file that cannot be written to is named when docxy starts."""
        path = str(Path(self.mktemp()) / "docxy.log")
        error = self.assertRaises(ConfigError, open_lines, path, Clock())
        self.assertEqual(str(error), f"the access log {path} cannot be written to: No such file or directory")

    def test_daemon(self) -> None:
        """The daemon's log has one line of its own for each."""
        written: list[str] = []
        self.patch(log.logfile, "write", written.append)
        lines = DaemonLog()
        lines.write("one")
        lines.close()
        self.assertEqual(written, ["one\n"])

"""The daemon's log: its two forms, and how much each part says."""

from __future__ import annotations

import json
from io import StringIO

from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe.daemon_log import WHOLE, DaemonObserver
from docxy.settings.log_level import LogLevels, log_levels
from docxy.settings.model import LogFormat


class DaemonLogTests(SynchronousTestCase):
    def log(
        self,
        namespace: str,
        *,
        format: LogFormat = LogFormat.COMBINED,
        levels: str = "info",
        stamped: bool = False,
    ) -> tuple[Logger, StringIO]:
        """A logger with this name, and what is written of what it says."""
        written = StringIO()
        return Logger(namespace, observer=DaemonObserver(written, format, log_levels(levels), stamped)), written

    def test_people(self) -> None:
        """A line says which part of docxy speaks and, if it is no mere information, how grave it is."""
        for namespace, shown in (
            ("docxy.pull.blobs.fill.Fill", "pull"),
            ("docxy.tap", "docxy"),
            ("twisted.internet.tcp", "twisted"),
            ("stderr", "stderr"),
        ):
            log, written = self.log(namespace)
            log.info("one {n}", n=1)
            log.warn("two")
            self.assertEqual(written.getvalue(), f"[{shown}] one 1\n[{shown} warn] two\n")

    def test_time(self) -> None:
        """Where nobody else adds the time, a line begins with it."""
        log, written = self.log("docxy.web.respond", stamped=True)
        log.info("one")
        self.assertRegex(written.getvalue(), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[web\] one\n\Z")

    def test_json(self) -> None:
        """One object a line, with the traceback of a failure and the request's id in fields of their own."""
        log, written = self.log("docxy.web.respond", format=LogFormat.JSON)
        log.warn('{what}: "no"\n', what="x", request_id="r-1")
        try:
            raise ValueError("a fault")
        except ValueError:
            log.failure("it failed")
        first, second = (json.loads(line) for line in written.getvalue().splitlines())
        time = first.pop("time")
        self.assertRegex(time, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
        message = 'x: "no"\n'
        self.assertEqual(
            first, {"log": "daemon", "level": "warn", "part": "web", "message": message, "request_id": "r-1"}
        )
        self.assertEqual((second["level"], second["message"]), ("critical", "it failed"))
        self.assertIn("ValueError: a fault", second["traceback"])

    def test_levels(self) -> None:
        """Each part says what its level lets through; the usual level counts for the rest."""
        for namespace, shown in (
            ("docxy.upstream.fetch.Fetcher", ["debug", "info", "warn", "error"]),
            ("docxy.pull.blobs.fill", ["warn", "error"]),
            ("docxy.tap", ["warn", "error"]),
            ("twisted.internet", ["error"]),
            ("log_legacy", ["error"]),
        ):
            log, written = self.log(namespace, levels="warn,upstream=debug,twisted=error")
            for level in ("debug", "info", "warn", "error"):
                getattr(log, level)(level)
            self.assertEqual([line.split()[-1] for line in written.getvalue().splitlines()], shown, namespace)

    def test_whole(self) -> None:
        """A line that is complete is written as it is, whatever the level and the form."""
        log, written = self.log(WHOLE, format=LogFormat.JSON, levels="error")
        log.info("{number}: {whole}", number=1, whole="a line {x}")
        self.assertEqual(written.getvalue(), "a line {x}\n")

    def test_publisher(self) -> None:
        """It is an observer as Twisted's publisher wants it."""
        written, publisher = StringIO(), LogPublisher()
        publisher.addObserver(DaemonObserver(written, LogFormat.COMBINED, LogLevels(), False))
        Logger("docxy.tap", observer=publisher).info("one")
        self.assertEqual(written.getvalue(), "[docxy] one\n")

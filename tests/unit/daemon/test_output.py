"""Where the daemon's log goes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.application.service import Application
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.output import Output, RootService
from docxy.settings.load import load
from docxy.settings.model import LogFormat


class OutputTests(SynchronousTestCase):
    def test_where(self) -> None:
        """On a terminal, into a file, or wherever twistd takes it."""
        for twistd, prints, own in (
            (None, False, False),
            ({"nodaemon": 1, "logfile": None}, True, True),
            ({"nodaemon": 1, "logfile": "-"}, True, True),
            ({"nodaemon": 1, "logfile": "docxy.log"}, False, True),
            ({"nodaemon": 0, "logfile": None}, False, True),
            ({"nodaemon": 0, "logfile": "-"}, False, False),
            ({"nodaemon": 1, "logfile": None, "syslog": 1}, False, False),
            ({"nodaemon": 1, "logfile": None, "logger": "a.b"}, False, False),
        ):
            self.assertEqual(Output.of(twistd), Output(prints, own), twistd)


class RootTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))

    def observer(self, twistd: dict[str, Any]) -> Any:
        """What the application that twistd makes has for its log."""
        config = evolve(load({}, {"CERT_PATH": "off"}), log_format=LogFormat.JSON)
        application = Application("docxy")
        RootService(config, twistd, None, Clock()).setServiceParent(application)
        return application.getComponent(ILogObserver, None)

    def test_file(self) -> None:
        """A log file gets docxy's lines."""
        path = Path(self.mktemp())
        observer = self.observer({"logfile": str(path)})
        Logger("docxy.tap", observer=observer).info("one")
        self.assertIn('"part":"docxy","message":"one"', path.read_text())

    def test_syslog(self) -> None:
        """What twistd sends elsewhere stays twistd's."""
        self.assertIsNone(self.observer({"logfile": None, "nodaemon": 1, "syslog": 1}))

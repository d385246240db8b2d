"""`--log-level`: for all, by part, and what is none."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import docxy
from docxy.settings.load import load
from docxy.settings.log_level import PARTS, LogLevels, log_levels
from docxy.settings.model import ConfigError, LogFormat


class LogLevelTests(SynchronousTestCase):
    def test_levels(self) -> None:
        """A level for all, levels of parts, or both in any order."""
        self.assertEqual(log_levels("warn"), LogLevels("warn"))
        self.assertEqual(log_levels("upstream=debug"), LogLevels("info", {"upstream": "debug"}))
        both = LogLevels("error", {"upstream": "debug", "twisted": "warn"})
        self.assertEqual(log_levels("twisted=warn, error,upstream=debug"), both)

    def test_parts(self) -> None:
        """Each package of docxy's that writes into the log is a part, and Twisted; no other is."""
        package = Path(docxy.__file__).parent
        speak = {
            path.relative_to(package).parts[0] for path in package.glob("*/**/*.py") if "Logger()" in path.read_text()
        }
        self.assertEqual({*PARTS}, speak | {"twisted"})

    def test_wrong(self) -> None:
        """What is no level ends the start with a line that says what there is."""
        for text in ("loud", "", "warn,", "warn,info", "upstream=loud", "moon=debug", "=debug", "web=info,web=warn"):
            self.assertRaises(ValueError, log_levels, text)
        error = self.assertRaises(ConfigError, load, {"log-level": "moon=debug"}, {})
        self.assertEqual(
            str(error),
            "--log-level: 'moon=debug' is not a level (debug, info, warn, error), nor a list such as "
            "warn,upstream=debug; parts are access, archive, catalog, daemon, observe, orders, pull, steward, storage, "
            "upstream, web, twisted",
        )

    def test_format(self) -> None:
        """Two forms, and a line for any other."""
        self.assertIs(load({"log-format": "json"}, {}).log_format, LogFormat.JSON)
        error = self.assertRaises(ConfigError, load, {"log-format": "xml"}, {})
        self.assertEqual(str(error), "--log-format: 'xml' is not a form of the log: combined or json")

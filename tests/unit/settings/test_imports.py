"""What reading settings brings along."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.checkout import TOP


class ImportTests(SynchronousTestCase):
    def test_no_network(self) -> None:
        """A fresh interpreter that imports the settings loads no part of Twisted and no OpenSSL."""
        listing = "import docxy.settings.load, sys; print(*sorted(sys.modules))"
        run = subprocess.run(
            [sys.executable, "-c", listing], cwd=TOP, capture_output=True, text=True, timeout=60, check=True
        )
        loaded = run.stdout.split()
        self.assertIn("docxy.settings.upstreams", loaded)
        self.assertEqual([name for name in loaded if name.partition(".")[0] in ("twisted", "OpenSSL", "treq")], [])

"""A missing piece is named: skipped on a laptop, failed in CI."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.live.requirements import PACKAGES, missing, require

SETUP = Path(__file__).with_name("setup.sh")


class RequirementsTests(SynchronousTestCase):
    """What `require` and `missing` do."""

    def test_names_program_and_package(self) -> None:
        """A program nobody has is reported with the package that would bring it."""
        told = missing({"no-such-daemon": "no-such-package"})
        self.assertIn("no-such-daemon (apt-get install no-such-package)", told)

    def test_skips_on_a_laptop(self) -> None:
        """Without `CI` the test is skipped, and the message has the piece."""
        skipped = self.assertRaises(SkipTest, require, {}, ["nginx (apt-get install nginx)"])
        self.assertIn("nginx (apt-get install nginx)", str(skipped))

    def test_fails_in_ci(self) -> None:
        """With `CI` it is a failure."""
        failed = self.assertRaises(AssertionError, require, {"CI": "true"}, ["nginx (apt-get install nginx)"])
        self.assertIn("nginx (apt-get install nginx)", str(failed))

    def test_nothing_missing(self) -> None:
        """When all is there, nothing happens, in CI neither."""
        require({"CI": "true"}, [])


class SetupTests(SynchronousTestCase):
    """`setup.sh`, with recorders in place of the real commands."""

    def setUp(self) -> None:
        """A directory with an `apt-get` and an `apt-cache` that only write down how they were called."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.bin = Path(directory.name)
        self.calls = self.bin / "calls"
        for name in ("apt-get", "apt-cache", "sudo", "tee", "chmod", "rm"):
            self._recorder(name, "cat >/dev/null" if name == "tee" else "")

    def _recorder(self, name: str, body: str) -> None:
        script = self.bin / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{body}\n')
        script.chmod(0o755)

    def set_up(self) -> str:
        environ = {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        subprocess.run(["sh", str(SETUP)], env=environ, check=True, capture_output=True)
        return self.calls.read_text()

    def test_installs_every_package(self) -> None:
        """Every package that the tests name is installed by it."""
        self._recorder("id", "echo 0")
        calls = self.set_up()
        installed = next(line for line in calls.splitlines() if line.startswith("apt-get install"))
        # util-linux is on every Debian.
        self.assertEqual(set(PACKAGES.values()) - set(installed.split()), {"util-linux"})

    def test_sudo_when_not_root(self) -> None:
        """Somebody else than root goes through sudo for everything."""
        self._recorder("id", "echo 1000")
        self.assertNotIn("\napt-get", self.set_up())
        self.assertIn("sudo env DEBIAN_FRONTEND=noninteractive apt-get install", self.set_up())

    def test_no_apt(self) -> None:
        """Where there is no apt-get, one line says what to install, and nothing is done."""
        ran = subprocess.run(
            ["/bin/sh", str(SETUP)], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False
        )
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr.count("\n")), (1, "", 1))
        self.assertIn("no apt-get here; install what Debian calls: buildah ", ran.stderr)
        words = ran.stderr.split()
        self.assertEqual(set(PACKAGES.values()) - set(words), {"util-linux"})

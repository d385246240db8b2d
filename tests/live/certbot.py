"""certbot itself, as an operator runs it who has no other way to certificates.

The law: it asks a server of the test's alone, and keeps all that it has in one directory.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from attrs import frozen

from tests.harness.docxy import environment
from tests.live.machine import HOSTNAME
from tests.live.pebble import Pebble
from tests.live.wheels import programs

VERSION = "5.8.0"


@frozen
class Certbot:
    """One account and its certificates."""

    directory: Path
    """Its own, existing."""
    pebble: Pebble

    @property
    def live(self) -> Path:
        """Where the links to the newest certificate and its key are."""
        return self.directory / "config" / "live" / HOSTNAME

    def obtain(self) -> None:
        """Get the first certificate, by a server of certbot's own on the port that pebble asks."""
        where = (f"--http-01-port={self.pebble.http_port}", "--http-01-address=127.0.0.1")
        account = ("--agree-tos", "--register-unsafely-without-email")
        self._run("certonly", "--standalone", *where, *account, f"--domain={HOSTNAME}")

    def renew(self, hook: str) -> str:
        """Renew it though it has not ended, then run `hook`; what certbot says."""
        return self._run("renew", "--force-renewal", "--no-random-sleep-on-renew", f"--deploy-hook={hook}")

    def _run(self, *arguments: str) -> str:
        places = [f"--{name}-dir={self.directory / name}" for name in ("config", "work", "logs")]
        program = str(programs("certbot", VERSION) / "certbot")
        command = [program, *arguments, "--non-interactive", f"--server={self.pebble.directory_url}", *places]
        trusted = {"REQUESTS_CA_BUNDLE": str(self.pebble.certificate.root)}
        environ = {**environment(), **trusted, "PATH": os.environ["PATH"]}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

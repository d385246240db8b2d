"""A daemon with an archive that nobody can reach."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.docxy import FOREGROUND, environment, spawn
from tests.harness.processes import free_port

SECRET = "t0psecret"


class UnreachableTests(SynchronousTestCase):
    def test_serves(self) -> None:
        """Two workers serve, one says once what is wrong, without the secret, and all end when they are told to."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        (directory / "secret").write_text(SECRET)
        port = free_port()
        (directory / "docxy.toml").write_text(
            f"cache = '{directory}/cache'\n"
            "cache_size = '100MB'\n"
            "admin_socket = 'off'\n"
            f"port = 'tcp:{port}:interface=127.0.0.1'\n"
            "workers = 2\n"
            "[archive]\n"
            "url = 's3://bucket/prefix'\n"
            f"endpoint = 'http://127.0.0.1:{free_port()}'\n"
            "access_key = 'docxy'\n"
            f"secret_file = '{directory}/secret'\n"
        )
        daemon = spawn(self, [*FOREGROUND, "--config", str(directory / "docxy.toml")], environment())
        daemon.healthy(f"http://127.0.0.1:{port}/health")
        daemon.until(lambda: "pulls go on without the archive" in daemon.text())
        daemon.healthy(f"http://127.0.0.1:{port}/ready")
        daemon.stop()
        self.assertEqual(daemon.text().count("degraded: s3://bucket/prefix: cannot write check"), 1)
        self.assertNotIn(SECRET, daemon.text())
        self.assertNotIn("Traceback", daemon.text())

"""What a daemon says to probes when its cache cannot be written any more."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.docxy import FOREGROUND, environment, spawn
from tests.harness.processes import fetch, free_port


class UnusableCacheTests(SynchronousTestCase):
    def test_not_ready(self) -> None:
        """It lives, has started and serves past its cache; it is not ready, says why, and names no path.

        Once the cache can be written again, it is ready.
        """
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        cache, port = directory / "cache", free_port()
        (directory / "docxy.toml").write_text(
            f"cache = '{cache}'\n"
            "cache_size = '100MB'\n"
            "admin_socket = 'off'\n"
            f"port = 'tcp:{port}:interface=127.0.0.1'\n"
            "workers = 1\n"
        )
        daemon = spawn(self, [*FOREGROUND, "--config", str(directory / "docxy.toml")], environment())
        url = f"http://127.0.0.1:{port}"
        daemon.healthy(f"{url}/ready")
        # Nobody, not even root, writes below what is not there.
        cache.rename(directory / "away")
        daemon.until(lambda: "degraded: the cache cannot be used" in daemon.text())
        status, _, body = fetch(f"{url}/ready")
        missing = {"cache": "docxy cannot use its cache; its log says why"}
        self.assertEqual((status, json.loads(body)), (503, {"status": "not ready", "missing": missing}))
        for path in ("/health", "/startup", "/v2/"):
            self.assertEqual(fetch(f"{url}{path}")[0], 200, path)
        (directory / "away").rename(cache)
        daemon.until(lambda: "the cache can be used again" in daemon.text())
        self.assertEqual(fetch(f"{url}/ready")[0], 200)
        daemon.stop()

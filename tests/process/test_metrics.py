"""The metrics port of one process, from outside."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy import __version__
from tests.harness.docxy import start_docxy
from tests.harness.processes import Daemon, fetch, free_port
from tests.harness.scrape import values


class ServedTests(SynchronousTestCase):
    """One process, from outside."""

    def start(self, *args: str) -> tuple[Daemon, int, int]:
        port, metrics = free_port(), free_port()
        environ = {"CERT_PATH": "off", "INTERFACE": "127.0.0.1", "WORKERS": "1", "METRICS_PORT": str(metrics)}
        daemon = start_docxy(self, {"PORT": str(port), **environ}, args)
        daemon.healthy(f"http://127.0.0.1:{port}/health")
        return daemon, port, metrics

    def test_served(self) -> None:
        """Requests are counted by kind and status, repeated ones too; scrapes are in no access log."""
        daemon, port, metrics = self.start("--no-auth")
        for path in ("/v2/", "/v2/", "/nothing", "/v2/a/b/c", "/v2/ghcr.io/a/manifests/b"):
            fetch(f"http://127.0.0.1:{port}{path}")
        status, _, body = fetch(f"http://127.0.0.1:{metrics}/metrics")
        told = values(body.decode())
        self.assertEqual(status, 200)
        self.assertEqual(told["docxy_requests_total ping 200 docker.io"], 2)
        self.assertEqual(told["docxy_requests_total other 404"], 3)
        self.assertGreaterEqual(told["docxy_requests_total health 200"], 1)
        info = [name for name in told if name.startswith("docxy_build_info")]
        self.assertEqual([name.split()[-1] for name in info], [__version__])
        self.assertEqual(told["docxy_request_seconds_count ping ok"], 2)
        self.assertNotIn("/metrics", daemon.text())
        self.assertEqual(fetch(f"http://127.0.0.1:{port}/metrics")[0], 404)
        status, headers, body = fetch(f"http://127.0.0.1:{metrics}/v2/")
        self.assertEqual((status, headers["Content-Type"]), (404, "application/json"))
        self.assertIn(b"/metrics", body)

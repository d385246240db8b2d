"""What promtool says of the alert rules, of their tests, and of the dashboard's queries."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.processes import CHECKOUT, which
from tests.live.requirements import missing, require
from tests.unit.observe.test_shown import expressions

PROMETHEUS = CHECKOUT / "deploy" / "prometheus"


class AlertTests(SynchronousTestCase):
    def setUp(self) -> None:
        require(lacking=missing({"promtool": "prometheus"}))

    def promtool(self, *arguments: str, cwd: Path = PROMETHEUS) -> None:
        promtool = which("promtool")
        assert promtool is not None
        done = subprocess.run([promtool, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_check(self) -> None:
        """The rules can be loaded."""
        self.promtool("check", "rules", "alerts.yml")

    def test_rules(self) -> None:
        """Each alert comes when it should, and none when all is well."""
        self.promtool("test", "rules", "alerts_test.yml")

    def test_dashboard(self) -> None:
        """Each query of the dashboard is one that Prometheus understands."""
        dashboard = json.loads((CHECKOUT / "deploy" / "grafana" / "docxy.json").read_text("utf-8"))
        queries = [
            query.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
            for query in expressions(dashboard)
            if not query.startswith("label_values")
        ]
        self.assertGreater(len(queries), 20)
        rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
        directory = Path(self.mktemp())
        directory.mkdir()
        # JSON is YAML.
        (directory / "queries.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        self.promtool("check", "rules", "queries.yml", cwd=directory)

"""What is made of the metrics: the table in docs/operations.md, the dashboard, the alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe.metrics import FIRST_BYTE, REQUESTS
from docxy.observe.prometheus import Kept, Meter, Tally, webhook_counter

CHECKOUT = Path(__file__).resolve().parents[3]
PROVISIONED = ("dashboards", "datasources")
"""Directories of Grafana's provisioning."""


def families(test: SynchronousTestCase) -> dict[str, str]:
    """Each metric that docxy has, as it is written in documentation, and its type."""
    tally = Tally()
    test.addCleanup(tally.close)
    registry = CollectorRegistry()
    meter = Meter(registry)
    meter.certified(0)
    meter.renewing(0, 0)
    meter.kept(0, 0, 0)
    meter.archived(True, 0)
    Kept(registry).count(0, 0)
    webhook_counter(tally.own)("delivered")
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for each in (registry, tally.own)
        for family in each.collect()
    }


def series(test: SynchronousTestCase) -> set[str]:
    """The names by which Prometheus has them."""
    found = set()
    for name, kind in families(test).items():
        found |= {f"{name}_{part}" for part in ("bucket", "count", "sum")} if kind == "histogram" else {name}
    return found


def expressions(part: Any) -> Iterator[str]:
    """All queries of a dashboard."""
    if isinstance(part, dict):
        yield from (part[name] for name in ("expr", "definition") if name in part)
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from expressions(each)


class TableTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Each metric has a row in docs/operations.md, and each row is a metric's."""
        rows = [
            row.split("|")[1]
            for row in (CHECKOUT / "docs" / "operations.md").read_text("utf-8").splitlines()
            if row.startswith("| `docxy_")
        ]
        named = [name for row in rows for name in re.findall(r"`(docxy_\w+)`", row)]
        self.assertEqual(sorted(named), sorted(families(self)))


class DeployTests(SynchronousTestCase):
    """`tests/live/test_alerts.py` has promtool judge the same files."""

    def test_dashboard(self) -> None:
        """The dashboard's queries name metrics that there are, and leave out none."""
        text = (CHECKOUT / "deploy" / "grafana" / "docxy.json").read_text("utf-8")
        named = {name for query in expressions(json.loads(text)) for name in re.findall(r"docxy_\w+", query)}
        self.assertEqual(named - series(self), set())
        shown = {re.sub("_(bucket|count|sum)$", "", name) for name in named}
        self.assertEqual(set(families(self)) - shown, set())

    def test_errors(self) -> None:
        """Where a share of errors is made, probes are on neither side of the line."""
        for path in ("prometheus/alerts.yml", "grafana/docxy.json"):
            text = (CHECKOUT / "deploy" / path).read_text("utf-8").replace("\\", "")
            shares = [found for found in re.findall(r"docxy_requests_total\{([^}]*)\}", text) if "5.." in found]
            self.assertEqual([found for found in shares if 'kind!="health"' not in found], [], path)
            self.assertTrue(shares, path)

    def test_panels(self) -> None:
        """No two panels share a place, and none is without a query."""
        panels = json.loads((CHECKOUT / "deploy" / "grafana" / "docxy.json").read_text("utf-8"))["panels"]
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(at["x"] + at["w"], 24)
            taken |= cells
            self.assertTrue(panel["type"] == "row" or panel["targets"], panel["title"])

    def test_exemplars(self) -> None:
        """Where a histogram with exemplars is drawn, Grafana asks for them."""
        panels = json.loads((CHECKOUT / "deploy" / "grafana" / "docxy.json").read_text("utf-8"))["panels"]
        asked = {
            target["expr"]: target.get("exemplar", False)
            for panel in panels
            for target in panel.get("targets", ())
            if re.search(rf"({REQUESTS}|{FIRST_BYTE})_bucket", target["expr"])
        }
        self.assertTrue(asked)
        self.assertEqual([query for query, asks in asked.items() if not asks], [])

    def test_provisioning(self) -> None:
        """Grafana's files are YAML of the form that it reads, and name the data source that the dashboard asks for."""
        provisioning = CHECKOUT / "deploy" / "grafana" / "provisioning"
        told = {each: yaml.safe_load((provisioning / each / "docxy.yml").read_text("utf-8")) for each in PROVISIONED}
        self.assertEqual({each["apiVersion"] for each in told.values()}, {1})
        (source,), (provider,) = told["datasources"]["datasources"], told["dashboards"]["providers"]
        self.assertEqual({*source}, {"name", "type", "access", "url"})
        self.assertEqual((provider["name"], provider["type"], {*provider["options"]}), ("docxy", "file", {"path"}))
        self.assertEqual(sorted(each.name for each in provisioning.iterdir()), sorted(PROVISIONED))
        dashboard = json.loads((CHECKOUT / "deploy" / "grafana" / "docxy.json").read_text("utf-8"))
        wanted = [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
        self.assertEqual(wanted, [source["type"]])

    def test_alerts(self) -> None:
        """The alerts' expressions name metrics that there are; each alert is in the tests of the rules."""
        rules, tests = (
            (CHECKOUT / "deploy" / "prometheus" / name).read_text("utf-8") for name in ("alerts.yml", "alerts_test.yml")
        )
        self.assertEqual(set(re.findall(r"docxy_\w+", rules + tests)) - series(self), set())
        alerts = re.findall(r"- alert: (\w+)", rules)
        for alert in alerts:
            self.assertRegex(tests, rf"alertname: {alert}\n        exp_alerts:")
        named = re.findall(r"`(Docxy\w+)`", (CHECKOUT / "docs" / "operations.md").read_text("utf-8"))
        self.assertEqual(sorted(named), sorted(alerts))

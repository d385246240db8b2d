"""`/health`, `/ready`, `/startup`, asked over a Site in memory; `tests/process/test_health.py` asks a daemon."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from docxy.addresses import Networks, Perimeter
from docxy.observe.condition import Condition
from docxy.settings.model import AccessSettings, Config
from docxy.web.health import PATHS, Health
from tests.harness.mirror import UncachedCase
from tests.unit.web.exchange import exchange


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Resource()
        self.condition = Condition(cached=True)
        for path in PATHS:
            self.root.putChild(path, Health(self.condition))

    def test_get(self) -> None:
        """200 at once, JSON, not to be cached."""
        answer = exchange(self.root, b"GET", b"/health")
        self.assertEqual(answer.status, 200)
        self.assertEqual(json.loads(answer.body), {"status": "ok"})
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(exchange(self.root, b"GET", b"/health/?x").status, 200)

    def test_head(self) -> None:
        """The same headers, the length of the body too, and no body."""
        get, head = exchange(self.root, b"GET", b"/health"), exchange(self.root, b"HEAD", b"/health")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["content-length"], str(len(get.body)))
        self.assertEqual(head.headers["content-type"], "application/json")

    def test_starting(self) -> None:
        """Before the first look a process lives, but has not started and is not ready, and says what is missing."""
        self.assertEqual(exchange(self.root, b"GET", b"/health").status, 200)
        for path, status in ((b"/startup", "starting"), (b"/ready", "not ready")):
            answer = exchange(self.root, b"GET", path)
            self.assertEqual(answer.status, 503)
            self.assertEqual(answer.headers["retry-after"], "5")
            told = json.loads(answer.body)
            self.assertEqual((told["status"], list(told["missing"])), (status, ["startup"]))
            self.assertEqual(exchange(self.root, b"HEAD", path).body, b"")

    def test_ready(self) -> None:
        """A cache that fails is a reason not to be ready; registries that are down are one only without a cache."""
        self.condition.looked = True
        for cached, fails, unreachable, missing in (
            (True, False, False, []),
            (True, False, True, []),
            (True, True, False, ["cache"]),
            (False, False, False, []),
            (False, False, True, ["upstreams"]),
        ):
            self.condition.cached = cached
            self.condition.cache_failure = "cannot write to /srv/cache" if fails else None
            self.condition.unreachable = unreachable
            answer = exchange(self.root, b"GET", b"/ready")
            self.assertEqual(answer.status, 503 if missing else 200)
            self.assertEqual(list(json.loads(answer.body).get("missing", {})), missing)
            self.assertNotIn(b"/srv", answer.body)
            started = exchange(self.root, b"GET", b"/startup")
            self.assertEqual((started.status, json.loads(started.body)), (200, {"status": "started"}))
            self.assertEqual(exchange(self.root, b"GET", b"/health").status, 200)

    def test_other_methods(self) -> None:
        """405 that says what is allowed, whatever the method is called."""
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"BREW"):
            answer = exchange(self.root, method, b"/health")
            self.assertEqual(answer.status, 405)
            self.assertEqual(answer.headers["allow"], "GET, HEAD")
            self.assertEqual(json.loads(answer.body)["errors"][0]["code"], "UNSUPPORTED")

    def test_below(self) -> None:
        """There is nothing below it."""
        self.assertEqual(exchange(self.root, b"GET", b"/health/upstream").status, 404)


class PerimeterTests(UncachedCase):
    def make_config(self) -> Config:
        nobody = Perimeter(allow=Networks.of(["192.0.2.0/24"]))
        return evolve(UncachedCase.make_config(self), access=AccessSettings(perimeter=nobody))

    async def test_open(self) -> None:
        """Whoever `[access]` keeps out may ask for health, and for nothing else."""
        for path in ("/health", "/ready", "/startup"):
            self.assertEqual((await self.ask(path)).status, 200, path)
        self.assertEqual((await self.ask("/v2/")).status, 403)
        self.assertEqual((await self.ask("/ready/v2/")).status, 404)

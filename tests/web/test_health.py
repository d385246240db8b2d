"""`/health`, asked over a Site in memory; `tests/test_tap.py` asks it of a daemon."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from docxy.web.health import Health
from tests.web.exchange import exchange


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Resource()
        self.root.putChild(b"health", Health())

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

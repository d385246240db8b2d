"""What viewers who are not the operator learn of what went wrong."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe.model import About, ReadModel
from docxy.observe.recorder import Dropped
from docxy.observe.visible import placeless, visible
from tests.unit.observe.test_journal import exchange, layer

SECRET = "10.9.8.7:5000"
ALPINE = ("docker.io", "library/alpine")


class PlacelessTests(SynchronousTestCase):
    """Words of an upstream's errors."""

    def test_words(self) -> None:
        """URLs become the upstream's name; proxies, addresses, names of certificates and issuers are left out."""
        for told, shown in (
            ("https://10.9.8.7:5000 did not answer within 25 s", "hub did not answer within 25 s"),
            ("https://[fd00::1]:5000: its name cannot be resolved", "hub: its name cannot be resolved"),
            ("http://a.corp/x asks for what is for https://b.corp", "hub asks for what is for hub"),
            ("https://a-b.corp redirected from https to plain http (http://c.corp:1); refused",
             "hub redirected from https to plain http (hub); refused"),
            ("hub: the proxy proxy.corp answered 403", "hub: the proxy answered 403"),
            ("its address 10.1.2.3 is not on the public internet", "its address … is not on the public internet"),
            ("its address fd00::12 is not on the public internet", "its address … is not on the public internet"),
            ("its certificate is for a.corp, b.corp, not for c.corp", "its certificate is for another name"),
            ("its certificate is for a.corp, b.co", "its certificate is for another name"),
            ("was issued by an authority that is not trusted here (CN=Corp (1)); if it should be, name",
             "was issued by an authority that is not trusted here; if it should be, name"),
            ("hub sent bytes that are not sha256:00ff", "hub sent bytes that are not sha256:00ff"),
            ("version 1.2.3 took 12 s", "version 1.2.3 took 12 s"),
        ):  # fmt: skip
            self.assertEqual(placeless(told, "hub"), shown)


class VisibleTests(SynchronousTestCase):
    """A snapshot of a docxy whose upstream is on a private network."""

    def setUp(self) -> None:
        clock = Clock()
        clock.advance(100)
        about = About("1.0", "https://mirror.example", 0.0, "none", ["docker.io"], "/cache", 1)
        self.model = ReadModel(about, clock.seconds, lambda pull: None, lambda: None, hold=0.0, names=True)
        failed = f"https://{SECRET} did not answer within 25 s"
        self.model.take([exchange(1, status=504, error=failed), layer(2, whole=False, error=failed)], Dropped())
        resting = {"state": "backing-off", "asked": 90.0, "latency": None, "error": failed, "until": 130.0}
        self.model.sampled(
            1, {"upstreams": {"docker.io": {**resting, "limit": None, "remaining": None, "received": 0}}}
        )

    def shown(self, clients: bool) -> dict[str, Any]:
        return visible(self.model.snapshot(), [ALPINE], clients=clients)

    def test_errors(self) -> None:
        """Neither failures nor pulls nor registries tell where the registry is, to whom who pulled is told neither."""
        self.assertIn(SECRET, json.dumps(self.model.snapshot()), "the operator sees it")
        for clients in (False, True):
            shown = self.shown(clients)
            self.assertNotIn("10.9.8.7", json.dumps(shown))
            said = "docker.io did not answer within 25 s"
            self.assertEqual({row["words"] for row in shown["errors"]}, {said})
            self.assertEqual(shown["upstreams"][0]["error"], said)
            (pull,) = shown["pulls"]
            self.assertEqual([part["error"] for part in pull["parts"]], [said, said])
            self.assertIn(said, pull["verdict"]["words"])

    def test_reason(self) -> None:
        """What the operator wrote for everybody stays as it is."""
        reason = "docker.io/library/alpine is recalled: see https://wiki.corp/CVE-1"
        self.model.take([exchange(3, status=403, cache="recalled", error=reason)], Dropped())
        self.assertIn("https://wiki.corp/CVE-1", json.dumps(self.shown(False)["pulls"]))

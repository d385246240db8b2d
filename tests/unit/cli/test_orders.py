"""The commands that order something about images: what they ask, print, and end with."""

from __future__ import annotations

import json
import time
from typing import Any

from docxy.cli import orders as cli_orders
from tests.unit.cli.case import AdminCase
from tests.unit.cli.test_cache import lines

D = "sha256:" + "ab12cd34" * 8


def order(kind: str, image: str = "", digest: str = "", **more: Any) -> dict[str, Any]:
    told = {"kind": kind, "image": image, "digest": digest, "reason": "", "at": time.time() - 7200, "who": "ann"}
    return {**told, "about": image or digest, "lifted": False, **more}


class OrderTests(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(cli_orders, "_user", lambda: "ann")

    def test_freeze(self) -> None:
        """The whole digest is printed: it is what one looks for later."""
        self.answers["freeze"] = lines(order("freeze", "docker.io/library/python:3.12", D), dry_run=False)
        text = self.said(0, "freeze", f"python:3.12@{D}")
        self.assertEqual(text.split(), ["docker.io/library/python:3.12", "stays", "at", D])
        self.assertEqual(self.acts, [("freeze", {"image": f"python:3.12@{D}", "dry_run": False, "who": "ann"})])
        self.assertIn("would stay", self.said(0, "freeze", "python:3.12", "--dry-run"))
        self.assertEqual(json.loads(self.said(0, "freeze", "python:3.12", "--json"))["digest"], D)

    def test_release(self) -> None:
        """What it came to is said: a freeze ended, an exception given or taken back."""
        for told, words in (
            (order("freeze", "docker.io/library/a:1", lifted=True), "is not frozen any more"),
            (order("release", "docker.io/library/a:1"), "is excepted from the cooldown"),
            (order("release", "docker.io/library/a:1", lifted=True), "is not excepted from the cooldown any more"),
        ):
            self.answers["release"] = lines(told)
            self.assertEqual(self.said(0, "release", "a:1"), f"docker.io/library/a:1\n{words}\n")

    def test_recall(self) -> None:
        """The reason goes with it; --lift takes it back; what does not go together is refused."""
        self.answers["recall"] = lines(order("recall", "", D, reason="CVE-2026-1"), dry_run=False)
        text = self.said(0, "recall", D, "--reason", "CVE-2026-1")
        self.assertEqual(text, f"{D}\nis recalled: CVE-2026-1\n")
        asked = {"image": D, "lift": False, "dry_run": False, "who": "ann", "reason": "CVE-2026-1"}
        self.assertEqual(self.acts, [("recall", asked)])
        self.answers["recall"] = lines(order("recall", "", D, lifted=True))
        self.assertEqual(self.said(0, "recall", D, "--lift"), f"{D}\nis not recalled any more\n")
        wrong = self.run_docxy("recall", D, "--lift", "--reason", "x")
        self.assertEqual(wrong.exit_code, 2)
        self.assertIn("do not go together", wrong.stderr)

    def test_report(self) -> None:
        """What has it, and who pulled it, fits a terminal; a dry run shows the same."""
        pulled = {
            "id": "1",
            "image": "docker.io/library/app:v1",
            "started": time.time() - 3600,
            "seconds": 2.0,
            "client": "10.0.0.7",
            "account": "bob",
            "agent": "docker/29.1 (linux)",
            "platform": "linux/amd64",
        }
        found = (
            {"kind": "digest", "digest": D, "cached": True},
            {"kind": "tag", "image": "docker.io/library/app:v1", "digest": D},
            {"kind": "index", "digest": D},
            *({"kind": "pull", **pulled, "id": str(n), "refused": False} for n in range(cli_orders.SHOWN_PULLS + 1)),
            {"kind": "pull", **pulled, "id": "late", "refused": True},
        )
        self.answers["report"] = lines(*found, pulls=21)
        text = self.said(0, "recall", "--report", D)
        self.assertEqual([name for name, _ in self.acts], ["report"])
        for shown in (
            "Images that have it\n",
            "docker.io/library/app:v1",
            "Pulls in the last 7 days: 21",
            "and 1 more",
            "refused: 1;",
        ):
            self.assertIn(shown, text)
        self.assertIn("bob", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertEqual(len(json.loads(self.said(0, "recall", "--report", D, "--json"))["found"]), 25)
        self.answers["recall"] = lines(order("recall", "", D, reason="x"), dry_run=True)
        text = self.said(0, "recall", D, "--dry-run")
        self.assertIn("would be recalled", text)
        self.assertIn("Images that have it", text)
        self.answers["report"] = lines({"kind": "digest", "digest": D, "cached": False}, pulls=0)
        self.assertIn("Nothing that is cached leads to it", self.said(0, "recall", "--report", D))
        self.answers["report"] = lines(*found, pulls=21, whole=False)
        self.assertIn("there may be more", self.said(0, "recall", "--report", D))

    def test_recall_dry(self) -> None:
        """A dry run asks for one, with --lift, too; with --json it prints one JSON value and nothing beside it."""
        recalled = order("recall", "", D, reason="x")
        self.answers["report"] = lines({"kind": "digest", "digest": D, "cached": True}, pulls=0)
        self.answers["recall"] = lines(recalled, dry_run=True)
        told = json.loads(self.said(0, "recall", D, "--dry-run", "--json"))
        self.assertEqual((told["dry_run"], told["order"]["digest"], told["pulls"]), (True, D, 0))
        self.assertEqual([each["kind"] for each in told["found"]], ["digest"])
        self.answers["recall"] = lines({**recalled, "lifted": True}, dry_run=True)
        self.acts.clear()
        told = json.loads(self.said(0, "recall", D, "--lift", "--dry-run", "--json"))
        self.assertEqual((told["dry_run"], told["lifted"]), (True, True))
        self.assertEqual(self.acts, [("recall", {"image": D, "lift": True, "dry_run": True, "who": "ann"})])
        self.assertEqual(self.said(0, "recall", D, "--lift", "--dry-run"), f"{D}\nwould not be recalled any more\n")

    def test_pin(self) -> None:
        """How much is pinned is said; more than may be is exit status 1."""
        pinned = order("pin", "docker.io/library/python:3.12")
        self.answers["pin"] = lines(pinned, kept=3_000_000, wanted=3_000_000)
        self.assertEqual(
            self.said(0, "pin", "python:3.12"), "docker.io/library/python:3.12 is pinned\n3.0 MB are pinned in all\n"
        )
        self.answers["pin"] = lines(pinned, kept=3_000_000, wanted=9_000_000)
        self.assertIn("of 9.0 MB the last ones are not kept", self.said(1, "pin", "python:3.12"))
        self.answers["unpin"] = lines(pinned)
        self.assertEqual(self.said(0, "unpin", "python:3.12"), "docker.io/library/python:3.12 is not pinned any more\n")

    def test_orders(self) -> None:
        """All of them, with reason, time and who; hostile text moves no cursor."""
        self.answers["orders"] = lines(
            order("freeze", "docker.io/library/python:3.12", D),
            order("recall", "", D, reason="bad\x1b[2J", who="root\x1b[1m"),
            order("pin", "ghcr.io/o/**"),
        )
        text = self.said(0, "orders")
        for shown in ("freeze", D[:40], "recall", "bad?[2J", "2 h ago by root", "pin", "ghcr.io/o/**"):
            self.assertIn(shown, text)
        self.assertNotIn("\x1b", text)
        self.assertEqual(len(json.loads(self.said(0, "orders", "--json"))), 3)
        self.answers["orders"] = lines()
        self.assertEqual(self.said(0, "orders"), "There are no orders.\n")

    def test_refused(self) -> None:
        """An order that was not given is exit status 1, and says why."""
        self.answers["recall"] = [{"failed": "the orders are not known: orders.json is damaged"}]
        result = self.run_docxy("recall", D)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("orders.json is damaged", result.stderr)

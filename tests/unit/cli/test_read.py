"""The commands that show what docxy does: what they print, what scripts get, how they fail."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import jsonschema
from rich.console import Console

from docxy.cli.admin import Daemon
from docxy.cli.failure import NotReachable
from docxy.cli.top import AWAY, PAUSE, later, listen, screen
from tests.unit.cli.canned import INDEX, LAYER, part, pull, snapshot, troubled
from tests.unit.cli.case import AdminCase

SCHEMA = json.loads((Path(__file__).resolve().parents[3] / "docs" / "status.schema.json").read_text())


class CannedTests(AdminCase):
    def test_valid(self) -> None:
        """What these tests answer with is what docxy answers with."""
        for told in (snapshot(), troubled()):
            jsonschema.validate(told, SCHEMA)


class StatusTests(AdminCase):
    """`docxy status`."""

    def test_well(self) -> None:
        """One screen with everything, in at most 24 lines; the exit status is 0."""
        text = self.said(0, "status")
        for shown in (
            "docxy 1.2.3",
            "https://mirror.example",
            "well: 2 workers, up 3 days",
            "92 %",
            "12.0 GB of 48.0 GB (25 %)",
            "archive 30.0 GB put, 9.0 GB read",
            "20 of 100 pulls left",
            "ghcr.io/o/i",
            "2.0 MB/s",
            "docker.io sent 3.0 MB/s over 2 connections",
            "alice · 10.0.0.5 · docker/29.0.1 · linux/amd64",
        ):
            self.assertIn(shown, " ".join(text.split()))
        self.assertLessEqual(len(text.splitlines()), 24)

    def test_pinned(self) -> None:
        """However much is cached and pinned, it is said on one line."""
        whole = snapshot()
        for amount in (73_100_000, 99_900_000_000):
            held = {"used": 11 * amount, "budget": 11 * amount, "pinned": amount, "pins": amount}
            self.snapshot = snapshot(cache={**whole["cache"], **held})
            (line,) = [line for line in self.said(0, "status").splitlines() if line.startswith("cache")]
            self.assertTrue(line.rstrip().endswith(" pinned"), line)

    def test_troubled(self) -> None:
        """Each problem has its line, and the exit status is 1."""
        self.snapshot = troubled()
        text = " ".join(self.said(1, "status").split())
        for shown in (
            "degraded",
            "docker.io limits pulls for 10 min",
            "ghcr.io does not answer",
            "No space left",
            "the certificate ends in 60 min",
        ):
            self.assertIn(shown, text)

    def test_archive(self) -> None:
        """An archive that fails is a problem; an old docxy tells of none."""
        failing = {**self.snapshot["archive"], "failure": "s3://b: 503", "failed": 7, "waiting": 12}
        self.snapshot = {**self.snapshot, "archive": failing}
        text = " ".join(self.said(1, "status").split())
        self.assertIn("the archive fails, pulls go on without it: s3://b: 503", text)
        self.assertIn("12 blobs wait to be put, 7 requests failed", text)
        self.snapshot = {key: told for key, told in self.snapshot.items() if key != "archive"}
        self.assertNotIn("archive", self.said(0, "status"))

    def test_starting(self) -> None:
        """Workers that do not serve yet are not well; a docxy that does not say so is believed."""
        told = self.snapshot["docxy"]
        self.snapshot = {**self.snapshot, "docxy": {**told, "serving": 1}}
        self.assertIn("1 of 2 workers serve", self.said(1, "status"))
        self.snapshot = {**self.snapshot, "docxy": {key: told[key] for key in told if key != "serving"}}
        self.assertIn("well: 2 workers", self.said(0, "status"))

    def test_json(self) -> None:
        """JSON is all that docxy told, and the exit status is the same."""
        self.assertEqual(json.loads(self.said(0, "status", "--json")), self.snapshot)
        self.snapshot = troubled()
        self.assertEqual(json.loads(self.said(1, "status", "--json")), self.snapshot)

    def test_bare(self) -> None:
        """A docxy that just started, without a cache."""
        whole = snapshot()
        nothing = {"answers": 0, "hits": 0, "joined": 0, "sent": 0, "saved": 0, "received": 0}
        self.snapshot = snapshot(
            docxy={**whole["docxy"], "cache": None, "certificate_expires": None, "workers": 1, "serving": 1},
            cache=None,
            traffic=dict.fromkeys(("hour", "day", "week"), nothing),
            fills=[],
            pulls=[],
        )
        text = self.said(0, "status")
        self.assertIn("well: 1 worker,", text)
        self.assertNotIn("On the way", text)

    def test_hostile(self) -> None:
        """What clients and registries chose cannot write to the terminal, and is no markup."""
        self.snapshot = snapshot(pulls=[pull(agent="\x1b[31mx", image="docker.io/a:[bold]b")])
        self.assertIn("[bold]b", self.said(0, "status"))


class ReachTests(AdminCase):
    """A daemon that cannot be asked: exit status 3 and one line."""

    def failed(self, *arguments: str, **environ: str) -> str:
        result = self.run_docxy(*arguments, **environ)
        self.assertEqual((result.exit_code, result.stdout), (3, ""))
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        return result.stderr

    def test_nobody(self) -> None:
        """Nobody listens: the line names the socket and says what to do."""
        for command in (["status"], ["top", "--json"], ["why", "alpine"], ["pulls"], ["quota"], ["errors"]):
            self.assertIn("/nowhere/admin.sock (No such file", self.failed(*command, "--socket", "/nowhere/admin.sock"))

    def test_refused(self) -> None:
        """An error of docxy's is shown, not taken for an answer."""
        self.status = 503
        self.assertIn("answered 503", self.failed("status"))

    def test_off(self) -> None:
        """Settings that turn the socket off are named."""
        self.assertIn("--admin-socket off", self.failed("status", ADMIN_SOCKET="", CACHE_DIR="off"))

    def test_found(self) -> None:
        """The socket is found by the cache's directory, and by the configuration file."""
        self.said(0, "status", ADMIN_SOCKET="", CACHE_DIR=str(self.directory))
        file = self.directory / "docxy.toml"
        file.write_text(f'cache = "{self.directory}"\n')
        self.said(0, "status", ADMIN_SOCKET="", DOCXY_CONFIG=str(file))
        file.write_text('cach = "/x"\n')
        result = self.run_docxy("status", ADMIN_SOCKET="", DOCXY_CONFIG=str(file))
        self.assertEqual(result.exit_code, 1)
        self.assertIn("cach", result.stderr)


class WhyTests(AdminCase):
    """`docxy why` and `docxy pulls`."""

    def test_waterfall(self) -> None:
        """Bars follow each other as the answers did, and the key explains every letter that is used."""
        text = self.said(0, "why", "alpine:3.20")
        self.assertIn("docker.io sent 3.0 MB/s over 2 connections", text)
        manifest, layer = (next(line for line in text.splitlines() if line.startswith(kind)) for kind in ("man", "lay"))
        self.assertIn("▕hhhhh ", manifest)
        self.assertIn(f"{LAYER[7:19]} 30.0 MB  10 s miss", layer)
        self.assertRegex(layer, "▕ {5}▓+░+▏")
        self.assertIn("h waited for the registry's answer ▓ waited for its bytes ░ the rest", " ".join(text.split()))
        self.assertIn("/pulls.json?n=500&repository=docker.io%2Flibrary%2Falpine", self.asked)

    def test_names(self) -> None:
        """Every way to name the image finds the pull; other tags and digests do not."""
        for name in (
            "alpine",
            "library/alpine",
            "docker.io/library/alpine:3.20",
            "index.docker.io/alpine",
            f"alpine@{INDEX}",
            f"alpine:3.20@{INDEX}",
            f"alpine@{LAYER}",
        ):
            self.assertEqual(json.loads(self.said(0, "why", name, "--json")), self.pulls[0], name)
        for name in ("alpine:3.19", "ghcr.io/o/i", f"alpine@sha256:{'0' * 64}"):
            self.said(1, "why", name)
            self.assertEqual(json.loads(self.said(1, "pulls", name, "--json"))["pulls"], [])

    def test_wrong_names(self) -> None:
        """What is no image, or of a registry that docxy does not mirror, is a mistake on the command line."""
        for name, why in (
            ("Alpine", "not an image"),
            ("a@sha256:0", "not an image"),
            ("alpine:", "not an image"),
            ("quay.io/a/b", "it mirrors docker.io, ghcr.io"),
            ("", "not an image"),
        ):
            result = self.run_docxy("why", name)
            self.assertEqual(result.exit_code, 2, name)
            self.assertIn(why, " ".join(result.stderr.split()))

    def test_failed(self) -> None:
        """An answer that failed is drawn as such, with its status."""
        wrong = part(status=502, cache="", waits={}, whole=False)
        self.pulls = [
            pull(parts=[wrong], answers=1, verdict={"cause": "failed", "words": "failed with status 502", "waits": {}})
        ]
        text = self.said(0, "why", "alpine")
        self.assertIn("502 ▕xxxxx ", text)
        self.assertIn("x failed", text)

    def test_back(self) -> None:
        """Older pulls can be reached, and the screen says that they are there."""
        self.pulls = [pull(id="2", seconds=1.0), pull(id="1")]
        self.assertIn("1 older; --back 1", self.said(0, "why", "alpine"))
        self.assertEqual(json.loads(self.said(0, "why", "alpine", "--back", "1", "--json"))["id"], "1")
        self.said(1, "why", "alpine", "--back", "2")

    def test_many(self) -> None:
        """A pull with many answers shows the longest ones and counts the others."""
        self.pulls = [pull(parts=[part(seconds=0.1 * n) for n in range(60)], answers=300)]
        self.assertIn("and 260 more", self.said(0, "why", "alpine"))

    def test_pulls(self) -> None:
        """Two lines a pull, and one on who it was if that is long; JSON has the pulls as docxy told them."""
        text = self.said(0, "pulls")
        self.assertEqual(len(text.splitlines()), 3)
        self.assertIn("docker.io/library/alpine:3.20  30.0 MB in 12 s", text)
        self.assertEqual(json.loads(self.said(0, "pulls", "-n", "7", "--json")), {"version": 1, "pulls": self.pulls})
        self.assertIn("/pulls.json?n=7", self.asked)


class QuotaTests(AdminCase):
    """`docxy quota` and `docxy errors`."""

    def test_quota(self) -> None:
        """What is left, when it ends, and who spent it."""
        text = self.said(0, "quota")
        for shown in (
            "20 of 100 pulls left; at this pace they end in 30 min",
            "60  library/alpine  without login (ci)",
            "names no pull limit",
        ):
            self.assertIn(shown, " ".join(text.split()) if "pace" in shown else text)

    def test_limited(self) -> None:
        """A registry that refuses pulls makes the exit status 1."""
        self.snapshot = troubled()
        self.assertIn("refuses pulls for 10 min", " ".join(self.said(1, "quota").split()))
        self.assertEqual(json.loads(self.said(1, "quota", "--json"))["upstreams"], self.snapshot["upstreams"])

    def test_errors(self) -> None:
        """Failures with their status; none is said to be none."""
        self.assertIn("502 ghcr.io does not answer", self.said(0, "errors"))
        self.assertEqual(json.loads(self.said(0, "errors", "--json"))["errors"], self.snapshot["errors"])
        self.snapshot = snapshot(errors=[])
        self.assertIn("No answer failed", self.said(0, "errors"))


class TopTests(AdminCase):
    """`docxy top` where there is no terminal."""

    def test_json(self) -> None:
        """A line for each event, until docxy goes away: then the exit status is 3."""
        self.events = [snapshot(), troubled()]
        text = self.said(3, "top", "--json")
        self.assertEqual([json.loads(line) for line in text.splitlines()], self.events)

    def test_taken_over(self) -> None:
        """A docxy that goes away is looked for again for a while: another one may have taken over from it."""
        told = [[snapshot()], [], [], [troubled()]]
        pauses: list[float] = []

        class Away:
            def events(self) -> Iterator[Any]:
                yield from told.pop(0) if told else []
                raise NotReachable("gone")

        news: SimpleQueue[Any] = SimpleQueue()
        listen(Away(), news, pauses.append)  # type: ignore[arg-type]  # as much of a Daemon as it asks for
        self.assertEqual([news.get(), news.get()], [snapshot(), troubled()])
        self.assertEqual(news.get().message, "gone")
        self.assertEqual(len(pauses), 3 + AWAY / PAUSE)

    def test_later(self) -> None:
        """While nothing happens times go on, and the snapshot stays what it was."""
        told = snapshot()
        now = told["docxy"]["now"]
        shown = later(told, 86_400.0)
        self.assertEqual((told["docxy"]["now"], shown["docxy"]["now"]), (now, now + 86_400))
        screens = []
        for each in (told, shown):
            out = io.StringIO()
            Console(file=out, width=80).print(screen(each, 24))
            screens.append(out.getvalue())
        self.assertIn("up 3 days", screens[0])
        self.assertIn("up 4 days", screens[1])

    def test_nobody(self) -> None:
        """Where none answers that is said at once."""
        news: SimpleQueue[Any] = SimpleQueue()
        listen(Daemon("/nowhere/admin.sock"), news, self.fail)
        self.assertIn("nothing answers", news.get().message)

    def test_no_terminal(self) -> None:
        """Without a terminal it does not draw."""
        self.assertEqual(self.run_docxy("top").exit_code, 2)

"""The commands that look into the cache or change it: what they print, ask, and end with."""

from __future__ import annotations

import io
import json
import time
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress

from docxy.cli import cache as cli_cache
from tests.unit.cli.case import AdminCase

D = "sha256:" + "ab12cd34" * 8


def image(**more: Any) -> dict[str, Any]:
    now = time.time()
    return {
        "image": "docker.io/library/alpine:3.20",
        "upstream": "docker.io",
        "repository": "library/alpine",
        "tag": "3.20",
        "digest": D,
        "checked": now - 50,
        "used": now - 7200,
        "size": 6_300_000,
        "own": 3_100_000,
        "platforms": ["linux/amd64", "linux/arm64/v8"],
        "marks": [],
        **more,
    }


def lines(*items: dict[str, Any], **done: Any) -> list[dict[str, Any]]:
    return [
        {"progress": {"done": 1, "total": 2, "what": "reading", "unit": "manifests"}},
        *({"item": each} for each in items),
        {"done": done},
    ]


class LookTests(AdminCase):
    """`ls`, `show`, `du`."""

    def test_ls(self) -> None:
        """Repositories with their images; the exit status is 0."""
        other = image(repository="o/i", upstream="ghcr.io", image="ghcr.io/o/i:" + "x" * 60, tag="x" * 60)
        self.answers["ls"] = lines(image(), image(tag=None), other, images=3, size=9_000_000)
        text = self.said(0, "ls", "alpine", "ghcr.io/**")
        self.assertEqual(self.acts, [("ls", {"image": ["alpine", "ghcr.io/**"]})])
        for shown in (
            "docker.io/library/alpine\n",
            "3.20",
            "(no tag)",
            "ab12cd34",
            "6.3 MB",
            "3.1 MB",
            "2 h ago",
        ):
            self.assertIn(shown, text)
        self.assertIn("amd64, arm64/v8", " ".join(text.split()))
        self.assertIn("3 images, 9.0 MB in all", text)

    def test_ls_marks(self) -> None:
        """What is ordered about an image stands before its platforms; what is too long goes on below."""
        marks = [{"what": what, "more": ""} for what in ("recalled", "frozen", "pinned", "kept")]
        self.answers["ls"] = lines(image(marks=marks), images=1, size=1)
        rows = self.said(0, "ls").splitlines()
        at = rows[0].index("PLATFORMS")
        self.assertEqual([row[at:] for row in rows[2:5]], ["recalled, frozen,", "pinned, kept, amd64,", "arm64/v8"])

    def test_ls_many(self) -> None:
        """Thousands of repositories are lines below one head."""
        some = [image(repository=f"library/i{n}") for n in range(3000)]
        self.answers["ls"] = lines(*some, images=3000, size=1)
        text = self.said(0, "ls")
        self.assertEqual(text.count("PLATFORMS"), 1)
        self.assertEqual(text.count("docker.io/library/i"), 3000)

    def test_ls_quiet(self) -> None:
        """Names only, for a loop in a shell."""
        self.answers["ls"] = lines(image(), images=1, size=1)
        self.assertEqual(self.said(0, "ls", "-q"), "docker.io/library/alpine:3.20\n")

    def test_ls_nothing(self) -> None:
        """The exit status is 1 if there is nothing, and JSON says so, too."""
        self.answers["ls"] = lines(images=0, size=0)
        self.assertIn("Nothing is cached", self.said(1, "ls"))
        self.assertEqual(json.loads(self.said(1, "ls", "--json"))["images"], [])

    def test_hostile(self) -> None:
        """Nothing that came from a registry moves the cursor."""
        self.answers["ls"] = lines(image(tag="\x1b[2J", platforms=["\x1b]0;x\x07"]), images=1, size=1)
        self.said(0, "ls")

    def test_show(self) -> None:
        """Digest in full, layers of each platform, who pulled it."""
        layer = {"digest": D, "size": 3_000_000, "shared": True, "cached": True}
        missing = {"digest": D, "size": None, "shared": False, "cached": False}
        pull = {
            "started": time.time() - 60,
            "account": "alice",
            "client": "10.0.0.5",
            "agent": "docker/29",
            "platform": None,
        }
        manifests = [
            {"digest": D, "platform": "linux/amd64", "cached": True, "layers": [layer, missing]},
            {"digest": D, "platform": "linux/arm64", "cached": False, "layers": []},
        ]
        changes = [{"digest": each, "at": time.time() - 3600, "first": 0.0} for each in (D, None, *[D] * 11)]
        marks = [{"what": "recalled", "more": "CVE-1"}, {"what": "frozen", "more": D}, {"what": "kept", "more": ""}]
        whole = image(variants=[], manifests=manifests, pulls=[pull] * 7, history=changes, marks=marks)
        self.answers["show"] = lines(whole, images=1)
        text = self.said(0, "show", "alpine")
        for shown in (D, "1 of 2 layers not cached", "shared", "linux/arm64  ab12cd34  not cached", "alice · 10.0.0.5"):
            self.assertIn(shown, text)
        self.assertIn("and 2 more in the last 7 days", text)
        said = " ".join(text.split())
        for shown in (
            "recalled CVE-1",
            f"frozen at {D}",
            "kept as [[keep]] says",
            "History 60 min ago ab12cd34 60 min",
        ):
            self.assertIn(shown, said)
        self.assertIn("60 min ago gone from its registry", said)
        self.assertIn("and 3 before", said)

    def test_du(self) -> None:
        """Repositories with bars, then the whole, and what gc would free."""
        row = {"repository": "docker.io/library/alpine", "images": 2, "size": 6_000, "own": 3_000, "used": time.time()}
        loose = {"blobs": 2, "size": 700}
        self.answers["du"] = lines(row, row, used=9_000, free=5_000, budget=20_000, blobs=9, size=8_000, unnamed=loose)
        text = self.said(0, "du", "-n", "1")
        for shown in ("OWN", "docker.io/library/alpine", "and 1 more", "9.0 kB of 20.0 kB used", "docxy gc frees it"):
            self.assertIn(shown, text)


class ChangeTests(AdminCase):
    """`rm`, `gc`, `verify`."""

    def setUp(self) -> None:
        super().setUp()
        gone = {"image": "docker.io/library/alpine:3.20", "digest": D, "size": 6_300_000}
        self.answers["rm"] = lambda given: lines(
            gone, images=1, blobs=2, frees=3_100_000, dry_run=given.get("dry_run", False)
        )
        kind = {"kind": "unnamed", "images": 0, "blobs": 2, "frees": 700}
        self.answers["gc"] = lambda given: lines(
            kind, images=0, blobs=2, frees=700, dry_run=given.get("dry_run", False)
        )

    def test_rm_asks(self) -> None:
        """Where nobody can be asked nothing is removed without --yes, and the exit status is 1."""
        result = self.run_docxy("rm", "alpine:3.20")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("frees 3.1 MB", result.stderr)
        self.assertIn("--yes", result.stderr)
        self.assertEqual([given for _, given in self.acts], [{"image": ["alpine:3.20"], "dry_run": True}])

    def test_rm(self) -> None:
        """With --yes it is done, and what it freed is told."""
        text = self.said(0, "rm", "alpine:3.20", "--yes")
        self.assertIn("docker.io/library/alpine:3.20  6.3 MB", text)
        self.assertIn("freed 3.1 MB, 2 blobs", text)
        self.assertEqual([given.get("dry_run", False) for _, given in self.acts], [True, False])

    def test_dry_run(self) -> None:
        """With --dry-run nothing is removed."""
        self.assertIn("would free 3.1 MB", self.said(0, "rm", "alpine", "--dry-run"))
        self.assertTrue(json.loads(self.said(0, "gc", "--dry-run", "--json"))["dry_run"])
        self.assertTrue(all(given["dry_run"] for _, given in self.acts))

    def test_gc(self) -> None:
        """Ages are given as people write them."""
        self.assertIn("freed 700 B", self.said(0, "gc", "--unused", "30d", "--untagged", "12h", "-y"))
        self.assertEqual(self.acts[-1], ("gc", {"untagged": 43_200.0, "unused": 2_592_000.0}))
        for wrong in ("", "5", "5y", "-1d", "1e9d"):
            self.said(2, "gc", "--unused", wrong)

    def test_gc_nothing(self) -> None:
        """Where there is nothing to remove nobody is asked."""
        self.answers["gc"] = lines(images=0, blobs=0, frees=0, dry_run=True)
        self.assertIn("nothing to remove", self.said(0, "gc"))

    def test_verify(self) -> None:
        """Damage is named with its images; the exit status is 1 unless it was repaired."""
        found = {
            "digest": D,
            "size": 9_000,
            "found": "damaged",
            "why": "its 9000 bytes hash to x",
            "images": ["docker.io/o/i:1"],
        }
        end = {"blobs": 3, "bytes": 9_100, "damaged": 1, "repaired": 0, "skipped": 4}
        self.answers["verify"] = lines(found, **end)
        text = self.said(1, "verify")
        for shown in (D, "docker.io/o/i:1", "3 blobs read, 9.1 kB, 1 damaged; 4 left out", "--repair"):
            self.assertIn(shown, text)
        long = {**found, "images": [f"docker.io/{'a' * 90}:1"], "why": f"its 31467101 bytes hash to {D}"}
        self.answers["verify"] = lines(long, **end)
        shown = [line.rstrip() for line in self.said(1, "verify").splitlines()]
        self.assertEqual(shown[1:3], [f"  docker.io/{'a' * 68}", f"  {'a' * 22}:1"])
        self.assertEqual(shown[4:6], ["  its 31467101 bytes hash to", f"  {D}"])
        self.said(0, "verify", "--repair", "--older", "7d")
        self.assertEqual(self.acts[-1], ("verify", {"repair": True, "older": 604_800.0}))
        self.answers["verify"] = lines(**{**end, "damaged": 0})
        self.said(0, "verify")


class FailureTests(AdminCase):
    """How an act fails."""

    def test_failed(self) -> None:
        """A line that says why is the error, with exit status 1; so is an error answer."""
        self.answers["ls"] = [
            {"progress": {"done": 0, "total": None, "what": "", "unit": ""}},
            {"failed": "the disk is gone"},
        ]
        result = self.run_docxy("ls")
        self.assertEqual((result.exit_code, result.stderr), (1, "docxy: the disk is gone\n"))
        self.answers["ls"], self.status = [{"errors": [{"message": "no such thing"}]}], 404
        result = self.run_docxy("ls")
        self.assertEqual((result.exit_code, result.stderr), (1, "docxy: no such thing\n"))

    def test_cut_short(self) -> None:
        """An answer that ends before it is done is no success: docxy is gone."""
        self.answers["gc"] = lines()[:1]
        result = self.run_docxy("gc", "--dry-run")
        self.assertEqual(result.exit_code, 3)
        self.assertIn("stopped", result.stderr)

    def test_no_cache_there(self) -> None:
        """`--cache` of a directory that is no cache."""
        result = self.run_docxy("ls", "--cache", str(self.directory))
        self.assertEqual(result.exit_code, 1)
        self.assertIn("no cache of docxy's", result.stderr)
        self.said(2, "ls", "--cache", str(self.directory / "none"))

    def test_completion(self) -> None:
        """A shell that cannot ask docxy completes nothing."""
        self.answers["names"] = lines({"name": "alpine:3.20"})
        found = self.run_docxy(_DOCXY_COMPLETE="bash_complete", COMP_WORDS="docxy show al", COMP_CWORD="2")
        self.assertEqual(found.stdout, "plain,alpine:3.20\n")
        self.assertEqual(self.acts, [("names", {"begins": "al"})])
        self.answers["names"] = [{"failed": "no"}]
        found = self.run_docxy(_DOCXY_COMPLETE="bash_complete", COMP_WORDS="docxy show al", COMP_CWORD="2")
        self.assertEqual((found.exit_code, found.stdout.strip()), (0, ""))


class ProcessTests(AdminCase):
    """`reload` and `token`."""

    def test_reload(self) -> None:
        """What all workers say is said once; what one refused is named with it, and is exit status 1."""
        good = {"what": "certificate", "ok": True, "says": "/c.pem, valid until 2027-01-01"}
        both = [{"worker": number, **good} for number in (1, 2)]
        self.answers["reload"] = lines(*both, workers=2, refused=0)
        self.assertEqual(" ".join(self.said(0, "reload").split()), "✓ certificate /c.pem, valid until 2027-01-01")
        bad = {"worker": 2, "what": "accounts", "ok": False, "says": "line 1 is wrong"}
        self.answers["reload"] = lines(*both, bad, workers=2, refused=1)
        self.assertIn("line 1 is wrong; the old stays (worker 2)", self.said(1, "reload"))
        self.assertEqual(json.loads(self.said(1, "reload", "--json"))["refused"], 1)

    def test_token(self) -> None:
        """The token alone, for a name as users write it."""
        self.answers["token"] = lines(token="abc", expires_in=300)
        self.assertEqual(self.said(0, "token", "-u", "alice", "alpine", "ghcr.io/o/i:1"), "abc\n")
        asked = {"user": "alice", "repository": ["docker.io/library/alpine", "ghcr.io/o/i"]}
        self.assertEqual(self.acts, [("token", asked)])


class ScreenTests(AdminCase):
    def test_bars(self) -> None:
        """What an act says of its progress is not among its results."""
        told = lines({"a": 1}, b=2)
        with cli_cache.followed(iter(told)) as rest:
            self.assertEqual(list(rest), told[1:])

    def test_terminal(self) -> None:
        """On a terminal a bar is shown, but not while results are printed: they would share its line."""
        screen = io.StringIO()
        made: list[Progress] = []

        class Bars(Progress):
            def __init__(self, *columns: Any, **more: Any) -> None:
                Progress.__init__(self, *columns, **more)
                made.append(self)

        self.patch(cli_cache, "Progress", Bars)
        self.patch(cli_cache, "Console", partial(Console, file=screen, force_terminal=True))
        with cli_cache.followed(iter(lines({"a": 1}, b=2))) as rest:
            for _ in rest:
                self.assertFalse(made[0].live.is_started)
        self.assertIn("reading", screen.getvalue())

"""What a shell evaluates so that it completes docxy's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.harness.checkout import need
from tests.unit.cli.case import AdminCase
from tests.unit.cli.test_cache import lines

STUB = """#!/bin/sh
{ printf '%s|%s\\n' "$COMP_WORDS" "$COMP_CWORD"; } >&2
printf 'plain,alpine:3.19\\nplain,alpine:3.20\\n'
"""


class BashTests(AdminCase):
    """`docxy completion bash`, in a bash, which ends words at colons."""

    def setUp(self) -> None:
        super().setUp()
        self.bash = need("bash")
        script = self.run_docxy("completion", "bash")
        self.assertEqual(script.exit_code, 0, script.output)
        self.script = Path(self.mktemp()).resolve()
        self.script.write_text(script.stdout)
        self.stub = self.script.with_suffix(".stub")
        self.stub.write_text(STUB)
        self.stub.chmod(0o755)

    def completed(self, line: str) -> tuple[str, list[str]]:
        """What the command is asked, and what bash gets, for a line that ends where the cursor is."""
        program = """source "$1"; COMP_LINE=$2; COMP_POINT=${#2}
            _docxy_completion "$3"; printf '%s\\n' "${COMPREPLY[@]}" """
        result = subprocess.run(
            [self.bash, "--norc", "-c", program, "bash", str(self.script), line, str(self.stub)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return result.stderr.strip(), result.stdout.split()

    def test_image(self) -> None:
        """An image is one word; what stands before its last colon is not said again, for bash keeps it."""
        self.assertEqual(self.completed("docxy show alp"), ("docxy show alp|2", ["alpine:3.19", "alpine:3.20"]))
        self.assertEqual(self.completed("docxy show alpine:3"), ("docxy show alpine:3|2", ["3.19", "3.20"]))

    def test_next_word(self) -> None:
        """Behind a space another word begins."""
        asked, found = self.completed("docxy pin alpine:3.19 ")
        self.assertEqual(asked.rpartition("|")[2], "3")
        self.assertEqual(found, ["alpine:3.19", "alpine:3.20"])


class ShellCase(AdminCase):
    """A shell that has `docxy` in its PATH, in front of the socket of the test."""

    shell = ""

    def setUp(self) -> None:
        super().setUp()
        self.program = need(self.shell)
        script = self.run_docxy("completion", self.shell)
        self.assertEqual(script.exit_code, 0, script.output)
        self.script = self.directory / f"docxy.{self.shell}"
        self.script.write_text(script.stdout)
        docxy = self.directory / "docxy"
        docxy.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from docxy.cli.main import main; main()" "$@"\n')
        docxy.chmod(0o755)
        self.answers["names"] = lines({"name": "alpine:3.20"}, {"name": "alpine:3.19"})

    def said_by(self, *argv: str) -> list[str]:
        """What the shell prints."""
        environ = {
            "PATH": f"{self.directory}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(self.directory),
            "ADMIN_SOCKET": self.socket,
        }
        result = subprocess.run([self.program, *argv], env=environ, capture_output=True, text=True, timeout=60)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout.splitlines()


class FishTests(ShellCase):
    """`docxy completion fish`, in a fish."""

    shell = "fish"

    def test_completes(self) -> None:
        """Its grammar is right; commands come with what they do, images as they are named."""
        self.said_by("--no-execute", str(self.script))
        self.assertEqual(self.asked_for("docxy sta"), ["status\tOne screen: is docxy well, and what does it do?"])
        self.assertEqual(self.asked_for("docxy show alp"), ["alpine:3.19", "alpine:3.20"])
        self.assertEqual(self.acts, [("names", {"begins": "alp"})])

    def asked_for(self, line: str) -> list[str]:
        return self.said_by("-c", f"source {self.script}; complete --do-complete '{line}'")


class ZshTests(ShellCase):
    """`docxy completion zsh`, in a zsh whose own completion is written down in place of shown."""

    shell = "zsh"

    def test_completes(self) -> None:
        """Its grammar is right; commands come with what they do, images as they are named."""
        self.said_by("-n", str(self.script))
        self.assertEqual(self.asked_for("docxy sta"), ["status:One screen: is docxy well, and what does it do?"])
        self.assertEqual(self.asked_for("docxy show alp"), ["alpine:3.20", "alpine:3.19"])
        self.assertEqual(self.acts, [("names", {"begins": "alp"})])

    def asked_for(self, line: str) -> list[str]:
        program = f"""compdef() {{ }}
            source {self.script}
            compadd() {{ print -rl -- $completions }}
            _describe() {{ print -rl -- $completions_with_descriptions }}
            words=({line}); CURRENT=$#words
            _docxy_completion"""
        return self.said_by("-f", "-c", program)

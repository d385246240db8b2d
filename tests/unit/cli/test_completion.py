"""What a shell evaluates so that it completes docxy's command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.checkout import need
from tests.unit.cli.case import AdminCase

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

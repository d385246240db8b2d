"""What scripts rely on in every command: `--json`, and exit status 3 where no docxy answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from docxy.cli.main import docxy_command
from tests.unit.cli.case import run_docxy

WITHOUT_JSON = {"completion", "config schema", "man", "password", "run"}
"""What they print is a text for another program, or nothing that a script would read."""
WITHOUT_DAEMON = {"doctor", "import"}
"""Commands with `--socket` that do their work where no docxy runs, too."""
IMAGE = {
    "export": ("-o", "images.tar"),
    **dict.fromkeys(("freeze", "pin", "recall", "release", "rm", "show", "token", "unpin", "warm", "why"), ()),
}
"""Commands that need an image, and what else they need."""
CLI_PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


def options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


class ScriptTests(SynchronousTestCase):
    def setUp(self) -> None:
        assert isinstance(docxy_command, click.Group)
        self.commands = dict(commands(docxy_command))

    def test_json(self) -> None:
        """Every command has `--json` but a few, which the page of the commands names."""
        without = {" ".join(words) for words, command in self.commands.items() if "--json" not in options(command)}
        self.assertEqual(without, WITHOUT_JSON)
        (sentence,) = re.findall(r"Every command has `--json` but ([^.]+)\.", CLI_PAGE.read_text())
        self.assertEqual({*re.findall(r"`([^`]+)`", sentence)}, WITHOUT_JSON)

    def test_no_daemon(self) -> None:
        """Every command that asks the daemon ends with status 3 where none answers, and prints no result."""
        asking = [words for words, command in self.commands.items() if "--socket" in options(command)]
        self.assertLessEqual(WITHOUT_DAEMON, {" ".join(words) for words in asking})
        socket = str(Path(self.mktemp()).absolute())
        for words in asking:
            name = " ".join(words)
            if name in WITHOUT_DAEMON:
                continue
            more = ("alpine:3.20", *IMAGE[name]) if name in IMAGE else ()
            result = run_docxy(*words, *more, "--json", "--socket", socket)
            self.assertEqual((name, result.exit_code, result.stdout), (name, 3, ""), result.output)
            self.assertIn(socket, result.stderr, name)

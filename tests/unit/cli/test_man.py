"""The manual page has every command, with all of its options."""

from __future__ import annotations

import shutil
import subprocess

import click

from docxy.cli.main import docxy_command
from tests.unit.cli.case import AdminCase


class ManTests(AdminCase):
    def test_all(self) -> None:
        """Every command, those of `config` too, and every option."""
        text = self.run_docxy("man").stdout.replace("\\-", "-")
        context = click.Context(docxy_command, info_name="docxy")
        count = 0
        for name in docxy_command.list_commands(context):
            command = docxy_command.get_command(context, name)
            assert command is not None
            inner = command.commands.values() if isinstance(command, click.Group) else [command]
            for each in inner:
                path = name if each is command else f"{name} {each.name}"
                self.assertIn(f".SS docxy {path} ", text)
                for parameter in each.params:
                    if isinstance(parameter, click.Option) and not parameter.hidden:
                        count += 1
                        self.assertIn(parameter.opts[-1], text)
        self.assertGreater(count, 80)

    def test_help(self) -> None:
        """Every command's help has an example, and 80 columns are enough for it."""

        def check(command: click.Command, *path: str) -> None:
            text = self.said(0, *path, "--help")
            self.assertRegex(text, r"Examples?:\s+[^\n]*docxy", path)
            if isinstance(command, click.Group):
                context = click.Context(command)
                for name in command.list_commands(context):
                    inner = command.get_command(context, name)
                    assert inner is not None
                    check(inner, *path, name)

        check(docxy_command)

    def test_escaped(self) -> None:
        """No line of text begins with what roff takes for a command, and man(1) has no complaint where it is there."""
        text = self.run_docxy("man").stdout
        for line in text.splitlines():
            if line.startswith("."):
                self.assertRegex(line, r"^\.(TH|SH|SS|PP|TP|B|I|RS|RE|nf|fi)( |$)")
        if shutil.which("groff") is not None:
            told = subprocess.run(
                ["groff", "-man", "-Tutf8", "-ww"], input=text, capture_output=True, text=True, check=True
            )
            self.assertEqual(told.stderr, "")

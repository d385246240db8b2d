"""How a command fails: one line on standard error, and an exit status that a script can use.

On a terminal the line ends between two words.

The law: 1: something is wrong; 2: the command line is wrong (click's UsageError); 3: docxy does not answer.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import IO, Any

import click


class Failure(click.ClickException):
    """Something is wrong; the message says what, and what to do."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        line = f"docxy: {self.format_message()}"
        if (file or sys.stderr).isatty():
            width = shutil.get_terminal_size().columns
            line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        click.echo(line, file=file, err=file is None)


class NotReachable(Failure):
    """The daemon cannot be asked."""

    exit_code = 3

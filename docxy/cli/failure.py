"""How a command fails: one line on standard error, and an exit status that a script can use.

The law: 1: something is wrong; 2: the command line is wrong (click's UsageError); 3: docxy does not answer.
"""

from __future__ import annotations

from typing import IO, Any

import click


class Failure(click.ClickException):
    """Something is wrong; the message says what, and what to do."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"docxy: {self.format_message()}", file=file, err=file is None)


class NotReachable(Failure):
    """The daemon cannot be asked."""

    exit_code = 3

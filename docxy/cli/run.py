"""`docxy run`: the daemon in the foreground, with the options of `twistd docxy`.

The law: the options are those of `docxy.settings.options`; nothing is set here that twistd would not be given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from docxy.settings.options import OPTIONS

_TWISTD = "from twisted.scripts.twistd import run; run()"
_HELP = """The daemon in the foreground, as twistd -n --pidfile= docxy runs it.

An option that is not given comes from the environment, else from the --config file, else it is the default. Ctrl-C ends
it, and running transfers go on for --shutdown-grace seconds."""


def _parameters() -> list[click.Parameter]:
    """Each option as click has it, for help and completion."""
    found: list[click.Parameter] = []
    for option in OPTIONS:
        if option.metavar:
            kind = click.Path() if option.metavar in ("FILE", "DIR") else click.STRING
            found.append(click.Option([f"--{option.name}"], metavar=option.metavar, type=kind, help=option.describe()))
        for flag in option.flags:
            found.append(click.Option([f"--{flag}"], is_flag=True, help=option.describe_flag(flag)))
    return found


def arguments(given: Mapping[str, Any]) -> list[str]:
    """The command line of the daemon; `given`: click's names -> text, True, or what was not given."""
    found = []
    for option in OPTIONS:
        text = given.get(option.key) if option.metavar else None
        if text is not None:
            found.append(f"--{option.name}={text}")
        found += [f"--{flag}" for flag in option.flags if given.get(flag.replace("-", "_")) is True]
    return [sys.executable, "-c", _TWISTD, "--nodaemon", "--pidfile=", "docxy", *found]


def _run(**given: Any) -> None:
    argv = arguments(given)
    sys.stdout.flush()
    os.execv(argv[0], argv)


run = click.Command(
    "run",
    params=_parameters(),
    callback=_run,
    help=_HELP,
    short_help="The daemon in the foreground.",
    epilog="Example: docxy run --port 8080 --cache /var/cache/docxy",
)

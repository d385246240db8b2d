"""The entry point `docxy`, and the list of its commands.

The law: a command's module is loaded when the command is used, so that each starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

import docxy

_COMMANDS = {
    "completion": "docxy.cli.completion:completion",
    "config": "docxy.cli.config:config",
    "doctor": "docxy.cli.doctor:doctor",
    "du": "docxy.cli.du:du",
    "errors": "docxy.cli.errors:errors",
    "export": "docxy.cli.export:export",
    "freeze": "docxy.cli.orders:freeze",
    "gc": "docxy.cli.rm:gc",
    "import": "docxy.cli.import_:import_",
    "ls": "docxy.cli.ls:ls",
    "man": "docxy.cli.man:man",
    "orders": "docxy.cli.orders:orders",
    "password": "docxy.cli.password:password",
    "pin": "docxy.cli.orders:pin",
    "pulls": "docxy.cli.pulls:pulls",
    "quota": "docxy.cli.quota:quota",
    "recall": "docxy.cli.orders:recall",
    "release": "docxy.cli.orders:release",
    "reload": "docxy.cli.reload:reload",
    "rm": "docxy.cli.rm:rm",
    "run": "docxy.cli.run:run",
    "show": "docxy.cli.show:show",
    "status": "docxy.cli.status:status",
    "token": "docxy.cli.token:token",
    "top": "docxy.cli.top:top",
    "unpin": "docxy.cli.orders:unpin",
    "upgrade": "docxy.cli.upgrade:upgrade",
    "verify": "docxy.cli.verify:verify",
    "warm": "docxy.cli.warm:warm",
    "why": "docxy.cli.why:why",
}


class Commands(click.Group):
    """The commands, each loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        found: Any = getattr(import_module(module), name)
        assert isinstance(found, click.Command)
        return found


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: docxy status. "
    "Exit status: 0 all is well, 1 something is wrong, 2 the command line is wrong, 3 docxy does not answer.",
)
@click.version_option(docxy.__version__, prog_name="docxy", message="%(prog)s %(version)s")
def docxy_command() -> None:
    """A pull-through mirror of container registries.

    Most commands ask the docxy that runs on this machine, over its admin socket. Run them as root or as docxy's user.
    """


def main() -> None:
    """Run one command and exit."""
    docxy_command(prog_name="docxy")

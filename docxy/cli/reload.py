"""`docxy reload`: load again the files that the operator changed."""

from __future__ import annotations

import sys
from collections import defaultdict

import click
from rich.text import Text

from docxy.cli.admin import Daemon, asks, print_json
from docxy.cli.cache import outcome
from docxy.cli.screen import BAD, BOLD, GOOD, clean, console, grid


@click.command(
    short_help="Load certificate, accounts, passwords, policy, addresses, rules and CAs again.",
    epilog="Example: docxy reload && echo the new certificate is in use",
)
@asks
def reload(daemon: Daemon, as_json: bool) -> None:
    """Load again what SIGHUP loads again, and say what became of it in each worker.

    That is the certificate, the accounts of the htpasswd file, the passwords of docxy's own accounts, and of the
    configuration file the policy, the addresses and rules of [access], and of each upstream its lists, CAs, client
    certificate and proxy. What else has changed there is named, for docxy upgrade. Exit status 1 if a file was
    refused: what was loaded before stays in use.
    """
    items, end = outcome(daemon.act("reload", {}))
    if as_json:
        print_json({**end, "files": items})
        sys.exit(1 if end["refused"] else 0)
    where: dict[tuple[str, bool, str], list[str]] = defaultdict(list)
    for told in items:
        name = "the supervisor" if told["worker"] is None else f"worker {told['worker']}"
        where[clean(told["what"]), told["ok"], clean(told["says"])].append(name)
    table = grid({"no_wrap": True}, {"no_wrap": True}, {"overflow": "fold"}, padding=1)
    for (what, is_good, says), names in where.items():
        everywhere = len(names) >= end["workers"]
        told_by = "" if everywhere else f" ({', '.join(names)})"
        stays = "" if is_good else "; the old stays"
        mark = Text("✓", GOOD) if is_good else Text("✗", BAD)
        table.add_row(mark, Text(what, BOLD), f"{says}{stays}{told_by}")
    out = console()
    out.print(table if where else "There is nothing to load again: no certificate, no accounts, no policy.")
    sys.exit(1 if end["refused"] else 0)

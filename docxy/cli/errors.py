"""`docxy errors`: the newest answers that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text

from docxy.cli.admin import Daemon, asks, print_json
from docxy.cli.screen import BAD, BOLD, ago, clean, console, dated


@click.command(short_help="The newest answers that failed.", epilog="Example: docxy errors --json | jq .errors[0]")
@asks
def errors(daemon: Daemon, as_json: bool) -> None:
    """The newest answers that failed: an error of a registry, its pull limit, or a transfer that broke off.

    Failures of the past are no reason for an exit status other than 0; docxy status judges the present.
    """
    snapshot = daemon.status()
    if as_json:
        print_json({"version": snapshot["version"], "errors": snapshot["errors"]})
        return
    now = snapshot["docxy"]["now"]
    rows = [(ago(each["at"], now), Text(clean(each["name"]), BOLD), _words(each)) for each in snapshot["errors"]]
    console().print(dated(rows) if rows else "No answer failed since docxy started.")


def _words(error: Mapping[str, Any]) -> Text:
    words = clean(error["words"])
    return Text(words if error["status"] < 400 or words == str(error["status"]) else f"{error['status']} {words}", BAD)

"""`docxy pulls`: the newest pulls, with the reason why each took as long as it did."""

from __future__ import annotations

import sys

import click

from docxy.cli.admin import Daemon, asks, print_json
from docxy.cli.images import is_pull_of, told
from docxy.cli.screen import console, pull_rows

MOST = 500
"""As docxy itself answers at most."""


@click.command(
    short_help="The newest pulls, and why each took as long as it did.",
    epilog="Example: docxy pulls -n 5 ghcr.io/o/i",
)
@click.argument("image", required=False)
@click.option("-n", "most", type=click.IntRange(1, MOST), default=20, show_default=True, help="How many.")
@asks
def pulls(daemon: Daemon, as_json: bool, image: str | None, most: int) -> None:
    """The newest pulls, of IMAGE or of all, and why each took as long as it did.

    docxy remembers those of the last 7 days. Exit status 1 if there was none.
    """
    snapshot = daemon.status()
    if image is None:
        found = daemon.pulls(most)
    else:
        wanted = told(image, snapshot)
        found = [pull for pull in daemon.pulls(MOST, wanted.full) if is_pull_of(wanted, pull)][:most]
    if as_json:
        print_json({"version": snapshot["version"], "pulls": found})
    else:
        out = console()
        if found:
            out.print(pull_rows(found, snapshot["docxy"]["now"]))
        else:
            out.print("Nobody has pulled yet." if image is None else f"docxy knows of no pull of {image}.")
    sys.exit(0 if found else 1)

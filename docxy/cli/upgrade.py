"""`docxy upgrade`: the code that is installed takes over from the docxy that runs."""

from __future__ import annotations

import click

from docxy.cli.admin import Daemon, asks, print_json
from docxy.cli.cache import outcome


@click.command(
    short_help="Have the installed docxy take over from the one that runs.",
    epilog="Example: pip install --upgrade /srv/docxy && docxy upgrade",
)
@asks
def upgrade(daemon: Daemon, as_json: bool) -> None:
    """Start docxy anew, with the command line of the one that runs, and have it take over without a dropped pull.

    No connection is refused meanwhile, and pulls that run go on in the old docxy, for --upgrade-grace at most. Exit
    status 1 if the new docxy does not serve: the one that runs goes on as before.
    """
    _, end = outcome(daemon.act("upgrade", {}))
    if as_json:
        print_json(end)
    else:
        click.echo(f"process {end['pid']} serves now; process {end['old']} ends when its transfers have ended")

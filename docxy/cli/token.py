"""`docxy token`: a token for a script that pulls.

The law: the token goes to standard output, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from docxy.cli.admin import Daemon, asks, print_json
from docxy.cli.cache import completed, outcome
from docxy.cli.images import told


@click.command(
    short_help="A token for a script that pulls.",
    epilog='Example: curl -H "Authorization: Bearer $(docxy token -u alice ghcr.io/o/i)" https://mirror/v2/ghcr.io/o/i/tags/list',
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completed)
@click.option("-u", "--user", metavar="NAME", help="Pull as this user of the htpasswd file. Without it: as nobody.")
@asks
def token(daemon: Daemon, as_json: bool, images: Sequence[str], user: str | None) -> None:
    """Print a token with which a script may pull each IMAGE from this docxy for 5 minutes, without a password.

    It can do what the rules let the user do. Exit status 1 if they let the user not pull an IMAGE, or if docxy has
    no accounts of its own.
    """
    snapshot = daemon.status()
    repositories = [told(image, snapshot).full for image in images]
    asked = {"repository": repositories, **({} if user is None else {"user": user})}
    _, document = outcome(daemon.act("token", asked))
    if as_json:
        print_json(document)
    else:
        click.echo(document["token"])

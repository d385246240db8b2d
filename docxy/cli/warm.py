"""`docxy warm IMAGE…`: docxy fetches images now, so that later pulls are hits.

The laws: a second run goes on where the first one ended; what cannot be fetched is said with its reason, and the rest
goes on; nobody waits for a pull limit unless `--wait` says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from docxy.cli.admin import SOCKET_HELP, Daemon, find, print_json
from docxy.cli.failure import Failure
from docxy.cli.image_lists import read
from docxy.cli.screen import BAD, BOLD, GOOD, QUIET, WARN, clean, console, grid
from docxy.observe.verdict import amount, duration
from docxy.steward.lines import Line

LONGEST_WAIT = 3600.0
"""Seconds between two attempts with `--wait`."""
USUAL_WAIT = 60.0
TOO_MANY = 429
_WIDE = 34
"""Columns of an image's name beside its bar."""


@click.command(
    short_help="Fetch images now, so that later pulls are hits.",
    epilog="Example: docxy warm --from-file compose.yaml --platform linux/amd64 --platform linux/arm64",
)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="linux/amd64 unless you say; or all.")
@click.option(
    "--from-file",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Images of a list, a compose file, or Kubernetes manifests; may be repeated.",
)
@click.option(
    "--floor",
    type=click.FloatRange(0, 100),
    default=10,
    show_default=True,
    help="Percent of each pull limit to leave to others.",
)
@click.option("--wait", is_flag=True, help="Wait where a pull limit is used up, and go on.")
@click.option("--socket", metavar="FILE", envvar="ADMIN_SOCKET", help=SOCKET_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def warm(
    images: Sequence[str],
    platforms: Sequence[str],
    files: Sequence[str],
    floor: float,
    wait: bool,
    socket: str | None,
    as_json: bool,
) -> None:
    """Have docxy fetch images and keep them. Nothing that it has is fetched again, so a second run goes on.

    Files name images in lines, as services.*.image of compose, or in the pods of Kubernetes manifests.

    Exit status 1 if an image could not be fetched.
    """
    wanted, notes = dict.fromkeys(images), []
    for path in files:
        listed = read(path, os.environ)
        wanted |= listed.images
        notes += [f"{path}: {note}" for note in listed.notes]
    for note in notes:
        click.echo(f"docxy: {clean(note)}", err=True)
    if not wanted:
        raise click.UsageError("name an image, or a file with --from-file")
    daemon = find(socket, os.environ, os.geteuid() == 0)
    rows: list[Mapping[str, Any]] = []
    for image in wanted:
        for platform in platforms or (None,):
            row = _warmed(daemon, image, platform, floor / 100, wait, as_json)
            rows.append(row)
            if not as_json:
                console().print(_told(row))
    failed = [row for row in rows if row["error"]]
    if as_json:
        print_json({"images": rows, "failed": len(failed), "notes": notes})
    elif len(rows) > 1:
        fetched = amount(sum(row["fetched"] for row in rows))
        console().print(Text(f"\n{len(rows) - len(failed)} of {len(rows)} are here; {fetched} fetched now", QUIET))
    if failed:
        raise SystemExit(1)


def _warmed(
    daemon: Daemon, image: str, platform: str | None, floor: float, wait: bool, quiet: bool
) -> Mapping[str, Any]:
    """What became of one image."""
    arguments: dict[str, Any] = {"image": [image], "floor": floor}
    if platform is not None:
        arguments["platform"] = [platform]
    while True:
        try:
            row = _followed(daemon.act("warm", arguments), image, quiet)
        except Failure as failure:
            if failure.exit_code != 1:
                raise
            row = {"name": image, "platform": platform, "size": 0, "fetched": 0, "error": failure.message, "status": 0}
        if row["status"] != TOO_MANY or not wait:
            return row
        seconds = min(row["retry_after"] or USUAL_WAIT, LONGEST_WAIT)
        click.echo(f"docxy: {clean(row['error'])}; trying again in {duration(seconds)}", err=True)
        time.sleep(seconds)


def _followed(lines: Iterator[Line], image: str, quiet: bool) -> Mapping[str, Any]:
    """The item of an act, with a bar for each layer that is on its way."""
    screen = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (TextColumn("  {task.description}"), BarColumn(24), TextColumn("{task.fields[much]}"))
    tasks: dict[str, TaskID] = {}
    row: Mapping[str, Any] = {}
    with Progress(*columns, console=screen, transient=True, disable=quiet or not screen.is_terminal) as bars:
        whole = bars.add_task(_end_of(clean(image)), total=None, much="")
        for line in lines:
            row = line.get("item", row)
            told = line.get("progress")
            if told is None or told["total"] is None:
                continue
            name, done, total = told["what"].rpartition(" ")[2], told["done"], told["total"]
            if name not in tasks:
                tasks[name] = bars.add_task(f"  {clean(name)}", total=total, much="")
            bars.update(tasks[name], completed=done, much=f"{amount(done)} of {amount(total)}", visible=done < total)
            count = sum(bars.tasks[task].finished for task in tasks.values())
            bars.update(whole, much=f"{count} layer{'' if count == 1 else 's'} fetched")
    return row


def _end_of(name: str) -> str:
    return name if len(name) <= _WIDE else f"…{name[1 - _WIDE :]}"


def _told(row: Mapping[str, Any]) -> Table:
    """A mark, and beside it what became of an image, however long its name is."""
    table = grid({"no_wrap": True}, {"overflow": "fold"}, padding=1)
    table.add_row(*_words(row))
    return table


def _words(row: Mapping[str, Any]) -> tuple[Text, Text]:
    platform = f" {row['platform']}" if row["platform"] else ""
    name = Text.assemble((clean(row["name"]), BOLD), (platform, QUIET))
    if row["error"]:
        tone = WARN if row["status"] == TOO_MANY else BAD
        return Text("✗", BAD), Text.assemble(name, "\n", (clean(row["error"]), tone))
    much = "here already" if not row["fetched"] else f"{amount(row['fetched'])} fetched"
    return Text("✓", GOOD), Text.assemble(name, f"\n{amount(row['size'])}, {much}")

"""`docxy verify`: read and hash all that is cached."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from docxy.cli.admin import print_json
from docxy.cli.cache import Cache, followed, on_cache
from docxy.cli.rm import seconds
from docxy.cli.screen import BAD, GOOD, QUIET, clean, console
from docxy.observe.verdict import amount


@click.command(short_help="Read and hash all that is cached.", epilog="Example: docxy verify --repair --older 7d")
@click.option("--repair", is_flag=True, help="Remove what is damaged; the next pull fetches it again.")
@click.option("--older", metavar="AGE", help="Leave out what was hashed within this time.")
@on_cache
def verify(cache: Cache, as_json: bool, repair: bool, older: str | None) -> None:
    """Read and hash every blob of the cache, and name the images of those that are damaged.

    A docxy that serves from the same disk comes first: the work rests half of the time. Ctrl-C stops it; what was
    hashed is noted, so that --older 1h goes on where it was. Exit status 1 if something is damaged and stays so.
    """
    asked: dict[str, Any] = {"repair": repair}
    if older is not None:
        asked["older"] = seconds("older", older)
    items: list[Mapping[str, Any]] = []
    end: Mapping[str, Any] = {}
    out = console()
    with followed(cache.act("verify", asked)) as lines:
        for line in lines:
            if "item" in line:
                items.append(line["item"])
                if not as_json:
                    out.print(_found(line["item"], repair))
            end = line.get("done", end)
    if as_json:
        print_json({**end, "found": items})
    else:
        skipped = f"; {end['skipped']} left out" if end["skipped"] else ""
        removed = " and removed" if end["repaired"] else ""
        words = f"{end['blobs']} blobs read, {amount(end['bytes'])}, {end['damaged']} damaged{removed}{skipped}"
        out.print(Text(words, BAD if end["damaged"] and not repair else GOOD))
        if end["damaged"] and not repair:
            out.print("docxy verify --repair removes them; the next pull fetches them again")
    sys.exit(1 if end["damaged"] and not repair else 0)


def _found(item: Mapping[str, Any], repair: bool) -> RenderableType:
    about = [*map(clean, item["images"]), clean(item["digest"])]
    return Group(
        Text.assemble((item["found"], BAD), f"  {amount(item['size'])}{', removed' if repair else ''}"),
        *(Padding(Text(each, overflow="fold"), (0, 0, 0, 2), expand=False) for each in about),
        Padding(Text(clean(item["why"]), QUIET), (0, 0, 0, 2), expand=False),
    )

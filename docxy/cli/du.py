"""`docxy du`: what takes the cache's room."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from docxy.cli.admin import print_json
from docxy.cli.cache import Cache, on_cache, outcome
from docxy.cli.screen import QUIET, ago, bar, clean, console, grid
from docxy.observe.verdict import amount


@click.command(short_help="What takes the cache's room.", epilog="Example: docxy du -n 10")
@click.option("-n", "most", type=click.IntRange(1), help="Show this many repositories. Without it: all.")
@on_cache
def du(cache: Cache, as_json: bool, most: int | None) -> None:
    """What takes the cache's room, by repository, the largest first.

    OWN is what only this repository leads to; SIZE counts what it shares with others, too.
    """
    items, end = outcome(cache.act("du", {}))
    if as_json:
        print_json({**end, "repositories": items})
        return
    out = console()
    if items:
        out.print(_table(items[:most], max(item["own"] for item in items)))
    if most is not None and len(items) > most:
        out.print(Text(f"and {len(items) - most} more", QUIET))
    out.print(_sum(end))


def _table(items: Sequence[Mapping[str, Any]], largest: int) -> Any:
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    heads = (Text(head, QUIET) for head in ("OWN", "", "SIZE", "IMAGES", "USED", "REPOSITORY"))
    table = grid(
        {**right, "min_width": 8},
        {"no_wrap": True},
        {**right, "min_width": 8},
        right,
        right,
        {"overflow": "fold"},
        padding=1,
    )
    table.add_row(*heads)
    now = time.time()
    for item in items:
        table.add_row(
            amount(item["own"]),
            bar(item["own"] / max(largest, 1), 8),
            amount(item["size"]),
            str(item["images"]),
            ago(item["used"], now) if item["used"] else "–",
            clean(item["repository"]),
        )
    return table


def _sum(end: Mapping[str, Any]) -> Text:
    budget = "" if end["budget"] is None else f" of {amount(end['budget'])}"
    text = Text(
        f"\n{amount(end['used'])}{budget} used on the disk, by {end['blobs']} blobs; {amount(end['free'])} free"
    )
    loose = end["unnamed"]
    if loose["blobs"]:
        text.append(f"\n{amount(loose['size'])} in {loose['blobs']} blobs is of no image: docxy gc frees it", QUIET)
    return text

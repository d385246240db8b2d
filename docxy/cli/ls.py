"""`docxy ls`: the images that are cached."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import click
from rich.text import Text

from docxy.cli.admin import print_json
from docxy.cli.cache import Cache, completed, followed, on_cache
from docxy.cli.screen import BOLD, QUIET, WARN, ago, clean, console
from docxy.observe.verdict import amount

Item = Mapping[str, Any]


@click.command(short_help="The images that are cached.", epilog="Example: docxy ls 'ghcr.io/**'")
@click.argument("images", metavar="[GLOB]...", nargs=-1, shell_complete=completed)
@click.option("-q", "--quiet", is_flag=True, help="Names only, one a line.")
@on_cache
def ls(cache: Cache, as_json: bool, images: Sequence[str], quiet: bool) -> None:
    """The images that are cached: all, or those that GLOB covers, as alpine, 'ghcr.io/**' or 'python:3.*'.

    SIZE is all that an image has in the cache; OWN is what no other image shares, which docxy rm would free. USED is
    the last pull. A manifest without a tag was pulled by its digest, or its tag leads elsewhere now. Exit status 1
    if there is none.
    """
    count = 0
    end: dict[str, Any] = {}
    with followed(cache.act("ls", {"image": images})) as lines:
        items = _items(lines, end)
        if as_json:
            found = list(items)
            print_json({**end, "images": found})
            sys.exit(0 if found else 1)
        out = console()
        for repository, group in groupby(items, lambda told: f"{told['upstream']}/{told['repository']}"):
            some = list(group)
            if quiet:
                click.echo("\n".join(clean(told["image"]) for told in some))
            else:
                rows = [Text(_HEADS, QUIET)] if not count else []
                rows += [Text(clean(repository), BOLD), *_rows(some, time.time(), out.width)]
                out.print(Text("\n").join(rows), soft_wrap=True)
            count += len(some)
    if not quiet:
        out.print(_sum(count, end, bool(images)))
    sys.exit(0 if count else 1)


def _items(lines: Iterable[Item], end: dict[str, Any]) -> Iterable[Item]:
    for line in lines:
        if "item" in line:
            yield line["item"]
        end.update(line.get("done", {}))


_TAG = 22
"""Columns of a tag; a longer one has a line of its own."""
_HEADS = f"{'TAG':{_TAG}} {'DIGEST':8} {'SIZE':>7} {'OWN':>8} {'USED':>10} PLATFORMS"
_BEFORE = _HEADS.index("PLATFORMS")


def _rows(images: Sequence[Item], now: float, width: int) -> Iterator[Text]:
    """Lines with columns of fixed widths: a cache may have thousands of repositories, too many for a table each."""
    for told in images:
        tag = Text("(no tag)", QUIET) if told["tag"] is None else Text(clean(told["tag"]))
        if len(tag) > _TAG:
            yield from tag.divide(range(width, len(tag), width))
            tag = Text("")
        tag.pad_right(_TAG - len(tag))
        used = ago(told["used"], now) if told["used"] else "–"
        sizes = f"{amount(told['size']):>7} {amount(told['own']):>8} {used:>10} "
        marks = [Text(clean(mark["what"]), WARN) for mark in told.get("marks", ())]
        platforms = [Text(clean(each).removeprefix("linux/"), QUIET) for each in told["platforms"]]
        first, *others = _folded([*marks, *platforms], max(10, width - _BEFORE))
        yield Text.assemble(tag, " ", (f"{short(told['digest']):8}", QUIET), " ", sizes, first)
        for each in others:
            yield Text.assemble(" " * _BEFORE, each)


def _folded(words: Sequence[Text], width: int) -> list[Text]:
    """Words with commas, in lines of at most `width` columns where that is possible."""
    lines = [Text()]
    for number, word in enumerate(words):
        told = Text.assemble(word, "," if number + 1 < len(words) else "")
        if lines[-1] and len(lines[-1]) + 1 + len(told) > width:
            lines.append(Text())
        lines[-1].append_text(Text.assemble(" " if lines[-1] else "", told))
    return lines


def short(digest: str) -> str:
    """The first hex digits of a digest."""
    return clean(digest).partition(":")[2][:8]


def _sum(count: int, end: Item, some: bool) -> Text:
    if not count:
        return Text("Nothing is cached of that name." if some else "Nothing is cached yet.")
    return Text(f"\n{count} image{'' if count == 1 else 's'}, {amount(end.get('size', 0))} in all", QUIET)

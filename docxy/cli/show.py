"""`docxy show`: all that the cache knows of an image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from docxy.cli.admin import print_json
from docxy.cli.cache import Cache, completed, on_cache, outcome
from docxy.cli.ls import short
from docxy.cli.screen import BOLD, GOOD, QUIET, WARN, ago, clean, console, grid, who
from docxy.observe.verdict import amount

CHANGES, PULLS = 10, 5
"""How many are shown."""
_MORE = {"recalled": "{}", "frozen": "at {}", "pinned": "by a command", "kept": "as [[keep]] says"}
Item = Mapping[str, Any]


@click.command(short_help="All that the cache has of an image.", epilog="Example: docxy show alpine:3.20")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completed)
@on_cache
def show(cache: Cache, as_json: bool, images: Sequence[str]) -> None:
    """All that the cache has of each IMAGE: digest, platforms, layers, and who pulled it lately.

    IMAGE is named as for docker pull: alpine, ghcr.io/o/i:tag, alpine@sha256:... (6 hex digits are enough), or by a
    glob. Exit status 1 if nothing is cached of it.
    """
    items, _ = outcome(cache.act("show", {"image": images}))
    if as_json:
        print_json(items)
        return
    out = console()
    for number, told in enumerate(items):
        if number:
            out.print()
        out.print(screen(told, time.time()))


def screen(told: Item, now: float) -> RenderableType:
    """One image."""
    facts = grid({"style": QUIET, "no_wrap": True}, {"overflow": "fold"}, padding=1)
    facts.add_row("digest", clean(told["digest"]))
    facts.add_row("size", f"{amount(told['size'])} cached, {amount(told['own'])} of it its own")
    facts.add_row("used", ago(told["used"], now) if told["used"] else "–")
    facts.add_row("checked", f"{ago(told['checked'], now)}, when its registry last said where it leads")
    for mark in told.get("marks", ()):
        facts.add_row(clean(mark["what"]), clean(_MORE[mark["what"]].format(mark["more"])))
    parts: list[RenderableType] = [Text(clean(told["image"]), BOLD), facts]
    for manifest in told["manifests"]:
        parts += _manifest(manifest)
    parts += _history(told.get("history", ()), now)
    parts += _pulls(told["pulls"], now)
    return Group(*parts)


def _manifest(manifest: Item) -> Iterator[RenderableType]:
    name = clean(manifest["platform"]) or "manifest"
    if not manifest["cached"]:
        yield Text.assemble((f"\n{name}", BOLD), f"  {short(manifest['digest'])}  ", ("not cached", QUIET))
        return
    layers = manifest["layers"]
    missing = sum(not layer["cached"] for layer in layers)
    whole = (f"{missing} of {len(layers)} layers not cached", WARN) if missing else ("whole", GOOD)
    yield Text.assemble((f"\n{name}", BOLD), f"  {short(manifest['digest'])}  ", whole)
    table = grid({"no_wrap": True, "min_width": 10}, {"justify": "right", "no_wrap": True, "min_width": 8}, {})
    for layer in layers:
        size = "–" if layer["size"] is None else amount(layer["size"])
        note = "not cached" if not layer["cached"] else "shared" if layer["shared"] else ""
        table.add_row(f"  {short(layer['digest'])}", size, Text(note, QUIET))
    yield table


def _history(changes: Sequence[Item], now: float) -> Iterator[RenderableType]:
    if not changes:
        return
    yield Text("\nHistory", BOLD)
    table = grid({"justify": "right", "no_wrap": True, "min_width": 10}, {"overflow": "fold"})
    for change in changes[:CHANGES]:
        led = "gone from its registry" if change["digest"] is None else short(change["digest"])
        table.add_row(ago(change["at"], now), led)
    yield table
    if len(changes) > CHANGES:
        yield Text(f"and {len(changes) - CHANGES} before; --json shows them, and whole digests", QUIET)


def _pulls(pulls: Sequence[Item], now: float) -> Iterator[RenderableType]:
    if not pulls:
        return
    yield Text("\nPulled by", BOLD)
    table = grid({"justify": "right", "no_wrap": True, "min_width": 10}, {"overflow": "fold"})
    for pull in pulls[:PULLS]:
        table.add_row(ago(pull["started"], now), Text(who(pull) or "somebody"))
    yield table
    if len(pulls) > PULLS:
        yield Text(f"and {len(pulls) - PULLS} more in the last 7 days", QUIET)

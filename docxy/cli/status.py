"""`docxy status`: one screen on what docxy is, and whether it is well."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from docxy.cli.admin import Daemon, Snapshot, asks, print_json
from docxy.cli.health import problems, upstream_words
from docxy.cli.screen import BOLD, GOOD, QUIET, WARN, bar, clean, console, grid, heading, percent, pull_rows
from docxy.observe.traffic import Share
from docxy.observe.verdict import amount, duration

SHOWN_PULLS = 3


@click.command(
    short_help="One screen: is docxy well, and what does it do?",
    epilog="Example: docxy status || systemctl status docxy",
)
@asks
def status(daemon: Daemon, as_json: bool) -> None:
    """One screen: is docxy well, and what does it do?

    Exit status 1 if something is wrong: an upstream that does not answer, a cache that cannot be used, an archive that
    fails, a certificate that ends within 14 days.
    """
    snapshot = daemon.status()
    wrong = problems(snapshot)
    if as_json:
        print_json(snapshot)
    else:
        console().print(screen(snapshot, wrong))
    sys.exit(1 if wrong else 0)


def screen(snapshot: Snapshot, wrong: list[str]) -> RenderableType:
    """Everything."""
    now = snapshot["docxy"]["now"]
    parts: list[RenderableType] = [head(snapshot, wrong), heading("Served"), _traffic(snapshot), cache(snapshot)]
    if snapshot.get("archive"):
        parts.append(archive(snapshot["archive"]))
    parts += [heading("Registries"), upstreams(snapshot)]
    if snapshot["fills"]:
        parts += [heading("On the way"), fills(snapshot["fills"][:10])]
    if snapshot["pulls"]:
        parts += [heading("Recent pulls"), pull_rows(snapshot["pulls"][:SHOWN_PULLS], now)]
    return Group(*parts)


def head(snapshot: Snapshot, wrong: list[str]) -> RenderableType:
    """What runs, and how it is."""
    about = snapshot["docxy"]
    workers = "1 worker" if about["workers"] == 1 else f"{about['workers']} workers"
    first = Text.assemble(("docxy ", BOLD), (about["version"], BOLD), f"  {about['public_url']}")
    up = duration(about["now"] - about["started"])
    if not wrong:
        return Group(first, Text(f"● well: {workers}, up {up}", style=GOOD))
    lines = [Text(f"! {line}", style=WARN) for line in wrong]
    return Group(first, Text(f"▲ degraded: {workers}, up {up}", style=WARN), *lines)


def _traffic(snapshot: Snapshot) -> RenderableType:
    right: dict[str, Any] = {"justify": "right"}
    table = grid({"style": QUIET}, right, right, right, padding=4)
    shares = [Share(**snapshot["traffic"][name]) for name in ("hour", "day", "week")]
    table.add_row("", *(Text(name, style=QUIET) for name in ("last hour", "24 hours", "7 days")))
    table.add_row("from the cache", *(percent(share.hit_rate) for share in shares))
    table.add_row("joined a fetch", *(percent(share.join_rate) for share in shares))
    table.add_row("to clients", *(amount(share.sent) for share in shares))
    table.add_row("of it saved", *(amount(share.saved) for share in shares))
    table.add_row("from registries", *(amount(share.received) for share in shares))
    return table


def cache(snapshot: Snapshot) -> RenderableType:
    """How full the cache is."""
    held = snapshot["cache"]
    if held is None:
        return Text.assemble(("cache              ", QUIET), "off" if snapshot["docxy"]["cache"] is None else "–")
    share = held["used"] / held["budget"] if held["budget"] else 0.0
    words = f"  {amount(held['used'])} of {amount(held['budget'])} ({percent(share)})"
    width = 20
    if held.get("pinned"):
        words += f", {amount(held['pinned'])} pinned"
        width = 16  # so that all of it is on one line
    return Text.assemble(("cache              ", QUIET), bar(share, width, GOOD), words)


def archive(told: Snapshot) -> RenderableType:
    """What went to the archive and came from there."""
    words = f"{amount(told['put'])} put, {amount(told['read'])} read"
    if told["waiting"]:
        words += f", {told['waiting']} blobs wait to be put"
    if told["failed"]:
        words += f", {told['failed']} requests failed"
    return Text.assemble(("archive            ", QUIET), (words, WARN if told["failure"] else ""))


def upstreams(snapshot: Snapshot) -> RenderableType:
    """A line for each registry."""
    now = snapshot["docxy"]["now"]
    table = grid({"no_wrap": True}, {"overflow": "fold", "ratio": 1}, {"justify": "right", "no_wrap": True})
    for upstream in snapshot["upstreams"]:
        words, style = upstream_words(upstream, now)
        quota = f"{upstream['remaining']} of {upstream['limit']} pulls left" if upstream["limit"] else ""
        table.add_row(Text(upstream["name"], style=BOLD), Text(words, style=style), Text(quota))
    return table


def fills(shown: Iterable[dict[str, Any]]) -> RenderableType:
    """A line for each layer on the way."""
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    table = grid({"no_wrap": True, "overflow": "ellipsis", "ratio": 1}, {"no_wrap": True}, {"no_wrap": True}, right)
    for fill in shown:
        share = fill["offset"] / fill["size"] if fill["size"] else None
        table.add_row(
            Text(clean(f"{fill['upstream']}/{fill['repository']}"), style=BOLD),
            Text(fill["digest"].partition(":")[2][:8], style=QUIET),
            Text(amount(fill["offset"])) if share is None else bar(share, 12, GOOD) + Text(f" {percent(share):>5}"),
            f"{amount(fill['rate'])}/s",
        )
    return table

"""`docxy quota`: what is left of each registry's pull limit, and who spent it."""

from __future__ import annotations

import sys

import click
from rich.console import Group, RenderableType
from rich.text import Text

from docxy.cli.admin import Daemon, Snapshot, asks, print_json
from docxy.cli.screen import BAD, BOLD, GOOD, QUIET, WARN, bar, clean, console, grid
from docxy.observe.verdict import duration


@click.command(short_help="What is left of the pull limits, and who spent them.", epilog="Example: docxy quota --json")
@asks
def quota(daemon: Daemon, as_json: bool) -> None:
    """What is left of each registry's pull limit, and who spent it within the last 6 hours.

    Exit status 1 if a registry refuses pulls because its limit is used up.
    """
    told = daemon.quota()
    if as_json:
        print_json(told)
    else:
        console().print(screen(told))
    sys.exit(1 if any(upstream["state"] == "limited" for upstream in told["upstreams"]) else 0)


def screen(told: Snapshot) -> RenderableType:
    """Each registry."""
    now = told["now"]
    parts: list[RenderableType] = []
    for upstream in told["upstreams"]:
        name, line = Text(clean(upstream["name"]), style=BOLD), Text()
        limit, left = upstream["limit"], upstream["remaining"]
        if limit:
            share = (left or 0) / limit
            name.append("  ").append_text(bar(share, 20, BAD if share < 0.1 else WARN if share < 0.25 else GOOD))
            line.append(f"{left or 0} of {limit} pulls left")
            if upstream["ends_at"]:
                line.append(f"; at this pace they end in {duration(max(0.0, upstream['ends_at'] - now))}", style=WARN)
        else:
            line.append("names no pull limit", style=QUIET)
        if upstream["state"] == "limited":
            wait = duration(max(0.0, (upstream["until"] or now) - now))
            line.append(f"; refuses pulls for {wait}: log in, or wait", style=BAD)
        head = grid({"no_wrap": True}, {})
        head.add_row(name, line)
        parts.append(head)
        if upstream["spenders"]:
            table = grid({"justify": "right", "min_width": 8}, {"overflow": "fold"}, {"overflow": "fold"})
            table.add_row(*(Text(word, style=QUIET) for word in ("pulls", "repository", "account")))
            for spender in upstream["spenders"]:
                account = spender["account"] or "without login"
                group = f" ({clean(spender['group'])})" if spender["group"] else ""
                table.add_row(str(spender["count"]), clean(spender["repository"]), clean(account) + group)
            parts.append(table)
    return Group(*parts)

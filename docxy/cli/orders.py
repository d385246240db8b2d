"""`docxy freeze`, `release`, `recall`, `pin`, `unpin`, `orders`: what is to be done about an image, from now on.

The law: a command that ends with 0 has done it: the order is on the disk, and every worker goes by it.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from docxy.cli.admin import print_json
from docxy.cli.cache import Cache, completed, on_cache, outcome
from docxy.cli.screen import BAD, BOLD, GOOD, QUIET, WARN, ago, clean, console, grid, heading, who
from docxy.observe.verdict import amount
from docxy.steward.report import MOST_PULLS

SHOWN_PULLS = 20
"""Pulls that a report shows; JSON has all."""
_ONE_IMAGE = click.argument("image", metavar="IMAGE", shell_complete=completed)
_IMAGES = click.argument("images", metavar="IMAGE|DIGEST...", nargs=-1, required=True, shell_complete=completed)
_WIDE = len("release")
"""Columns of an order's kind."""
_TONE = {"recall": BAD, "freeze": WARN, "pin": GOOD}


@click.command(
    short_help="Keep a tag where it is, wherever its registry moves it.",
    epilog="Example: docxy freeze python:3.12@sha256:3f5a...",
)
@_ONE_IMAGE
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@on_cache
def freeze(cache: Cache, as_json: bool, image: str, dry_run: bool) -> None:
    """Have the tag of IMAGE lead to its digest, wherever its registry moves the tag.

    IMAGE is a tag with a digest, as python:3.12@sha256:...; without one it is where the tag leads now, as far as
    docxy knows. The digest itself, and all others, can be pulled as ever. docxy release undoes it.
    """
    (order,), _ = outcome(cache.act("freeze", {"image": image, "dry_run": dry_run, "who": _user()}))
    _say(as_json, order, f"{'would stay' if dry_run else 'stays'} at", order["digest"])


@click.command(
    short_help="Let a frozen tag move again, or an image out of its cooldown.",
    epilog="Example: docxy release python:3.12",
)
@_ONE_IMAGE
@click.option("--lift", is_flag=True, help="Take back an exception from the cooldown.")
@on_cache
def release(cache: Cache, as_json: bool, image: str, lift: bool) -> None:
    """Let the tag IMAGE move again, if it is frozen. If it is not, except IMAGE from the cooldown.

    IMAGE is a tag, a digest (sha256:...) or, for the cooldown, a glob. See the page Policy of the documentation.
    """
    (order,), _ = outcome(cache.act("release", {"image": image, "lift": lift, "who": _user()}))
    if not order["lifted"]:
        words = "is excepted from the cooldown"
    elif order["kind"] == "freeze":
        words = "is not frozen any more"
    else:
        words = "is not excepted from the cooldown any more"
    _say(as_json, order, words)


@click.command(
    short_help="Have an image or a digest pulled by nobody any more.",
    epilog="Example: docxy recall sha256:3f5a... --reason CVE-2026-1234",
)
@click.argument("image", metavar="IMAGE|DIGEST", shell_complete=completed)
@click.option("--reason", metavar="TEXT", help="One line that clients, the log and the status page show.")
@click.option("--report", is_flag=True, help="Change nothing: show what leads to it, and who pulled it.")
@click.option("--lift", is_flag=True, help="Let it be pulled again.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and show the report.")
@on_cache
def recall(
    cache: Cache, as_json: bool, image: str, reason: str | None, report: bool, lift: bool, dry_run: bool
) -> None:
    """Refuse IMAGE or DIGEST to every client, from now on, whether or not it is cached.

    A digest is refused under every name, with each image that has it in it; a tag with the digests that it is known
    to have led to; a name without a tag is all of its repository. What is on its way to a client is cut.
    """
    if report + lift + (reason is not None) > 1:
        raise click.UsageError("--report, --lift and --reason do not go together")
    if report:
        items, end = outcome(cache.act("report", {"image": image}))
        _report(as_json, items, end)
        return
    asked = {"image": image, "lift": lift, "dry_run": dry_run, "who": _user()}
    (order,), _ = outcome(cache.act("recall", asked if reason is None else {**asked, "reason": reason}))
    if order["lifted"]:
        words = "would not be recalled any more" if dry_run else "is not recalled any more"
    else:
        words = f"{'would be' if dry_run else 'is'} recalled: {order['reason']}"
    if not dry_run or lift:
        _say(as_json, {**order, "dry_run": dry_run}, words)
        return
    items, end = outcome(cache.act("report", {"image": image}))
    if as_json:
        print_json({**end, "dry_run": True, "order": order, "found": items})
        return
    _say(False, order, words)
    _report(False, items, end)


@click.command(
    short_help="Keep images in the cache: never evict them.",
    epilog="Example: docxy pin python:3.12 'ghcr.io/o/base:*'",
)
@_IMAGES
@on_cache
def pin(cache: Cache, as_json: bool, images: Sequence[str]) -> None:
    """Keep what is cached of each IMAGE: its index, the platforms that were pulled, configs and layers.

    A pin is outside eviction, docxy gc and docxy rm, and keeps a tag that its registry deletes. Pins may take half of
    the cache; exit status 1 if it is more, and then the pins that were given last are not kept.
    """
    items, end = outcome(cache.act("pin", {"image": list(images), "who": _user()}))
    over = end.get("wanted", 0) > end.get("kept", 0)
    if as_json:
        print_json({**end, "pinned": items})
    else:
        for order in items:
            console().print(f"{clean(order['about'])} is pinned", overflow="fold")
        if end:
            console().print(Text(f"{amount(end['kept'])} are pinned in all", QUIET))
        if over:
            words = f"that is as much as may be: of {amount(end['wanted'])} the last ones are not kept"
            console().print(Text(words, BAD))
    if over:
        raise SystemExit(1)


@click.command(short_help="Let pinned images be evicted again.", epilog="Example: docxy unpin python:3.12")
@_IMAGES
@on_cache
def unpin(cache: Cache, as_json: bool, images: Sequence[str]) -> None:
    """Let each IMAGE be evicted again, when docxy needs room for what was used since. Nothing is removed now.

    IMAGE is written as it was pinned; docxy orders shows that.
    """
    items, _ = outcome(cache.act("unpin", {"image": list(images)}))
    if as_json:
        print_json(items)
        return
    for order in items:
        console().print(f"{clean(order['about'])} is not pinned any more", overflow="fold")


@click.command(short_help="What is frozen, recalled, pinned and released by commands.", epilog="Example: docxy orders")
@on_cache
def orders(cache: Cache, as_json: bool) -> None:
    """What is frozen, recalled, pinned and released by commands, the oldest first.

    The configuration file's [[freeze]] and [[recall]] stand beside these.
    """
    items, _ = outcome(cache.act("orders", {}))
    if as_json:
        print_json(items)
        return
    if not items:
        console().print("There are no orders.")
        return
    now = time.time()
    for order in items:
        console().print(_ordered(order, now))


def _ordered(order: Mapping[str, Any], now: float) -> RenderableType:
    """One order; a whole digest has room below it."""
    row = grid({"no_wrap": True, "min_width": _WIDE}, {"overflow": "fold", "ratio": 1}, {"no_wrap": True}, padding=1)
    row.expand = True
    by = f" by {clean(order['who'])[:20]}" if order["who"] else ""
    kind = Text(order["kind"], _TONE.get(order["kind"], QUIET))
    row.add_row(kind, Text(clean(order["about"]), BOLD), f"{ago(order['at'], now)}{by}")
    more = [order["digest"]] if order["kind"] == "freeze" else []
    more += [clean(order["reason"])] if order["reason"] else []
    below = (Padding(Text(each, QUIET, overflow="fold"), (0, 0, 0, _WIDE + 1)) for each in more)
    return Group(row, *below)


def _user() -> str:
    """Who gives an order."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _say(as_json: bool, order: Mapping[str, Any], words: str, more: str = "") -> None:
    if as_json:
        print_json(order)
        return
    console().print(Text(clean(order["about"]), BOLD), overflow="fold")
    console().print(f"{clean(words)} {more}".rstrip(), overflow="fold")


def _report(as_json: bool, items: Sequence[Mapping[str, Any]], end: Mapping[str, Any]) -> None:
    if as_json:
        print_json({**end, "found": items})
    else:
        console().print(_shown(items))
        if not end.get("whole", True):
            words = f"Only the newest {MOST_PULLS:,} pulls were looked through: there may be more."
            console().print(Text(words, WARN))


_PARTS = (
    ("Digests", ("digest",)),
    ("Images that have it", ("tag", "manifest")),
    ("Manifests that name it", ("index",)),
)


def _shown(items: Sequence[Mapping[str, Any]]) -> RenderableType:
    asked = [item for item in items if item["kind"] == "pull"]
    pulls = [item for item in asked if not item["refused"]]
    if not any(item["kind"] in ("tag", "manifest", "pull") for item in items):
        return Text("Nothing that is cached leads to it, and none of the pulls that docxy still knows of asked for it.")
    parts: list[RenderableType] = []
    for words, kinds in _PARTS:
        found = [item for item in items if item["kind"] in kinds]
        if found:
            parts.append(heading(words))
            parts += [Text(clean(item.get("image") or item["digest"])) for item in found]
    parts.append(heading(f"Pulls in the last 7 days: {len(pulls)}"))
    table = grid({"justify": "right", "no_wrap": True, "min_width": 10}, {"overflow": "fold"}, {"overflow": "fold"})
    now = time.time()
    for pull in pulls[:SHOWN_PULLS]:
        when = ago(pull["started"] + pull["seconds"], now)
        table.add_row(when, clean(pull["image"]), Text(who(pull) or "somebody", QUIET))
    parts.append(table)
    if len(pulls) > SHOWN_PULLS:
        parts.append(Text(f"and {len(pulls) - SHOWN_PULLS} more; --json has all", QUIET))
    if len(asked) > len(pulls):
        parts.append(Text(f"refused: {len(asked) - len(pulls)}; --json has them", QUIET))
    return Group(*parts)

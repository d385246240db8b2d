"""`docxy rm` and `docxy gc`: free what the cache holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from docxy.cli.admin import print_json
from docxy.cli.bucket import clean_archive
from docxy.cli.cache import Cache, changing, completed, on_cache, outcome
from docxy.cli.screen import QUIET, clean, console, grid
from docxy.observe.verdict import amount

Sure = Callable[[str], None]
SHOWN = 20
"""Images that are listed before the question."""
_AGE = re.compile(r"(\d{1,6}(?:\.\d+)?)([smhdw])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_KINDS = {
    "untagged": ("manifest", "without a tag that nobody pulled lately"),
    "unused": ("tag", "that nobody pulled lately"),
    "unnamed": ("blob", "that no image leads to"),
    "interrupted": ("download", "broken off, and not taken up within a day"),
}


@click.command(short_help="Remove images from the cache.", epilog="Example: docxy rm alpine:3.19 'ghcr.io/o/*'")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completed)
@changing("before images are removed")
@on_cache
def rm(cache: Cache, as_json: bool, images: Sequence[str], dry_run: bool, sure: Sure) -> None:
    """Remove each IMAGE from the cache, and say what that frees.

    IMAGE is a tag (alpine:3.19), all of a repository (alpine), a manifest (alpine@sha256:...) or a glob. What another
    image shares stays. The next pull fetches the image again. Exit status 1 if nothing is cached of an IMAGE.
    """
    items, end = outcome(cache.act("rm", {"image": images, "dry_run": True}))
    if not dry_run:
        _say(as_json, _images(items))
        sure(f"Remove {_count(len(items), 'image')}, which frees {amount(end['frees'])}?")
        items, end = outcome(cache.act("rm", {"image": images}))
    if as_json:
        print_json({**end, "removed": items})
        return
    if dry_run:
        _say(as_json, _images(items))
    console().print(_freed(end))


@click.command(
    short_help="Remove from the cache what no image leads to.", epilog="Example: docxy gc --unused 30d --dry-run"
)
@click.option(
    "--untagged",
    metavar="AGE",
    default="7d",
    show_default=True,
    help="Manifests without a tag go that nobody pulled for so long.",
)
@click.option("--unused", metavar="AGE", help="Tags go, too, that nobody pulled for so long. Without it: none.")
@click.option("--archive", is_flag=True, help="Clean the object store of the table [archive] instead of the cache.")
@click.option(
    "--older-than",
    metavar="AGE",
    default="30d",
    show_default=True,
    help="With --archive: what no docxy used for so long goes.",
)
@click.option("--config", "file", metavar="FILE", help="With --archive: the file. Without it: DOCXY_CONFIG.")
@changing("before anything is removed")
@on_cache
def gc(
    cache: Cache,
    as_json: bool,
    untagged: str,
    unused: str | None,
    archive: bool,
    older_than: str,
    file: str | None,
    dry_run: bool,
    sure: Sure,
) -> None:
    """Remove from the cache what no image leads to, and say what that frees.

    That is what a tag led to before it moved, blobs of images that were removed, and downloads that were interrupted.
    docxy evicts what was used least recently by itself when it needs room, so this is never urgent.
    """
    if archive:
        older = seconds("older-than", older_than)
        if not dry_run:
            sure("Remove from the archive what no docxy used for so long?")
        clean_archive(file, older, dry_run, as_json)
        return
    asked = {"untagged": seconds("untagged", untagged)}
    if unused is not None:
        asked["unused"] = seconds("unused", unused)
    items, end = outcome(cache.act("gc", {**asked, "dry_run": True}))
    if not dry_run and end["blobs"]:
        _say(as_json, _kinds(items))
        sure(f"Remove {_count(end['blobs'], 'blob')}, which frees {amount(end['frees'])}?")
        items, end = outcome(cache.act("gc", asked))
    if as_json:
        print_json({**end, "removed": items})
        return
    if not end["blobs"]:
        console().print("There is nothing to remove.")
        return
    if dry_run:
        _say(as_json, _kinds(items))
    console().print(_freed(end))


def seconds(option: str, text: str) -> float:
    """An option's age, as `7d`, in seconds.  Raises click.UsageError."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise click.UsageError(f"--{option}: {text[:40]!r} is no time as 90s, 15m, 12h or 7d")
    return float(found[1]) * _UNITS[found[2]]


def _say(as_json: bool, what: Any) -> None:
    if not as_json:
        console().print(what)


def _images(items: Sequence[Mapping[str, Any]]) -> Any:
    table = grid({"overflow": "fold"}, {"justify": "right", "no_wrap": True})
    for item in items[:SHOWN]:
        table.add_row(clean(item["image"]), Text(amount(item["size"]), QUIET))
    if len(items) > SHOWN:
        table.add_row(Text(f"and {len(items) - SHOWN} more", QUIET))
    return table


def _kinds(items: Sequence[Mapping[str, Any]]) -> Any:
    table = grid({"justify": "right", "no_wrap": True}, {"overflow": "fold"})
    for item in items:
        noun, which = _KINDS[item["kind"]]
        table.add_row(amount(item["frees"]), f"{_count(item['images'] or item['blobs'], noun)} {which}")
    return table


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _freed(end: Mapping[str, Any]) -> str:
    did = "would free" if end["dry_run"] else "freed"
    return f"{did} {amount(end['frees'])}, {_count(end['blobs'], 'blob')}"

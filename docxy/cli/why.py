"""`docxy why IMAGE`: one pull's answers as bars over time, with the reason why it took as long as it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from docxy.cli.admin import Daemon, asks, print_json
from docxy.cli.failure import Failure
from docxy.cli.images import is_pull_of, told
from docxy.cli.pulls import MOST
from docxy.cli.screen import BAD, BOLD, GOOD, QUIET, WARN, clean, console, grid, tone, when, who
from docxy.observe.exchange import WAITS
from docxy.observe.verdict import amount, duration

ROWS = 40
"""Answers that are drawn; the longest ones."""
WIDTH = 30
"""Columns of a bar."""
_KEY = {
    "hit": ("█", GOOD, "from the cache"),
    "login": ("p", "bright_magenta", "waited for the check of the password"),
    "headers": ("h", "magenta", "waited for the registry's answer"),
    "upstream": ("▓", "blue", "waited for its bytes"),
    "rate": ("r", WARN, "waited for docxy's own max_rate"),
    "connection": ("c", BAD, "waited for a connection"),
    "disk": ("d", "cyan", "waited for the disk"),
    "client": ("▒", WARN, "waited for the client"),
    "rest": ("░", "default", "the rest"),
    "failed": ("x", BAD, "failed"),
}
"""What a bar is made of: letter, colour, meaning."""


@click.command(
    short_help="Why did this pull take so long? Its bars and its reason.",
    epilog="Example: docxy why ghcr.io/o/i:v1 --back 1",
)
@click.argument("image")
@click.option("--back", type=click.IntRange(0, MOST - 1), default=0, help="Pulls to go back from the newest one.")
@asks
def why(daemon: Daemon, as_json: bool, image: str, back: int) -> None:
    """Why the newest pull of IMAGE took as long as it did.

    IMAGE is named as for docker pull: alpine, ghcr.io/o/i:tag, alpine@sha256:... Without a tag or a digest it is
    the newest pull of any. Exit status 1 if docxy knows of none.
    """
    snapshot = daemon.status()
    wanted = told(image, snapshot)
    found = [pull for pull in daemon.pulls(MOST, wanted.full) if is_pull_of(wanted, pull)]
    if len(found) <= back:
        count = "no pull" if not found else "1 pull" if len(found) == 1 else f"{len(found)} pulls"
        raise Failure(f"docxy knows of {count} of {clean(image)[:300]} in the last 7 days")
    pull = found[back]
    if as_json:
        print_json(pull)
        return
    console().print(screen(pull, snapshot["docxy"]["now"]))
    older = len(found) - back - 1
    if older:
        console().print(Text(f"\n{older} older; --back {back + 1} shows the one before", style=QUIET))


def screen(pull: Mapping[str, Any], now: float) -> RenderableType:
    """One pull."""
    parts: list[RenderableType] = [
        Text(clean(pull["image"]), style=BOLD),
        Text(f"{when(pull, now)} · {who(pull)}"),
        Text(f"{amount(pull['sent'])} in {duration(pull['seconds'])}"),
        Text(clean(pull["verdict"]["words"]), style=f"bold {tone(pull)}"),
        Text(""),
    ]
    longest = sorted(pull["parts"], key=lambda part: -part["seconds"])[:ROWS]
    shown = sorted(longest, key=lambda part: part["at"] - part["seconds"])
    parts.append(_waterfall(shown, pull["started"], max(pull["seconds"], 0.001)))
    left = pull["answers"] - len(shown)
    if left > 0:
        parts.append(Text(f"and {left} more", style=QUIET))
    parts.append(Text(""))
    parts += _key({kind for part in shown for kind, _ in _pieces(part)})
    return Group(*parts)


def _key(used: set[str]) -> list[Text]:
    """What the letters of the bars mean, two a line."""
    entries = [
        Text.assemble((letter, style), f" {words:36}") for kind, (letter, style, words) in _KEY.items() if kind in used
    ]
    return [Text("").join(entries[n : n + 2]) for n in range(0, len(entries), 2)]


def _waterfall(parts: Sequence[Mapping[str, Any]], started: float, span: float) -> RenderableType:
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    table = grid({"no_wrap": True}, right, right, {"no_wrap": True}, {"no_wrap": True}, padding=1)
    for part in parts:
        failed = part["status"] >= 400 or not part.get("whole", True)
        table.add_row(
            _name(part),
            amount(part.get("sent", 0)),
            duration(part["seconds"]),
            Text(str(part["status"]) if part["status"] >= 400 else clean(part["cache"])[:9], BAD if failed else ""),
            Text.assemble(("▕", QUIET), _bar(part, started, span), ("▏", QUIET)),
        )
    return table


def _name(part: Mapping[str, Any]) -> Text:
    algorithm, colon, digest = clean(part["reference"]).partition(":")
    what = "layer" if part["kind"] == "blobs" else "manifest"
    return Text.assemble((f"{what} ", QUIET), digest[:12] if colon else algorithm[:20])


def _pieces(part: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What a bar is made of, with seconds."""
    if part["status"] >= 400 or not part.get("whole", True):
        return [("failed", part["seconds"])]
    waits = part.get("waits", {})
    found = [(wait, waits[wait]) for wait in WAITS if waits.get(wait, 0.0) > 0]
    rest = max(0.0, part["seconds"] - sum(seconds for _, seconds in found))
    return [*found, ("hit" if part["cache"] in ("hit", "stale") else "rest", rest)]


def _bar(part: Mapping[str, Any], started: float, span: float) -> Text:
    """The bar of one answer in the time of the whole pull."""
    begin = min(WIDTH - 1, max(0, int((part["at"] - part["seconds"] - started) / span * WIDTH)))
    width = max(1, min(WIDTH - begin, round(part["seconds"] / span * WIDTH)))
    pieces = _pieces(part)
    total = sum(seconds for _, seconds in pieces) or 1.0
    text, at, done = Text(" " * begin), 0.0, 0
    for kind, seconds in sorted(pieces, key=lambda piece: -piece[1])[:1] if width == 1 else pieces:
        at += seconds
        end = width if width == 1 else round(at / total * width)
        text.append(_KEY[kind][0] * (end - done), style=_KEY[kind][1])
        done = end
    return text.append(" " * (WIDTH - begin - done))

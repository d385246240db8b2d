"""What the commands print with: a console, and the words that several of them share.

The laws: nothing that came from outside can move the cursor or change a colour; without colours everything can
still be read; 80 columns are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from docxy.observe.verdict import amount, duration

_BESIDE = 64
"""Columns beside the times of `dated`, less some."""
GOOD, WARN, BAD, QUIET, BOLD = "green", "yellow", "red", "bright_black", "bold"


def console() -> Console:
    """Standard output; colours only on a terminal, and never with NO_COLOR."""
    return Console(markup=False, highlight=False, emoji=False)


def grid(*columns: Mapping[str, Any], padding: int = 2) -> Table:
    """Columns without lines around them."""
    table = Table.grid(padding=(0, padding, 0, 0))
    for column in columns:
        table.add_column(**column)
    return table


def heading(words: str) -> Text:
    """What stands over a part of the screen."""
    return Text(f"\n{words}", style=BOLD)


def clean(text: object) -> str:
    """A text from outside, printable and on one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def ago(at: float, now: float) -> str:
    """How long ago something was."""
    return "now" if now - at < 1 else f"{duration(now - at)} ago"


def bar(share: float, width: int, style: str = GOOD) -> Text:
    """A share of 1 as a bar; a bar that is not empty shows at least a little."""
    share = max(0.0, min(1.0, share))
    full = max(1 if share > 0 else 0, round(share * width))
    return Text("━" * full, style=style) + Text("─" * (width - full), style=QUIET)


def percent(share: float | None) -> str:
    """`72 %`, or a dash where there is nothing to divide."""
    return "–" if share is None else f"{share * 100:.0f} %"


def who(pull: Mapping[str, Any]) -> str:
    """Account, address, program and platform of a pull."""
    agent = str(pull["agent"]).partition(" ")[0].partition("(")[0][:30]
    return clean(" · ".join(part for part in (pull["account"], pull["client"], agent, pull["platform"]) if part))


def tone(pull: Mapping[str, Any]) -> str:
    """The colour of a pull's verdict."""
    return {"cache": GOOD, "nothing": GOOD, "redirected": GOOD, "failed": BAD, "limited": BAD, "recalled": BAD}.get(
        pull["verdict"]["cause"], WARN
    )


def dated(rows: Iterable[tuple[str, Text, Text]]) -> Table:
    """What happened when: two lines each; one that is too long goes on below itself."""
    table = grid({"justify": "right", "style": QUIET, "no_wrap": True, "min_width": 10}, {"overflow": "fold"})
    for when, first, second in rows:
        table.add_row(when, first)
        table.add_row("", second)
    return table


def pull_rows(pulls: Iterable[Mapping[str, Any]], now: float) -> Table:
    """Two or three lines on each pull: what and how much, then why it took that long, and who it was."""
    return dated((when(pull, now), _pulled(pull), _explained(pull)) for pull in pulls)


def when(pull: Mapping[str, Any], now: float) -> str:
    """When a pull took its last answer; more may come."""
    return ago(pull["started"] + pull["seconds"], now)


def _pulled(pull: Mapping[str, Any]) -> Text:
    return Text.assemble((clean(pull["image"]), BOLD), f"  {amount(pull['sent'])} in {duration(pull['seconds'])}")


def _explained(pull: Mapping[str, Any]) -> Text:
    words, name = clean(pull["verdict"]["words"]), who(pull)
    gap = "  " if len(words) + len(name) < _BESIDE else "\n"
    return Text.assemble((words, tone(pull)), (f"{gap}{name}", QUIET))

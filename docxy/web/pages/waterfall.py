"""A pull's answers as bars over time, drawn as inline SVG.

Pure.  The law: no part is narrower than it can be seen; every part says in its title what it is,
for people who hover and for screen readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from docxy.observe.exchange import WAITS
from docxy.observe.verdict import amount
from docxy.web.pages.words import Words, lasting

ROWS = 12
"""Answers that are drawn; the longest ones."""
_ROW, _BAR, _WIDTH, _LEAST = 7, 5, 240.0, 1.5


def waterfall(parts: Sequence[Any], started: float, seconds: float, t: Words) -> str:
    """SVG of a pull that began at `started` (seconds since the epoch) and took `seconds`.

    `parts`: as `Exchange` has them.
    """
    shown = sorted(sorted(parts, key=lambda part: -part.seconds)[:ROWS], key=lambda part: part.at - part.seconds)
    span = max(seconds, 0.001)
    rows = "".join(_row(part, n, started, span, t) for n, part in enumerate(shown))
    height = max(1, len(shown)) * _ROW
    label = f"{len(parts)} · {lasting(seconds, t)}"
    return (
        f'<svg class="waterfall" viewBox="0 0 {_WIDTH:.0f} {height}" height="{height}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(label)}">{rows}</svg>'
    )


def _row(part: Any, n: int, started: float, span: float, t: Words) -> str:
    y = n * _ROW + 1
    x = max(0.0, min(_WIDTH - _LEAST, (part.at - part.seconds - started) / span * _WIDTH))
    width = max(_LEAST, min(_WIDTH - x, part.seconds / span * _WIDTH))
    title = f"{part.reference[:23]} · {amount(part.sent)} · {lasting(part.seconds, t)} · {part.cache or part.status}"
    waits = {wait: part.waits.get(wait, 0.0) for wait in WAITS}
    for wait, waited in waits.items():
        if waited >= 0.05:
            title += f" · {getattr(t, f'key_{wait}')}: {lasting(waited, t)}"
    pieces = [f'<rect class="track" x="0" y="{y}" width="{_WIDTH:.0f}" height="{_BAR}"/>']
    if part.status >= 400 or not part.whole:
        pieces.append(_rect("failed", x, y, width))
    else:
        pieces.append(_rect("hit" if part.cache in ("hit", "stale") else "body", x, y, width))
        at, total = x, max(part.seconds, sum(waits.values()), 0.001)
        for wait, waited in waits.items():
            wide = waited / total * width
            if wide >= 0.5:
                pieces.append(_rect(wait, at, y, wide))
                at += wide
    return f"<g><title>{escape(title)}</title>{''.join(pieces)}</g>"


def _rect(kind: str, x: float, y: int, width: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}"/>'

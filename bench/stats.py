"""What many measurements come to, in numbers and in words.  Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import frozen

Samples = Mapping[str, Sequence[float]]
"""By server, what one measure was in each round."""


@frozen
class Summary:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Raises ValueError when there are none."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(statistics.median(values), min(values), max(values))

    def shown(self) -> str:
        """`1.23 (1.20–1.31)`; without the spread, when there is none."""
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


@frozen
class Goal:
    """docxy's median of `measure` is to be `sign` `bound`, or `bound` times that of the server `versus`.

    `beyond`: or `bound` more than that.
    """

    measure: str
    sign: Literal["≥", "≤"]
    bound: float
    versus: str | None = None
    beyond: bool = False

    def shown(self) -> str:
        if self.beyond:
            return f"{self.sign} {self.versus} + {self.bound:g}"
        return f"{self.sign} {self.bound:g}" + ("" if self.versus is None else f" × {self.versus}")

    def verdict(self, samples: Samples) -> Verdict | None:
        """None: what it compares was not measured."""
        if not samples.get("docxy") or (self.versus is not None and not samples.get(self.versus)):
            return None
        value = statistics.median(samples["docxy"])
        if self.versus is not None and self.beyond:
            value -= statistics.median(samples[self.versus])
        elif self.versus is not None:
            other = ratio(value, statistics.median(samples[self.versus]))
            if other is None:
                return None
            value = other
        return Verdict(self, value, value >= self.bound if self.sign == "≥" else value <= self.bound)


@frozen
class Verdict:
    goal: Goal
    value: float
    reached: bool

    def shown(self) -> str:
        return f"{self.goal.shown()}: {number(self.value)}{', reached' if self.reached else ', **behind**'}"


def ratio(value: float, by: float) -> float | None:
    """None when there is nothing to divide by."""
    return value / by if by else None


def number(value: float) -> str:
    """Three digits that matter; whole from 100 on, and thousands with a `k` from 10,000 on."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.1f}k" if abs(value) < 100_000 else f"{value / 1000:.0f}k"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def bar(value: float, most: float, width: int = 40) -> str:
    """A line of blocks, `width` long for `most`; something, however small, is one block."""
    if most <= 0 or value <= 0:
        return ""
    return "█" * max(1, round(width * min(value / most, 1)))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as text too."""
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([row(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(row, lines)])

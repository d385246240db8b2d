"""The plots of docs/scaling.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # after the choice of a way to draw

from bench.simulate import Case

NODES = (1, 2, 3, 4, 6)
PULLS = 5e4
UPLINK = 10e9 / 8
WAYS = {
    "hash on the digest": {"hashing": True},
    "any node": {"hashing": False},
    "any node, with a bucket": {"hashing": False, "archive": True},
}


def draw(run: Callable[[Case], dict[str, Any]], directory: Path) -> None:
    """Run what they show, and write them as SVG."""
    pyplot.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "docxy"}
    )
    rows = {
        way: [run(Case(PULLS, nodes, uplink=UPLINK, **options)) for nodes in NODES] for way, options in WAYS.items()
    }
    for name, title, column in (
        ("scaling-upstream", "asked of upstream, TB/day", "upstream, TB"),
        ("scaling-p99", "slowest pull of 100, s", "pull p99, s"),
        ("scaling-card", "busiest network card, %", "card at the peak, %"),
    ):
        figure, axes = pyplot.subplots(figsize=(5.2, 2.8))
        # Lines that lie on each other are all seen: the later, the thinner.
        for width, (way, those) in zip((6.0, 3.0, 1.2), rows.items(), strict=True):
            values = [row[column] for row in those]
            axes.plot(NODES, values, marker="o", linewidth=width, markersize=width + 3, label=way)
        axes.set(xlabel="nodes", ylabel=title, xticks=NODES, ylim=(0, None))
        axes.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)

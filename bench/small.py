"""Small requests: `/v2/` and manifests, over connections that are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench import load
from bench.content import ACCEPT
from bench.lab import CORES, MIRRORS, P99, RATE, Lab, Measure, Measured, Row, called
from bench.stats import Goal

Paths = Callable[[Lab], str]


def ping(_: Lab) -> str:
    """The path."""
    return "/v2/"


def by_digest(lab: Lab) -> str:
    """The path of a manifest."""
    return lab.made("manifest", lab.content.manifest)


def by_tag(lab: Lab) -> str:
    """The same, as most clients ask for it."""
    return lab.made("tag", lambda: lab.content.tag(by_digest(lab)))


GOALS = (
    Goal(RATE, "≥", 8, "registry"),
    Goal(RATE, "≥", 50, "proxy"),
    Goal(RATE, "≥", 0.25, "nginx"),
    Goal(P99, "≤", 0.1, "registry"),
)


def small_row(scheme: str, name: str, title: str, path: Paths) -> Row:
    """All clients send the same bytes."""
    title = f"{title}, {called(scheme)}, 64 connections"
    return Row(f"{name}-{scheme}", title, _small(scheme, path, None), GOALS, (*MIRRORS, "registry"), scheme)


def unalike_row(scheme: str) -> Row:
    """Every request is another one, as from many kinds of clients: nothing can be answered again as it was."""
    title = f"cached manifest by tag, no two requests the same, {called(scheme)}, 64 connections"
    measure = _small(scheme, by_tag, load.UNALIKE)
    return Row(f"unalike-{scheme}", title, measure, (), (*MIRRORS, "registry"), scheme)


def _small(scheme: str, path: Paths, script: Path | None) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        url = lab.stage.targets[scheme][name].url + path(lab)
        return asked(lab, url, script)

    return measure


def asked(lab: Lab, url: str, script: Path | None = None) -> Measured:
    """What wrk measures."""
    got = load.small(lab.programs["wrk"], url, lab.sizes.wrk_seconds, ACCEPT, script)
    return {RATE: got.rate, P99: got.p99, CORES: got.cpu}

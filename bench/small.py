"""Small requests: `/v2/`, manifests and ranges, over connections that are kept.

The law: every request is another one and sends credentials, as those of real clients do.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import load
from bench.content import ACCEPT
from bench.lab import CORES, MIRRORS, P99, RATE, TAKES, Lab, Measured, Row, called
from bench.servers import Target
from bench.stats import Goal

SITE = "site"
"""A bare Site of Twisted's: what all that docxy does for a request is measured against."""

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


REACHES = (Goal(P99, "≤", 0.1, "registry"), Goal(RATE, "≥", 0.25, "nginx"))
MANIFESTS = (Goal(RATE, "≥", 8, "registry"), *REACHES)


def ping_row(scheme: str) -> Row:
    """`/v2/`, beside a bare Site of Twisted's where it is plain HTTP."""
    goals = (*REACHES, Goal(TAKES, "≤", 1.0, SITE)) if scheme == "http" else REACHES
    return _row(scheme, "ping", "`/v2/`", ping, goals)


def health_row() -> Row:
    """`/health`, which no peer has, beside a bare Site of Twisted's."""

    def measure(lab: Lab, server: str, round_: int) -> Measured:
        if server == SITE:
            return asked(lab, lab.started(SITE, lab.setup.site), "/")
        return asked(lab, lab.stage.targets["http"][server], "/health")

    title = f"`/health`, {called('http')}, 64 connections"
    return Row("health-http", title, measure, (Goal(TAKES, "≤", 1.0, SITE),), ("docxy", SITE), "http")


def manifest_row(scheme: str, name: str, title: str, path: Paths) -> Row:
    """A cached manifest."""
    goals = (*MANIFESTS, Goal(TAKES, "≤", 1.33, SITE)) if scheme == "http" else MANIFESTS
    return _row(scheme, name, title, path, goals)


def head_row(scheme: str, name: str, title: str, path: Paths) -> Row:
    """HEAD of a cached manifest."""

    def measure(lab: Lab, server: str, round_: int) -> Measured:
        target = lab.stage.targets[scheme][server]
        before = target.server.cpu()
        return _figures(
            load.heads(target.url + path(lab), lab.sizes.wrk_seconds, ACCEPT, lab.ca), target.server.cpu() - before
        )

    title = f"HEAD of a {title}, {called(scheme)}, 64 connections"
    return Row(f"{name}-head-{scheme}", title, measure, MANIFESTS, (*MIRRORS, "registry"), scheme)


def transparent_row(name: str, title: str, path: Paths) -> Row:
    """A cached manifest, where docxy asks the upstream what a client may have, and knows for these credentials."""

    def measure(lab: Lab, server: str, round_: int) -> Measured:
        if server == SITE:
            return asked(lab, lab.started(SITE, lab.setup.site), "/")
        target = lab.stage.targets["http"][server]
        if server == "docxy":
            target = lab.started(
                "transparent", lambda: lab.setup.docxy("transparent", lab.upstream, "http", "--auth", "transparent")
            )
        return asked(lab, target, path(lab))

    title = f"{title}, `transparent` mode, {called('http')}, 64 connections"
    goals = (*MANIFESTS, Goal(TAKES, "≤", 1.33, SITE))
    return Row(f"{name}-transparent", title, measure, goals, (*MIRRORS, "registry", SITE))


def range_row(kib: int) -> Row:
    """Ranges of a cached blob, each at another place."""

    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target = lab.stage.targets["http"][name]
        blob = lab.warm(target, 0)
        return asked(lab, target, blob.path, (kib << 10, blob.size))

    title = f"ranges of {kib} KiB of a cached blob, plain HTTP, 64 connections"
    return Row(f"range-{kib}", title, measure, (), (*MIRRORS, "registry"))


def _row(scheme: str, name: str, title: str, path: Paths, goals: tuple[Goal, ...]) -> Row:
    def measure(lab: Lab, server: str, round_: int) -> Measured:
        if server == SITE:
            return asked(lab, lab.started(SITE, lab.setup.site), "/")
        return asked(lab, lab.stage.targets[scheme][server], path(lab))

    beside = (SITE,) if scheme == "http" else ()
    title = f"{title}, {called(scheme)}, 64 connections"
    return Row(f"{name}-{scheme}", title, measure, goals, (*MIRRORS, "registry", *beside), scheme)


def asked(lab: Lab, target: Target, path: str, part: tuple[int, int] | None = None) -> Measured:
    """What wrk measures, and what the server takes; `part`: see `load.small`."""
    before = target.server.cpu()
    got = load.small(lab.programs["wrk"], target.url + path, lab.sizes.wrk_seconds, ACCEPT, part)
    return _figures(got, target.server.cpu() - before)


def _figures(got: load.Requests, cpu: float) -> Measured:
    """`cpu`: seconds of the server."""
    return {RATE: got.rate, TAKES: cpu / max(1, got.count) * 1e6, P99: got.p99, CORES: got.cpu}

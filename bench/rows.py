"""What is measured: one Row each, in the order in which they run.

The law: a row does the same to every server, and its goals are compared with medians of
the same run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field, frozen

from bench import load
from bench.content import MANIFEST_TYPE, Blob, Content
from bench.servers import Stage
from bench.stats import Goal

GIB = 2.0**30
SPEED, CPU, CLIENT = "GiB/s", "CPU-s/GiB", "client's CPU-s/GiB"
RATE, P99, CORES = "requests/s", "p99, ms", "client's cores"
FETCHED, SLOWER = "upstream bytes ÷ blob", "time ÷ warm time"
LATER, FIRST = "ms after the upstream's", "first byte, ms"
RSS = "RSS, MB"
MIRRORS = ("docxy", "nginx", "proxy")
Measured = dict[str, float]


@frozen
class Sizes:
    """How much of it; `--quick` is less."""

    blob: int
    """Bytes of the large blob."""
    small_blob: int
    """Of the one that many want at once, and of which the first byte is awaited."""
    wrk_seconds: int
    stalled: int
    """Clients."""


@define
class Lab:
    """What rows measure with."""

    stage: Stage
    content: Content
    programs: Mapping[str, str]
    sizes: Sizes
    _blobs: dict[str, Blob] = field(factory=dict, init=False)
    _manifest: str | None = field(default=None, init=False)

    @property
    def ca(self) -> Path:
        return self.stage.ca

    def blob(self, key: str, size: int) -> Blob:
        """The one of this name; made and pushed when it is first asked for."""
        if key not in self._blobs:
            self._blobs[key] = self.content.blob(size)
            self.stage.registry.settle()
            os.sync()
        return self._blobs[key]

    def manifest(self) -> str:
        """Its path."""
        if self._manifest is None:
            self._manifest = self.content.manifest()
        return self._manifest


Measure = Callable[[Lab, str, int], Measured]
"""Of the server with this name, in this round; round 0 is the warm-up and is thrown away."""


@frozen
class Row:
    name: str
    title: str
    measure: Measure
    goals: tuple[Goal, ...]
    servers: tuple[str, ...] = MIRRORS
    scheme: str = "http"
    once: bool = False
    """One round, without a warm-up."""


def _cached(scheme: str, clients: int) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target, blob = lab.stage.targets[scheme][name], lab.blob("cached", lab.sizes.blob)
        before = target.server.cpu()
        times = 2 if clients == 1 and round_ > 0 else 1
        got = load.pull(lab.programs["curl"], target.url + blob.path, blob.size, clients, times, lab.ca)
        used = target.server.cpu() - before
        if round_ == 0:
            target.server.settle()
            os.sync()
        return _transfer(got, used)

    return measure


def _cold(scheme: str) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target, blob = lab.stage.targets[scheme][name], lab.blob(f"cold {round_}", lab.sizes.blob)
        before = target.server.cpu()
        got = load.pull(lab.programs["curl"], target.url + blob.path, blob.size, 1, 1, lab.ca)
        target.server.settle()
        used = target.server.cpu() - before
        os.sync()
        return _transfer(got, used)

    return measure


def _crowd(clients: int) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target, blob = lab.stage.targets["http"][name], lab.blob(f"{clients} at once {round_}", lab.sizes.small_blob)
        before = lab.content.sent(blob)
        cold = load.crowd(lab.programs["curl"], target.url + blob.path, blob.size, clients, lab.ca)
        target.server.settle()
        lab.stage.registry.settle()
        fetched = lab.content.sent(blob) - before
        os.sync()
        warm = load.crowd(lab.programs["curl"], target.url + blob.path, blob.size, clients, lab.ca)
        return {
            FETCHED: fetched / blob.size,
            SLOWER: cold.seconds / warm.seconds,
            SPEED: cold.bytes / GIB / cold.seconds,
        }

    return measure


def _first_byte(lab: Lab, name: str, round_: int) -> Measured:
    blob = lab.blob(f"first byte {round_}", lab.sizes.small_blob)
    targets = lab.stage.targets["http"]
    own = load.first_byte(targets["registry"].url + blob.path)
    took = load.first_byte(targets[name].url + blob.path)
    targets[name].server.settle()
    return {FIRST: took * 1e3, LATER: (took - own) * 1e3}


def _small(scheme: str, path: Callable[[Lab], str]) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        url = lab.stage.targets[scheme][name].url + path(lab)
        got = load.small(lab.programs["wrk"], url, lab.sizes.wrk_seconds, MANIFEST_TYPE)
        return {RATE: got.rate, P99: got.p99, CORES: got.cpu}

    return measure


def _idle(lab: Lab, name: str, _: int) -> Measured:
    return {RSS: lab.stage.targets["http"][name].server.rss() / 1e6}


def _stalled(scheme: str) -> Measure:
    def measure(lab: Lab, name: str, _: int) -> Measured:
        """The most that was seen in 3 s."""
        target, blob = lab.stage.targets[scheme][name], lab.blob("cached", lab.sizes.blob)
        load.pull(lab.programs["curl"], target.url + blob.path, blob.size, 1, 1, lab.ca)
        target.server.settle()
        most = 0.0
        with load.stalled(target.url + blob.path, lab.sizes.stalled, lab.ca):
            for _ in range(6):
                time.sleep(0.5)
                most = max(most, target.server.rss())
        target.server.settle()
        return {RSS: most / 1e6}

    return measure


def _transfer(got: load.Transfer, used: float) -> Measured:
    size = got.bytes / GIB
    return {SPEED: size / got.seconds, CPU: used / size, CLIENT: got.cpu / size}


def _cached_row(scheme: str, clients: int) -> Row:
    kind = "plain HTTP" if scheme == "http" else "HTTPS"
    registry = 1.2 if scheme == "http" else 2.0
    goals = (
        Goal(SPEED, "≥", 1.2, "nginx"),
        Goal(SPEED, "≥", registry, "proxy"),
        Goal(CPU, "≤", 0.75, "nginx"),
    )
    title = f"cached blob, {kind}, {clients} client{'s' * (clients > 1)}"
    return Row(f"cached-{scheme}-{clients}", title, _cached(scheme, clients), goals, scheme=scheme)


def _small_row(scheme: str, what: str, title: str, path: Callable[[Lab], str]) -> Row:
    goals = (
        Goal(RATE, "≥", 8, "registry"),
        Goal(RATE, "≥", 50, "proxy"),
        Goal(RATE, "≥", 0.25, "nginx"),
        Goal(P99, "≤", 0.1, "registry"),
    )
    title = f"{title}, {'plain HTTP' if scheme == 'http' else 'HTTPS'}, 64 connections"
    return Row(f"{what}-{scheme}", title, _small(scheme, path), goals, (*MIRRORS, "registry"), scheme)


def _cold_row(scheme: str) -> Row:
    goals = (
        Goal(SPEED, "≥", 1.2, "proxy"),
        Goal(CPU, "≤", 0.45, "proxy"),
        Goal(SPEED, "≥", 1.0, "nginx"),
    )
    title = f"cold blob, {'plain HTTP' if scheme == 'http' else 'HTTPS'}, 1 client"
    return Row(f"cold-{scheme}", title, _cold(scheme), goals, scheme=scheme)


def _crowd_row(clients: int) -> Row:
    title = f"cold blob, {clients} clients at once" if clients > 1 else "cold blob, alone"
    # 1.00 to two digits: what the access log counts is bodies only.
    return Row(f"crowd-{clients}", title, _crowd(clients), (Goal(FETCHED, "≤", 1.005), Goal(SLOWER, "≤", 1.3)))


def _v2(_: Lab) -> str:
    return "/v2/"


ROWS: tuple[Row, ...] = (
    Row("idle", "memory, idle", _idle, (Goal(RSS, "≤", 60),), once=True),
    *(_cached_row(scheme, clients) for scheme in ("http", "https") for clients in (1, 4)),
    *(_cold_row(scheme) for scheme in ("http", "https")),
    *(_crowd_row(clients) for clients in (1, 10, 100)),
    Row("first-byte", "first byte of a cold blob", _first_byte, (Goal(LATER, "≤", 5),)),
    Row("stalled-http", "memory, 200 stalled clients, plain HTTP", _stalled("http"), (Goal(RSS, "≤", 100),), once=True),
    Row(
        "stalled-https",
        "memory, 200 stalled clients, HTTPS",
        _stalled("https"),
        (Goal(RSS, "≤", 100),),
        scheme="https",
        once=True,
    ),
    *(_small_row(scheme, "ping", "`/v2/`", _v2) for scheme in ("http", "https")),
    *(_small_row(scheme, "manifest", "cached manifest", Lab.manifest) for scheme in ("http", "https")),
)

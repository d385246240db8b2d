"""What the journal of pulls takes: docxy with it beside docxy without it.

The law: both get the same requests at the same pace, no faster than the journal tells one by one; beyond that it
only counts, and costs less.

Run as a programme it measures the journal's own work alone, in CPU time, which a busy machine disturbs less:
`python -m bench.journal`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from bench.content import ACCEPT
from bench.lab import RATE, TAKES, Lab, Measured, Row
from bench.load import LoadFailed
from bench.servers import Target
from bench.small import asked, by_digest
from bench.stats import Goal
from docxy.observe.journal import Pull
from docxy.observe.model import About, ReadModel
from docxy.observe.recorder import Dropped
from docxy.routing import EndpointKind
from docxy.web.exchange import exchange_of

OFF = "without"
"""docxy with `--journal off`."""
PULL = "CPU ms a pull"
LAYERS, LAYER = 6, 8 << 20
"""Of one pull, and bytes of each."""
PACE = 6.0
"""Pulls a second: 48 answers, below the 50 that are told one by one for ever."""


def _target(lab: Lab, name: str) -> Target:
    """One of the two, on a cache of its own."""
    mode = "off" if name == OFF else "clients"
    key = f"docxy-journal-{mode}"
    return lab.started(key, lambda: lab.setup.docxy(key, lab.upstream, "http", "--journal", mode))


def _pulls(lab: Lab, name: str, round_: int) -> Measured:
    target = _target(lab, name)
    manifest = by_digest(lab)
    paths = [manifest, manifest, *(blob.path for blob in lab.blobs("journal", LAYER, LAYERS))]
    _pull(target, paths)
    target.server.settle()
    count = max(1, round(PACE * lab.sizes.wrk_seconds))
    before, began = target.server.cpu(), time.monotonic()
    for n in range(count):
        time.sleep(max(0.0, began + n / PACE - time.monotonic()))
        _pull(target, paths)
    return {PULL: (target.server.cpu() - before) / count * 1e3}


def _pull(target: Target, paths: list[str]) -> None:
    parts = urlsplit(target.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    room = bytearray(1 << 20)
    try:
        for path in paths:
            connection.request("GET", path, headers={"Accept": ACCEPT})
            response = connection.getresponse()
            if response.status != 200:
                raise LoadFailed(f"{path}: {response.status}")
            while response.readinto(room):
                pass
    finally:
        connection.close()


def _manifests(lab: Lab, name: str, round_: int) -> Measured:
    return asked(lab, _target(lab, name), by_digest(lab))


def _ranges(lab: Lab, name: str, round_: int) -> Measured:
    target = _target(lab, name)
    blob = lab.warm(target, 0)
    return asked(lab, target, blob.path, (4 << 10, blob.size))


ROWS: tuple[Row, ...] = (
    Row(
        "journal-pulls",
        f"cached pulls of {LAYERS * LAYER >> 20} MiB in {LAYERS + 2} answers, with the journal and without",
        _pulls,
        (Goal(PULL, "≤", 1.03, OFF),),
        ("docxy", OFF),
    ),
    Row(
        "journal-manifests",
        "cached manifest by digest, plain HTTP, 64 connections, with the journal and without",
        _manifests,
        (Goal(TAKES, "≤", 1.03, OFF), Goal(RATE, "≥", 0.97, OFF)),
        ("docxy", OFF),
    ),
    Row(
        "journal-ranges",
        "ranges of 4 KiB of a cached blob, plain HTTP, 64 connections, with the journal and without",
        _ranges,
        (Goal(TAKES, "≤", 1.03, OFF),),
        ("docxy", OFF),
    ),
)


def alone(answers: int = 4000, each: int = 8, batch: int = 25) -> tuple[float, float]:
    """Microseconds of CPU for an answer, and for a pull of `each` answers that has ended."""
    digest, clock, ended = f"sha256:{'ab' * 32}", [1_800_000_000.0], list[Pull]()
    about = About("bench", "http://bench.test", 0.0, "none", ["docker.io"], "/cache", 1)
    model = ReadModel(about, lambda: clock[0], ended.append, lambda: None, 0.0, True)
    agent = "docker/29.0.1 go/go1.25.3 git-commit/x kernel/6.18 os/linux arch/amd64"

    def request(n: int) -> Any:
        kind, reference = (EndpointKind.BLOBS, digest) if n % each else (EndpointKind.MANIFESTS, "latest")
        return SimpleNamespace(
            target=SimpleNamespace(
                kind=kind, upstream=SimpleNamespace(name="docker.io"), repository="library/nginx", reference=reference
            ),
            cache_status="docxy; hit",
            started=0.0,
            headed=0.001,
            fetched=None,
            checked=0.0,
            limit="",
            code=200,
            method=b"GET",
            size=LAYER,
            sentLength=LAYER,
            waits={"disk": 0.001, "client": 0.01},
            digest=digest,
            is_whole=True,
            platforms={},
            failovers=0,
            retry_after=None,
            charges={},
            group="",
            request_id=f"{n:016x}",
            error="",
            account=None,
            token=None,
            getHeader=lambda name: agent,
        )

    requests = [request(n) for n in range(answers)]

    def answer() -> None:
        for first in range(0, answers, batch):
            clock[0] += 0.5
            told = [exchange_of(each, "10.0.0.1", lambda: 0.02, clock[0]) for each in requests[first : first + batch]]
            model.take(told, Dropped())
        model.end()

    took = _cpu(answer) / answers
    return took * 1e6, _cpu(lambda: [json.dumps(model.told(pull)) for pull in ended]) / len(ended) * 1e6


def _cpu(work: Callable[[], object]) -> float:
    """Seconds."""
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    rounds = [alone() for _ in range(9)]
    answer, pull = (statistics.median(each) for each in zip(*rounds, strict=True))
    sys.stdout.write(f"{answer:.0f} µs an answer, {pull:.0f} µs more for a pull of 8 answers that has ended\n")

"""A cache of a million blobs beside one of a thousand.

The law: *both are asked the same, by the same program, as a fresh process*: each round starts one
on its cache, which is always full, so that each new blob makes an old one go.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import statistics
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from bench.content import Blob
from bench.lab import RSS, Lab, Measured
from bench.load import LoadFailed
from bench.servers import Target

HIT, SLOWEST, EVICTING, START = "hit, ms", "p99 of hits, ms", "miss that evicts, ms", "start, s"
SIZE = 1024
"""Bytes of a blob."""
ASKED, NEW = 1000, 50
"""Hits and misses of a round."""


def measure(lab: Lab, name: str, round_: int) -> Measured:
    """`docxy`: with many; `few`: with few."""
    count = lab.sizes.few if name == "few" else lab.sizes.many
    directory = lab.setup.directory / f"docxy-{count}"
    if not directory.exists():
        _fill(lab, directory, count)
    digests = directory.with_suffix(".txt").read_text("ascii").split()
    asked = random.Random(round_).sample(digests[len(digests) // 2 :], min(ASKED, len(digests) // 2))
    new = lab.blobs(f"new {round_}", SIZE, NEW)
    started = time.monotonic()
    target = _docxy(lab, directory, len(digests) * SIZE)
    target.server.start()
    took = time.monotonic() - started
    try:
        target.server.settle()
        hits = _ask(target, [Blob(digest, SIZE) for digest in asked])
        misses = _ask(target, new)
        rss = target.server.rss()
    finally:
        target.server.stop()
    return {
        HIT: statistics.median(hits) * 1e3,
        SLOWEST: statistics.quantiles(hits, n=100)[-1] * 1e3,
        EVICTING: statistics.median(misses) * 1e3,
        START: took,
        RSS: rss / 1e6,
    }


def _docxy(lab: Lab, directory: Path, budget: int) -> Target:
    return lab.setup.docxy(directory.name, lab.upstream, "http", "--cache-size", str(budget))


def _ask(target: Target, blobs: list[Blob]) -> list[float]:
    """Seconds of each, one after the other on one connection."""
    url = urlsplit(target.url)
    connection = HTTPConnection(str(url.hostname), url.port, timeout=60)
    took = []
    for blob in blobs:
        started = time.perf_counter()
        connection.request("GET", blob.path)
        answer = connection.getresponse()
        body = answer.read()
        took.append(time.perf_counter() - started)
        if answer.status != 200 or f"sha256:{hashlib.sha256(body).hexdigest()}" != blob.digest:
            raise LoadFailed(f"{target.url}{blob.path}: {answer.status} {body[:200]!r}")
    connection.close()
    return took


def _fill(lab: Lab, directory: Path, count: int) -> None:
    """A cache as docxy leaves it, with so many blobs: all from one that docxy itself has stored.

    Files, and rows like those of that one: storing a million, each of them synced, takes hours.
    """
    target = _docxy(lab, directory, count * SIZE)
    target.server.start()
    try:
        first = lab.blob("first of many", SIZE)
        _ask(target, [first])
    finally:
        target.server.stop()
    digests = [first.digest]
    blobs = directory / "blobs" / "sha256"
    for shard in range(256):
        (blobs / f"{shard:02x}").mkdir(exist_ok=True)
    for number in range(1, count):
        data = number.to_bytes(16, "big") * (SIZE // 16)
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{digest[:2]}/{digest}", "wb") as file:
            file.write(data)
        digests.append(f"sha256:{digest}")
    _rows(directory / "index.sqlite", "blobs", first.digest, digests)
    _rows(directory / "catalog.sqlite", "held", first.digest, digests)
    directory.with_suffix(".txt").write_text("\n".join(digests), "ascii")
    os.sync()


def _rows(database: Path, table: str, first: str, digests: list[str]) -> None:
    """Copy the row of the first digest for each other one; the later in the list, the later it was used."""
    with sqlite3.connect(database) as connection:
        cursor = connection.execute(f"SELECT * FROM {table} WHERE digest = ?", (first,))
        columns = [column[0] for column in cursor.description]
        row = cursor.fetchone()
        if row is None:
            raise LoadFailed(f"{database} has no row for {first}")
        values = dict(zip(columns, row, strict=True))
        connection.executemany(
            f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})",
            (
                [*{**values, "digest": digest, **_used(values, number / len(digests))}.values()]
                for number, digest in enumerate(digests[1:])
            ),
        )
    connection.close()


def _used(values: dict[str, object], later: float) -> dict[str, object]:
    """`later`: in seconds."""
    used = values.get("last_used")
    return {"last_used": used + later} if isinstance(used, float) else {}

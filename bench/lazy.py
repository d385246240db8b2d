"""Lazy pulls: ranges of cold blobs behind an upstream that is far away."""

from __future__ import annotations

import os
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

from bench.content import Blob
from bench.images import CONNECTION_RATE, LATENCY, far_target
from bench.lab import SECONDS, Lab, Measured, Row
from bench.load import LoadFailed
from bench.servers import Target
from bench.stats import Goal

SIZE = 200_000_000
"""Bytes of the blob, as the promise is about it."""
PIECE = 64 * 1024
PLACES = (1.0, 50.0, 90.0, 99.9)
"""Percent of it."""
CHUNKS = 20


def at(place: float) -> str:
    """Of a measure: when the first byte is here of the range that begins at so many percent."""
    return f"first byte at {place:g} %, s"


def rows() -> tuple[Row, ...]:
    line = f"upstream of {LATENCY * 1e3:.0f} ms and {CONNECTION_RATE / 1e6:.0f} MB/s a connection"
    servers = ("docxy", "proxy", "direct")
    return (
        Row(
            "lazy-range",
            f"64 KiB of a cold blob of 200 MB, {line}",
            _places,
            tuple(Goal(at(place), "≤", 2.0, "direct") for place in PLACES),
            servers,
        ),
        Row(
            "lazy-estargz",
            f"cold layer of 200 MB as a lazy reader has it: footer, contents, then {CHUNKS} chunks, {line}",
            _estargz,
            (Goal(SECONDS, "≤", 2.0, "direct"),),
            servers,
        ),
    )


def _places(lab: Lab, name: str, round_: int) -> Measured:
    """Each of another cold blob."""
    target = far_target(lab, name)
    measured = {}
    for place in PLACES:
        blob = lab.blob(f"lazy {place} {round_}", SIZE)
        first = int(SIZE * place / 100)
        measured[at(place)] = _range(target, blob, first, min(PIECE, SIZE - first))
        _settle(target)
    return measured


def _estargz(lab: Lab, name: str, round_: int) -> Measured:
    """One after the other, on new connections, as if each were the only one."""
    target, blob = far_target(lab, name), lab.blob(f"estargz {round_}", SIZE)
    began = time.monotonic()
    _range(target, blob, SIZE - 51, 51)
    _range(target, blob, SIZE - 2_000_000, 2_000_000 - 51)
    for number in range(CHUNKS):
        # Here and there: the golden ratio leaves no two of them near each other.
        _range(target, blob, int(SIZE * (number * 0.618034 % 1.0) * 0.95), 4 * PIECE)
    took = time.monotonic() - began
    _settle(target)
    return {SECONDS: took}


def _settle(target: Target) -> None:
    target.server.settle()
    os.sync()


def _range(target: Target, blob: Blob, first: int, count: int) -> float:
    """Seconds until its first byte is here; all of it is read.  A server may send the whole blob instead."""
    url = urlsplit(target.url)
    connection = HTTPConnection(str(url.hostname), url.port, timeout=120)
    began = time.monotonic()
    try:
        connection.request("GET", blob.path, headers={"Range": f"bytes={first}-{first + count - 1}"})
        response = connection.getresponse()
        if response.status not in (200, 206):
            raise LoadFailed(f"{target.url}{blob.path}: {response.status}")
        before = first if response.status == 200 else 0
        while before:
            before -= len(response.read(min(before, 1 << 20))) or before
        here = len(response.read(1))
        took = time.monotonic() - began
        while here < count and (data := response.read(min(count - here, 1 << 20))):
            here += len(data)
        if here < count:
            raise LoadFailed(f"{target.url}{blob.path}: {here} of {count} bytes at {first}")
        return took
    finally:
        connection.close()

"""What is measured: one Row each, in the order in which they run.

The law: a row does the same to every server, and its goals are compared with medians of
the same run.
"""

from __future__ import annotations

from bench import images, journal, lazy, many, memory, workers
from bench.lab import RSS, SCHEMES, Row, called
from bench.small import by_digest, by_tag, head_row, health_row, manifest_row, ping_row, range_row, transparent_row
from bench.stats import Goal
from bench.transfers import LATER, cached_row, cold_row, crowd_row, drained_row, first_byte

ROWS: tuple[Row, ...] = (
    Row("idle", "memory, idle", memory.idle, (Goal(RSS, "≤", 60),), once=True),
    Row(
        "idle-workers",
        "memory, idle, the largest process of two workers",
        memory.idle_workers,
        (Goal(RSS, "≤", 60),),
        ("docxy",),
        once=True,
    ),
    *(cached_row(scheme, clients) for scheme in SCHEMES for clients in (1, 4)),
    *(drained_row(scheme, clients) for scheme in SCHEMES for clients in (1, 4)),
    *(cold_row(scheme) for scheme in SCHEMES),
    *(crowd_row(clients) for clients in (1, 10, 100)),
    Row("first-byte", "first byte of a cold blob", first_byte, (Goal(LATER, "≤", 5),)),
    *(
        Row(
            f"stalled-{scheme}",
            f"memory, 200 stalled clients, {called(scheme)}",
            memory.stalled(scheme),
            (Goal(RSS, "≤", 100),),
            scheme=scheme,
            once=True,
        )
        for scheme in SCHEMES
    ),
    health_row(),
    *(ping_row(scheme) for scheme in SCHEMES),
    *(manifest_row(scheme, "manifest", "cached manifest by digest", by_digest) for scheme in SCHEMES),
    *(manifest_row(scheme, "tag", "cached manifest by tag", by_tag) for scheme in SCHEMES),
    *(
        head_row(scheme, name, title, path)
        for name, title, path in (
            ("manifest", "cached manifest by digest", by_digest),
            ("tag", "cached manifest by tag", by_tag),
        )
        for scheme in SCHEMES
    ),
    transparent_row("manifest", "cached manifest by digest", by_digest),
    transparent_row("tag", "cached manifest by tag", by_tag),
    *(range_row(kib) for kib in (4, 64, 256)),
    *journal.ROWS,
    *workers.ROWS,
    *lazy.rows(),
    images.row("docker", images.docker),
    images.row("skopeo", images.skopeo),
    Row(
        "many",
        "cache of 1,000,000 blobs, beside one of 1,000",
        many.measure,
        tuple(Goal(measure, "≤", 1.25, "few") for measure in (many.HIT, many.SLOWEST, many.EVICTING)),
        ("docxy", "few"),
    ),
    Row(
        "soak",
        "memory under load for long, plain HTTP and HTTPS at once",
        memory.soak,
        tuple(Goal(memory.grown(scheme), "≤", 1.1) for scheme in SCHEMES),
        ("docxy",),
        "https",
        once=True,
    ),
)

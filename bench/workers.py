"""Two worker processes beside one: they share the cores with the clients, so much cannot be gained on few."""

from __future__ import annotations

from bench import load
from bench.lab import Lab, Measured, Row
from bench.servers import Target
from bench.small import asked, by_tag
from bench.transfers import transfer


def _target(lab: Lab, name: str) -> Target:
    """`docxy`: two workers; `one`: what other rows measure, which has one."""
    if name == "one":
        return lab.stage.targets["https"]["docxy"]
    return lab.started("workers", lambda: lab.setup.docxy("docxy-workers", lab.upstream, "https", "--workers", "2"))


def _requests(lab: Lab, name: str, round_: int) -> Measured:
    return asked(lab, _target(lab, name), by_tag(lab))


def _transfers(lab: Lab, name: str, round_: int) -> Measured:
    target = _target(lab, name)
    blob = lab.warm(target, round_)
    before = target.server.cpu()
    got = load.drain(target.url + blob.path, blob.size, 4, lab.ca)
    return transfer(got, target.server.cpu() - before)


ROWS = (
    Row(
        "workers-tag",
        "two workers beside one: cached manifest by tag, HTTPS, 64 connections",
        _requests,
        (),
        ("docxy", "one"),
        "https",
    ),
    Row(
        "workers-drained",
        "two workers beside one: cached blob, HTTPS, discarded by the kernel of 4 clients",
        _transfers,
        (),
        ("docxy", "one"),
        "https",
    ),
)

"""Blobs: cached, cold, wanted by many at once; and when the first byte comes."""

from __future__ import annotations

import os

from bench import load
from bench.lab import CLIENT, CPU, GIB, SPEED, Lab, Measure, Measured, Row, called
from bench.stats import Goal

FETCHED, SLOWER = "upstream bytes ÷ blob", "time ÷ warm time"
LATER, FIRST = "ms after the upstream's", "first byte, ms"


def cached_row(scheme: str, clients: int) -> Row:
    """With curl."""
    title = f"cached blob, {called(scheme)}, {_many(clients)}"
    return Row(f"cached-{scheme}-{clients}", title, _cached(scheme, clients), _cached_goals(scheme), scheme=scheme)


def drained_row(scheme: str, clients: int) -> Row:
    """With clients that do nothing with it."""
    title = f"cached blob, {called(scheme)}, discarded by the kernel of {_many(clients)}"
    return Row(f"drained-{scheme}-{clients}", title, _drained(scheme, clients), _cached_goals(scheme), scheme=scheme)


def _many(clients: int) -> str:
    return f"{clients} client{'s' * (clients > 1)}"


def _cached_goals(scheme: str) -> tuple[Goal, ...]:
    return (
        Goal(SPEED, "≥", 1.2, "nginx"),
        Goal(SPEED, "≥", 1.2 if scheme == "http" else 2.0, "proxy"),
        Goal(CPU, "≤", 0.75, "nginx"),
    )


def _cached(scheme: str, clients: int) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target = lab.stage.targets[scheme][name]
        blob = lab.warm(target, round_)
        before = target.server.cpu()
        times = 2 if clients == 1 else 1
        got = load.pull(lab.programs["curl"], target.url + blob.path, blob.size, clients, times, lab.ca)
        return transfer(got, target.server.cpu() - before)

    return measure


def _drained(scheme: str, clients: int) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target = lab.stage.targets[scheme][name]
        blob = lab.warm(target, round_)
        before = target.server.cpu()
        got = load.drain(target.url + blob.path, blob.size, clients, lab.ca)
        return transfer(got, target.server.cpu() - before)

    return measure


def cold_row(scheme: str) -> Row:
    """Through to one client, stored and verified."""
    goals = (
        Goal(SPEED, "≥", 1.2, "proxy"),
        Goal(CPU, "≤", 0.45, "proxy"),
        Goal(SPEED, "≥", 0.95, "nginx"),
        Goal(CPU, "≤", 0.5, "nginx", beyond=True),
    )
    return Row(
        f"cold-{scheme}",
        f"cold blob from a TLS upstream, {called(scheme)}, 1 client",
        _cold(scheme),
        goals,
        scheme=scheme,
    )


def _cold(scheme: str) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target, blob = lab.stage.targets[scheme][name], lab.blob(f"cold {round_}", lab.sizes.blob)
        before = target.server.cpu()
        got = load.pull(lab.programs["curl"], target.url + blob.path, blob.size, 1, 1, lab.ca)
        target.server.settle()
        used = target.server.cpu() - before
        os.sync()
        return transfer(got, used)

    return measure


def crowd_row(clients: int) -> Row:
    """How often the upstream sends it, and how much longer it takes than from the cache."""
    title = f"cold blob, {clients} clients at once" if clients > 1 else "cold blob, alone"
    # 1.00 to two digits: what the access log counts is bodies only.
    return Row(f"crowd-{clients}", title, _crowd(clients), (Goal(FETCHED, "≤", 1.005), Goal(SLOWER, "≤", 1.3)))


def _crowd(clients: int) -> Measure:
    def measure(lab: Lab, name: str, round_: int) -> Measured:
        target, blob = lab.stage.targets["http"][name], lab.blob(f"{clients} at once {round_}", lab.sizes.crowd_blob)
        before = lab.content.sent(blob)
        cold = load.crowd(lab.programs["curl"], target.url + blob.path, blob.size, clients, lab.ca)
        target.server.settle()
        lab.rest()
        fetched = lab.content.sent(blob) - before
        warm = load.crowd(lab.programs["curl"], target.url + blob.path, blob.size, clients, lab.ca)
        return {
            FETCHED: fetched / blob.size,
            SLOWER: cold.seconds / warm.seconds,
            SPEED: cold.bytes / GIB / cold.seconds,
        }

    return measure


def first_byte(lab: Lab, name: str, round_: int) -> Measured:
    """Of a cold blob, beside the upstream's own."""
    blob = lab.blob(f"first byte {round_}", lab.sizes.small_blob)
    targets = lab.stage.targets["http"]
    own = load.first_byte(lab.upstream + blob.path, lab.ca)
    took = load.first_byte(targets[name].url + blob.path, lab.ca)
    targets[name].server.settle()
    return {FIRST: took * 1e3, LATER: (took - own) * 1e3}


def transfer(got: load.Transfer, used: float) -> Measured:
    """`used`: CPU seconds of the server."""
    size = got.bytes / GIB
    return {SPEED: size / got.seconds, CPU: used / size, CLIENT: got.cpu / size}

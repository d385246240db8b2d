"""How many nodes?  A day of pulls through N nodes, a bucket, a balancer and an upstream, simulated.

    python bench/simulate.py                         # the table of docs/scaling.md: a minute
    python bench/simulate.py --pulls 1e6 --nodes 3   # one case; a million pulls take minutes
    python bench/simulate.py --plots docs/images     # the plots too

The law: what a thing costs was measured (`COSTS` says where), what people do is assumed (`world`), and what follows is
counted, not guessed.  A core, a network card and the uplink serve in the order in which work comes; a transfer is as
fast as its slowest part.  Of `cells` equal groups of nodes one is simulated; what the others have put into the bucket
by then is drawn from how often they pull.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import simpy
from attrs import define, evolve, field, frozen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.world import DAY, Blob, Pull, World

GIB = float(1 << 30)


@frozen
class Costs:
    """CPU seconds, measured; docs/performance.md has the runs."""

    request: float = 75e-6
    """A small request: a manifest by tag or digest, plain HTTP behind the balancer."""
    hit: float = 0.17
    """A GiB from the cache, plain HTTP."""
    fill: float = 1.76
    """A GiB from a TLS upstream: fetched, hashed, written and sent."""
    get: float = 1.76
    """A GiB from the bucket instead."""
    put: float = 1.8
    """A GiB into the bucket."""
    redirect: float = 0.8e-3
    """A redirect to the bucket, with its signature."""


@frozen
class Prices:
    """What a bucket's keeper takes, in dollars; S3's list prices in us-east-1, transfers within the region free."""

    get: float = 0.4e-6
    put: float = 5e-6
    gb_month: float = 0.023


@frozen
class Case:
    """What is simulated."""

    pulls: float
    nodes: int
    hashing: bool = True
    """Whether the balancer hashes on the digest."""
    archive: bool = False
    redirect: str = "never"
    """never, cold or always: what clients get from the bucket themselves."""
    cores: int = 2
    card: float = 10e9 / 8
    """Bytes a second of a node's network card."""
    disk: float = 500e9
    uplink: float = 1e9 / 8
    """Bytes a second to the upstream, of all nodes together."""
    stream: float = 100e6
    """Bytes a second of one fill from upstream, over its four connections."""
    bucket: float = 100e6
    """Bytes a second of one transfer from the bucket."""
    client: float = 125e6
    """Bytes a second that a machine takes."""
    cells: int = 1
    """Equal groups of nodes, of which one is simulated."""
    images: int = 0
    """0: as many as such a fleet would have."""

    @property
    def catalogue(self) -> int:
        """Images that are pulled: 20 times as many for 100 times the pulls."""
        return self.images or int(300 * (self.pulls / 10_000) ** 0.65)


class Server:
    """Something that serves in order, so much a second."""

    def __init__(self, rate: float, env: simpy.Environment) -> None:
        self._rate = rate
        self._env = env
        self._free = 0.0
        self.busy: dict[int, float] = {}
        """Seconds of work in each five minutes."""

    def done(self, ready: float, work: float) -> float:
        """When work is done that is known of now and can begin at `ready`; nothing waits idle for it until then."""
        now, took = self._env.now, work / self._rate
        self._free = max(now, self._free) + took
        slot = int(now // 300)
        self.busy[slot] = self.busy.get(slot, 0.0) + took
        return max(self._free, ready + took)

    def peak(self, since: float) -> float:
        """The share of its time that it worked, in the busiest five minutes."""
        return max((busy for slot, busy in self.busy.items() if slot * 300 >= since), default=0.0) / 300


@define
class Node:
    """One docxy with its cache."""

    disk: float
    cpu: Server
    card: Server
    used: float = 0.0
    cached: OrderedDict[Blob, int] = field(factory=OrderedDict)
    coming: dict[Blob, float] = field(factory=dict)
    """When a blob that is on its way is all there."""

    def keep(self, blob: Blob, size: int) -> None:
        self.cached[blob] = size
        self.used += size
        while self.used > self.disk:
            self.used -= self.cached.popitem(last=False)[1]


@define
class Day:
    """What happened on the last day."""

    pulls: int = 0
    requests: int = 0
    sent: float = 0.0
    hit: float = 0.0
    """Bytes of `sent` that were cached, or joined a fill."""
    from_bucket: float = 0.0
    upstream: float = 0.0
    """Bytes asked of the upstream."""
    fetched: dict[Blob, int] = field(factory=dict)
    """How often each blob was."""
    manifests: int = 0
    """Manifests asked of the upstream, which count against its limit."""
    gets: int = 0
    puts: int = 0
    stored: float = 0.0
    """Bytes put into the bucket."""
    times: list[float] = field(factory=list)


class Simulation:
    """One case, run through."""

    def __init__(self, case: Case, costs: Costs = Costs(), seed: int = 1, world: World | None = None) -> None:
        self.case, self.costs = case, costs
        self.world = world or World(round(case.pulls / case.cells), case.catalogue, seed)
        self.random = Random(seed)
        self.env = simpy.Environment()
        nodes = case.nodes // case.cells
        self.nodes = [Node(case.disk, Server(case.cores, self.env), Server(case.card, self.env)) for _ in range(nodes)]
        self.uplink = Server(case.uplink / case.cells, self.env)
        self.archived: set[Blob] = set()
        self.tags: dict[tuple[int, int], int] = {}
        """The version of an image that a node knows."""
        self.day = Day()

    def run(self, warm: float, days: float = 1.0) -> Day:
        """Let days go by to fill the caches, then a day that counts."""
        self.env.process(self._clients(warm + days, warm * DAY))
        self.env.run()
        return self.day

    def _clients(self, days: float, counted: float) -> Iterator[Any]:
        fresh = True
        for pull in self.world.pulls(days):
            if pull.at > self.env.now:
                yield self.env.timeout(pull.at - self.env.now)
            if fresh and pull.at >= counted:
                fresh, self.day = False, Day()
            self.env.process(self._pull(pull))

    def _pull(self, pull: Pull) -> Iterator[Any]:
        day, begun = self.day, self.env.now
        node = self._any()
        ready = node.cpu.done(begun, 2 * self.costs.request)
        day.pulls += 1
        day.requests += 2
        known = (id(node), pull.image)
        if self.tags.get(known) != pull.version:
            self.tags[known] = pull.version
            ready += 0.3
            if self.case.archive:
                day.gets += 1
                day.puts += 2
            day.manifests += 1
        end = max(self._blob(blob, size, ready) for blob, size in self.world.blobs(pull.image, pull.version))
        yield self.env.timeout(max(0.0, end - self.env.now))
        day.times.append(self.env.now - begun)

    def _any(self) -> Node:
        return self.random.choice(self.nodes)

    def _blob(self, blob: Blob, size: int, now: float) -> float:
        """When a client has a blob that it asks for now."""
        case, costs, day = self.case, self.costs, self.day
        node = self.nodes[hash(blob) % len(self.nodes)] if case.hashing else self._any()
        day.requests += 1
        day.sent += size
        there = node.coming.get(blob, 0.0)
        cached = blob in node.cached
        if case.archive and case.redirect == "always" and self._in_bucket(blob, now):
            node.cpu.done(now, costs.redirect)
            day.gets += 1
            day.from_bucket += size
            return now + 0.03 + size / min(case.bucket, case.client)
        if cached or there > now:
            day.hit += size
            if cached:
                node.cached.move_to_end(blob)
            node.cpu.done(now, costs.request + costs.hit * size / GIB)
            sent = node.card.done(now, size)
            return max(sent, there, now + size / case.client)
        return self._fill(node, blob, size, now)

    def _fill(self, node: Node, blob: Blob, size: int, now: float) -> float:
        case, costs, day = self.case, self.costs, self.day
        if case.archive and self._in_bucket(blob, now):
            day.gets += math.ceil(size / (64 << 20))
            day.from_bucket += size
            if case.redirect != "never":
                node.cpu.done(now, costs.redirect)
                return now + 0.03 + size / min(case.bucket, case.client)
            node.cpu.done(now, costs.get * size / GIB)
            got = now + 0.03 + size / case.bucket
        else:
            day.upstream += size
            day.fetched[blob] = day.fetched.get(blob, 0) + 1
            node.cpu.done(now, costs.fill * size / GIB)
            got = max(self.uplink.done(now, size), now + 0.1 + size / case.stream)
            if case.archive:
                self.archived.add(blob)
                day.puts += 1 if size < 16 << 20 else 2 + math.ceil(size / (16 << 20))
                day.stored += size
                node.cpu.done(now, costs.put * size / GIB)
                node.card.done(now, size)
        node.keep(blob, size)
        node.coming[blob] = got
        if len(node.coming) > 1000:
            node.coming = {each: until for each, until in node.coming.items() if until > now}
        return max(got, node.card.done(now, 2 * size), now + size / case.client)

    def _in_bucket(self, blob: Blob, now: float) -> bool:
        """Whether a node of ours has put it there, or one of another cell by now."""
        if blob in self.archived:
            return True
        if self.case.cells == 1:
            return False
        image, _, version = blob
        first = image if image >= 0 else (-1 - image) * 12
        since = now - self.world.born(first, version) if version else now + DAY
        rate = self.world.share(first) * self.world.pulls_a_day / DAY * (self.case.cells - 1)
        if self.random.random() < math.exp(-rate * max(0.0, since)):
            return False
        self.archived.add(blob)
        return True

    def summary(self, since: float, prices: Prices = Prices()) -> dict[str, Any]:
        """The last day in figures; of all cells."""
        day, case = self.day, self.case
        times = sorted(day.times) or [0.0]
        cpu = max(node.cpu.peak(since) for node in self.nodes)
        card = max(node.card.peak(since) for node in self.nodes)
        uplink = self.uplink.peak(since)
        load = {"CPU": cpu, "network card": card, "uplink": uplink}
        # What a day puts there is kept for a month.
        cost = (day.gets * prices.get + day.puts * prices.put + day.stored / 1e9 * prices.gb_month) * case.cells
        return {
            "pulls a day": case.pulls,
            "nodes": case.nodes,
            "balancer": "hash" if case.hashing else "any",
            "bucket": f"redirect {case.redirect}" if case.archive else "none",
            "hits, % of bytes": 100 * day.hit / max(1.0, day.sent),
            "sent, TB": day.sent * case.cells / 1e12,
            "upstream, TB": day.upstream * case.cells / 1e12,
            "manifests of the upstream": day.manifests * case.cells,
            "bucket requests": (day.gets + day.puts) * case.cells,
            "bucket, $ a day": cost,
            "pull p50, s": times[len(times) // 2],
            "pull p99, s": times[int(len(times) * 0.99)],
            "CPU at the peak, %": 100 * cpu,
            "card at the peak, %": 100 * card,
            "uplink at the peak, %": 100 * uplink,
            "fullest": max(load, key=lambda name: load[name]),
        }


def run(case: Case, warm: float = 1.0, seed: int = 1) -> dict[str, Any]:
    """One case -> its summary."""
    simulation = Simulation(case, seed=seed)
    simulation.run(warm)
    return simulation.summary(warm * DAY)


TABLE: Sequence[Case] = (
    Case(1e4, 1),
    Case(1e4, 2, hashing=False),
    Case(1e5, 1),
    Case(1e5, 3),
    Case(1e5, 3, hashing=False),
    Case(1e5, 3, hashing=False, archive=True),
    Case(1e5, 3, archive=True, redirect="always"),
)
"""The cases of docs/scaling.md."""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in rows:
        lines.append(f"| {' | '.join(_told(row[name]) for name in names)} |")
    return "\n".join(lines)


def _told(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Simulate a day of pulls.")
    parser.add_argument("--pulls", type=float, help="one case: pulls a day")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--any", action="store_true", help="the balancer does not hash")
    parser.add_argument("--archive", action="store_true", help="with a bucket")
    parser.add_argument("--redirect", choices=("never", "cold", "always"), default="never")
    parser.add_argument("--uplink", type=float, default=10.0, metavar="GBIT")
    parser.add_argument("--cells", type=int, default=1, help="equal groups of nodes, of which one is simulated")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plots", metavar="DIR", help="also draw the plots of docs/scaling.md there (matplotlib)")
    options = parser.parse_args(arguments)
    cases = list(TABLE)
    if options.pulls:
        one = Case(options.pulls, options.nodes, not options.any, options.archive, options.redirect, options.cores)
        cases = [evolve(one, uplink=options.uplink * 1e9 / 8, cells=options.cells)]
    rows = [run(case) for case in cases]
    print(json.dumps(rows, indent=1) if options.json else table(rows))  # noqa: T201  # a command
    if options.plots:
        from bench.simulate_plots import draw  # matplotlib is needed for nothing else

        draw(run, Path(options.plots))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Do names that never come again fill the disk or the memory?

Up to 200,000 repositories, each asked for once: manifests, manifests that are not there, and blobs that
are not there.  Beside them pulls go on as ever.  A name costs the daemon as much at the end as at the beginning,
which is measured by the time that its processes compute, for what a clock says depends on the machine's other work.
"""

from __future__ import annotations

import asyncio

from attrs import define, field

from docxy.names import OCI_MANIFEST, Digest
from tests.torture.client import Ask, Line
from tests.torture.daemons import Daemon
from tests.torture.library import SMALL, Shape, Thing
from tests.torture.phases.evict import look
from tests.torture.stage import Stage
from tests.torture.upstream import CHURNED

NAMES = 200_000
STRETCH = 20_000
"""Names after which it is told what the daemon takes; the first of them fill what has a bound."""
SLOWER = 2.0
"""How many times as much a name of a later stretch may cost as one of the second."""
AT_ONCE = 12
BUDGET = 24 << 20
DIGEST = str(Digest.of(CHURNED))
MEMORY = 400 << 20
"""Bytes that no process may exceed."""


async def run(stage: Stage) -> None:
    """Names until there were enough, or the time is over."""
    await stage.open(Shape(images=4, layers=3, sizes=SMALL))
    stage.bound = 30.0
    daemon = stage.daemon(size=str(BUDGET))
    await daemon.start()
    looking = asyncio.ensure_future(look(stage, [daemon], BUDGET))
    try:
        done = _Done(stage, daemon)
        pulling = asyncio.ensure_future(_pulls(stage, daemon))
        await asyncio.gather(*(_names(stage, daemon, first, done) for first in range(AT_ONCE)))
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
    finally:
        looking.cancel()
    if daemon.resident() > MEMORY:
        stage.marks.add("over_budget", f"{daemon.resident() >> 20} MiB of memory in one process")
    await stage.heal([daemon], 0.0)
    await daemon.stop()


@define(eq=False)
class _Done:
    """What it took so far."""

    stage: Stage
    daemon: Daemon
    names: int = 0
    costs: list[float] = field(factory=list)
    """Seconds of computing for each stretch."""
    _since: float = 0.0

    def __attrs_post_init__(self) -> None:
        self._since = self.daemon.seconds_of_cpu()

    def one(self) -> None:
        """Another name is done."""
        self.names += 1
        self.stage.marks.count("names")
        if self.names % STRETCH:
            return
        now = self.daemon.seconds_of_cpu()
        self.costs.append(now - self._since)
        self._since = now
        catalog = self.stage.cache / "catalog.sqlite"
        told = f"{self.names} names: {self.costs[-1] * 1000 / STRETCH:.2f} ms of computing for each of the last"
        told += f" {STRETCH}, {self.daemon.resident() >> 20} MiB in the largest process"
        self.stage.marks.say(f"{told}, {catalog.stat().st_size >> 10} KiB of catalog")
        if len(self.costs) > 2 and self.costs[-1] > SLOWER * self.costs[1]:
            self.stage.marks.add(
                "over_budget", f"a name costs {self.costs[-1] / self.costs[1]:.1f} times as much as before"
            )


async def _names(stage: Stage, daemon: Daemon, first: int, done: _Done) -> None:
    line = Line(daemon.port)
    for number in range(first, NAMES, AT_ONCE):
        if stage.left <= 0:
            break
        await _name(stage, daemon, number, line)
        done.one()
    line.close()


async def _name(stage: Stage, daemon: Daemon, number: int, line: Line) -> None:
    repository, way = f"churn/{stage.seed}-{number}", number % 4
    if way < 2:
        await stage.ask(daemon, Ask(_churned(repository), "latest" if way else DIGEST), line)
        return
    missing = Thing("blobs", repository, f"sha256:{number:064x}", 1, None, b"?")
    gone = Ask(missing, missing.digest) if way == 2 else Ask(_churned(repository), f"gone-{number}")
    await stage.missing(gone, line)


async def _pulls(stage: Stage, daemon: Daemon) -> None:
    while stage.left > 0:
        await stage.pulls([daemon], 2, 2)
        await asyncio.sleep(1)


def _churned(repository: str) -> Thing:
    return Thing("manifests", repository, DIGEST, len(CHURNED), OCI_MANIFEST, CHURNED)

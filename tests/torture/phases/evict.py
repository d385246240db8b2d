"""Does a cache that is much too small stay within its budget, and does nobody notice?

Two daemons with two workers each share one directory whose budget is a tenth of what is asked for.
Some readers take their time; what they read must stay until they are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.torture import disk
from tests.torture.daemons import Daemon
from tests.torture.faults import Weather
from tests.torture.library import LARGE, Shape
from tests.torture.stage import Stage

BUDGET = 24 << 20
PULLS = 2000
LOOK_EVERY = 0.25
"""Seconds."""


async def run(stage: Stage) -> None:
    """Pulls until there were enough, or the time is over; with looks at the disk all the while."""
    await stage.open(Shape(images=20, layers=5, sizes=LARGE), Weather(bytes_per_second=20_000_000))
    stage.dawdling = 0.1
    stage.bound = 60.0
    daemons = [stage.daemon(size=str(BUDGET)) for _ in range(2)]
    for each in daemons:
        await each.start()
    looking = asyncio.ensure_future(look(stage, daemons, BUDGET))
    try:
        await stage.pulls(daemons, PULLS, 12)
    finally:
        looking.cancel()
    await stage.tidy(daemons, all_pulled=False)
    for each in daemons:
        if not await each.stop():
            stage.marks.add("leftovers", "a daemon did not end on SIGTERM")


async def look(stage: Stage, daemons: Sequence[Daemon], budget: int) -> None:
    """Look at the disk again and again; each time that it is fuller than allowed is a mark."""
    while True:
        pids = [pid for each in daemons for pid in each.members()]
        found = await asyncio.get_running_loop().run_in_executor(None, disk.used, stage.cache, pids)
        stage.marks.counted["most disk, % of the budget"] = max(
            stage.marks.counted["most disk, % of the budget"], 100 * found // budget
        )
        if found > disk.allowed(budget):
            stage.marks.add("over_budget", f"{found >> 10} KiB on disk, the budget is {budget >> 10} KiB")
        await asyncio.sleep(LOOK_EVERY)

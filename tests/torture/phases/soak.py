"""Does it all hold together, for long?

Everything at once and in moderation: a tenth of the answers goes wrong, the budget is too small, readers
dawdle, a worker is killed now and then, the upstream is off for a moment.
"""

from __future__ import annotations

import asyncio

from attrs import evolve

from tests.torture.daemons import Daemon
from tests.torture.faults import Weather
from tests.torture.library import LARGE, MIXED, Shape
from tests.torture.phases.evict import look
from tests.torture.stage import Stage

BUDGET = 24 << 20
PULLS = 20_000
MISHAP_EVERY = 8.0
"""Seconds."""


async def run(stage: Stage) -> None:
    """Pulls until there were enough, or the time is over; then a healing."""
    stage.endpoints = 2
    weather = Weather(rate=0.1, tokens=3.0, redirects=True)
    await stage.open(Shape(images=16, layers=4, sizes=(*MIXED, *LARGE)), weather)
    stage.dawdling = 0.05
    daemon = stage.daemon(size=str(BUDGET))
    await daemon.start()
    looking = asyncio.ensure_future(look(stage, [daemon], BUDGET))
    ends, stage.ends = stage.ends, stage.ends - 10
    mishaps = asyncio.ensure_future(_mishaps(stage, daemon, weather))
    try:
        await stage.pulls([daemon], PULLS)
    finally:
        looking.cancel()
        mishaps.cancel()
        stage.ends = ends
    await stage.heal([daemon], 6.0)
    await daemon.stop()


async def _mishaps(stage: Stage, daemon: Daemon, weather: Weather) -> None:
    number = 0
    while True:
        await asyncio.sleep(MISHAP_EVERY)
        random = stage.random(f"mishap {number}")
        number += 1
        workers = sorted(daemon.workers())
        if random.random() < 0.5 and len(workers) == 2:
            stage.killed(daemon, [random.choice(workers)])
        else:
            async with stage.outage(evolve(weather, everything="503")):
                await asyncio.sleep(0.5)

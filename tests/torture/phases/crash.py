"""Is everything right after kill -9, at whatever moment and of whichever process?

Clients pull while a worker, the supervisor or all of it is killed.  Another process takes over, or the
daemon is started again, and everything must come, at once and right.
"""

from __future__ import annotations

import asyncio
import shutil
from random import Random

from tests.torture.daemons import Daemon
from tests.torture.faults import Weather
from tests.torture.library import SMALL, Shape
from tests.torture.stage import Stage

KILLS = 200
LIVES = 3
"""The cache is emptied after this many lives, so that there is always something to fetch."""
PULLS = 5
"""Under way at each kill; and the same number after it."""
BOUND = 20.0
"""Seconds for a request of a daemon that is well: a dead process's claims must not be waited for."""


async def run(stage: Stage) -> None:
    """Lives until there were enough kills, or the time is over."""
    sizes = (*SMALL, 1 << 20)
    await stage.open(Shape(images=8, layers=3, sizes=sizes), Weather(bytes_per_second=3_000_000, delay=0.1))
    stage.bound = BOUND
    daemon, before, life = stage.daemon(), stage.marks.counted["kills"], 0
    while stage.marks.counted["kills"] - before < KILLS and (life == 0 or stage.left > 8):
        await daemon.start()
        await _life(stage, daemon, stage.random(f"life {life}"))
        life += 1
        if life % LIVES == 0:
            await daemon.start()
            await stage.heal([daemon], 0.0)
            daemon.close()
            shutil.rmtree(stage.cache)
    await daemon.start()
    await stage.heal([daemon], 0.0)
    await daemon.stop()


async def _life(stage: Stage, daemon: Daemon, random: Random) -> None:
    """Each worker is killed once (more often the supervisor waits, as it should), then it all ends."""
    daemon.died.clear()
    for _ in range(daemon.settings.workers):
        pulling = asyncio.ensure_future(stage.pulls([daemon], PULLS, PULLS))
        await asyncio.sleep(random.uniform(0.02, 0.8))
        workers = sorted(daemon.workers())
        if workers:
            # The oldest one.  Nothing but its own connections is excused.
            stage.killed(daemon, workers[:1])
        await pulling
    pulling = asyncio.ensure_future(stage.pulls([daemon], PULLS, PULLS))
    await asyncio.sleep(random.uniform(0.02, 0.8))
    with stage.disturbing():
        stage.killed(daemon, [daemon.pid] if random.random() < 0.5 else None)
        if not await daemon.gone(15):
            stage.marks.add("leftovers", f"workers {daemon.members()} live on without their supervisor")
        await pulling
    daemon.close()
    stage.read_logs()

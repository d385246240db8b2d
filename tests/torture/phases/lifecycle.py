"""Do signals do what they are for, whatever the daemon is at?

SIGTERM ends it after the running transfers; SIGHUP disturbs nobody; workers that die again and again are
started again; Ctrl-C once is patient and twice is not; and none of it leaves a traceback or a process.
"""

from __future__ import annotations

import asyncio
import os
import signal

from tests.torture.client import Ask
from tests.torture.daemons import Daemon
from tests.torture.faults import Weather
from tests.torture.library import MIXED, Shape
from tests.torture.stage import Stage

AT_ONCE = 4.0
"""Seconds within which a second Ctrl-C must have ended everything."""


async def run(stage: Stage) -> None:
    """Rounds until the time is over."""
    await stage.open(Shape(images=8, layers=4, sizes=MIXED), Weather(bytes_per_second=3_000_000))
    number = 0
    while number == 0 or stage.left > 20:
        daemon = stage.daemon(workers=1 if number % 4 == 1 else 2)
        await daemon.start()
        await _hang_up(stage, daemon)
        if not daemon.running():
            await daemon.start()
        await _term(stage, daemon)
        await _interrupted(stage, daemon, twice=number % 3 < 2)
        await _crash_loop(stage)
        number += 1
    daemon = stage.daemon()
    await daemon.start()
    await stage.heal([daemon], 0.0)
    await daemon.stop()


async def _hang_up(stage: Stage, daemon: Daemon) -> None:
    """SIGHUP while clients pull: nobody notices."""
    pulling = asyncio.ensure_future(stage.pulls([daemon], 12))
    for _ in range(4):
        await asyncio.sleep(0.2)
        daemon.signal(signal.SIGHUP)
    await pulling
    if not daemon.running():
        stage.marks.add("unhealed", "SIGHUP ended the daemon")


async def _term(stage: Stage, daemon: Daemon) -> None:
    """SIGTERM: what runs comes to its end, then the daemon does."""
    blob = max((each for image in stage.library.images for each in image.blobs[0]), key=lambda each: each.size)
    running = asyncio.ensure_future(stage.ask(daemon, Ask(blob, blob.digest, pace=blob.size / 2)))
    await asyncio.sleep(0.7)
    daemon.signal(signal.SIGTERM)
    await running
    await _ended(stage, daemon, daemon.settings.shutdown_grace + 15, "SIGTERM")


async def _interrupted(stage: Stage, daemon: Daemon, *, twice: bool) -> None:
    """Ctrl-C, as a terminal sends it: to every process of the foreground."""
    daemon.died.clear()
    await daemon.start()
    blob = max((each for image in stage.library.images for each in image.blobs[0]), key=lambda each: each.size)
    pulling = asyncio.ensure_future(stage.ask(daemon, Ask(blob, blob.digest, pace=200_000.0)))
    await asyncio.sleep(0.5)
    with stage.disturbing():
        os.killpg(daemon.pid, signal.SIGINT)
        if twice:
            await asyncio.sleep(0.5)
            os.killpg(daemon.pid, signal.SIGINT)
        seconds = AT_ONCE if twice else daemon.settings.shutdown_grace + 15
        await _ended(stage, daemon, seconds, "two Ctrl-C" if twice else "Ctrl-C")
        await pulling


async def _ended(stage: Stage, daemon: Daemon, seconds: float, by: str) -> None:
    if not await daemon.gone(seconds):
        stage.marks.add("leftovers", f"{seconds:g} s after {by} there are still processes: {daemon.states()}")
    daemon.close()
    stage.read_logs()


async def _crash_loop(stage: Stage) -> None:
    """A worker dies three times in a row: another one is there each time, in the end too."""
    daemon = stage.daemon()
    await daemon.start()
    for _ in range(3):
        if not await stage.until(lambda: len(daemon.workers()) == 2, 20):
            stage.marks.add("unhealed", f"{len(daemon.workers())} of 2 workers 20 s after one died")
            break
        stage.killed(daemon, sorted(daemon.workers())[:1])
        await stage.pulls([daemon], 3, 3)
        await asyncio.sleep(0.3)
    daemon.died.clear()
    await stage.pulls([daemon], 3, 3)
    if not await daemon.stop():
        stage.marks.add("leftovers", "the daemon did not end on SIGTERM after a crash loop")

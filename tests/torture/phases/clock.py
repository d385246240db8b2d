"""Does a clock that jumps stop or mislead anything?

The time of day steps back and forth while clients pull.  Tags must be asked for anew within their time
to live, and time-outs must strike, whatever the clock says.
"""

from __future__ import annotations

import asyncio
from random import Random

from attrs import evolve

from tests.torture.daemons import Daemon
from tests.torture.faults import Weather
from tests.torture.library import SMALL, Image, Shape
from tests.torture.shim import Shim, compiler
from tests.torture.stage import Stage

STEPS = (-86_400 * 30, -3600, -90, -5, 5, 90, 3600, 86_400 * 30)
"""Seconds."""
FRESH = 15.0
"""Seconds within which a tag that has moved must be seen, at a time to live of 1 s."""


async def run(stage: Stage) -> None:
    """Rounds of steps until the time is over."""
    await stage.open(Shape(images=6, layers=3, sizes=SMALL, versions=2))
    if compiler() is None:
        return
    shim = Shim(stage.directory, stage.cache, stage.seed)
    daemon = stage.daemon(environ=shim.environ)
    await daemon.start()
    number = 0
    while number == 0 or stage.left > 15:
        await _round(stage, daemon, shim, number)
        number += 1
    shim.step(0)
    await stage.heal([daemon], 1.5)
    await daemon.stop()
    shim.close()


async def _round(stage: Stage, daemon: Daemon, shim: Shim, number: int) -> None:
    random = stage.random(f"round {number}")
    before = random.choice(STEPS)
    shim.step(before)
    await stage.pulls([daemon], 6)
    shim.step(before + random.choice(STEPS))
    await _moved(stage, daemon, random)
    if number % 2 == 0:
        await _stalled(stage, daemon, shim, before, random)
    stage.read_logs()


async def _moved(stage: Stage, daemon: Daemon, random: Random) -> None:
    """A tag moves; within its time to live the new manifest must come."""
    image = random.choice(stage.library.images)
    for version in (1, 0):
        await stage.upstream.move(image, version)
        deadline = asyncio.get_running_loop().time() + FRESH
        while not await _is_served(stage, daemon, image, version):
            if asyncio.get_running_loop().time() > deadline:
                told = f"{image.repository}:{image.tag} moved {FRESH:g} s ago and is served as it was"
                stage.marks.add("unhealed", told)
                break
            await asyncio.sleep(0.5)


async def _is_served(stage: Stage, daemon: Daemon, image: Image, version: int) -> bool:
    outcome, good = await stage.ask(daemon, stage.by_tag(image, version))
    return good and outcome.headers.get("docker-content-digest") == image.versions[version].digest


async def _stalled(stage: Stage, daemon: Daemon, shim: Shim, before: int, random: Random) -> None:
    """The upstream falls silent and the clock steps: the time-outs of 3 s must strike all the same."""
    image = random.choice(stage.library.images)
    await stage.upstream.be(Weather(everything="silent"))
    asking = asyncio.ensure_future(stage.ask(daemon, evolve(stage.by_tag(image), bound=40.0)))
    await asyncio.sleep(1.0)
    shim.step(before - random.choice((5, 3600, 86_400)))
    await asking
    await stage.upstream.be(Weather())
    await asyncio.sleep(3.0)

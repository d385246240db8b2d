"""Does a client get right bytes, or an honest failure, whatever the upstream does?

Rounds of bad weather, each followed by a healing: one endpoint or two, tokens of 3 s or none, a
redirect to a store or none; a different fifth to third of all answers goes wrong each time.
"""

from __future__ import annotations

import asyncio
import shutil

from tests.torture.daemons import Daemon
from tests.torture.faults import KINDS, Weather
from tests.torture.library import SMALL, Shape
from tests.torture.stage import Stage

PULLS = 400
"""Of each round."""
HEALING = 8.0
"""Seconds that a healing takes; no round begins that would not have them."""


async def run(stage: Stage) -> None:
    """Rounds until the time is over, at least one."""
    await stage.open(Shape(images=16, layers=4, sizes=(*SMALL, 1 << 20)))
    number = 0
    while number == 0 or stage.left > HEALING + 4:
        await _round(stage, number)
        number += 1


async def _round(stage: Stage, number: int) -> None:
    random = stage.random(f"round {number}")
    stage.endpoints = 2 if number % 2 and stage.target is Daemon else 1
    kinds = tuple(sorted(random.sample(sorted(KINDS), random.randrange(3, len(KINDS)))))
    weather = Weather(
        rate=random.uniform(0.05, 0.35),
        kinds=kinds,
        tokens=random.choice((0.0, 3.0)),
        redirects=random.random() < 0.5,
    )
    shutil.rmtree(stage.cache, ignore_errors=True)
    daemon = stage.daemon()
    await daemon.start()
    await stage.upstream.be(weather)
    bad_until = min(stage.ends - HEALING, asyncio.get_running_loop().time() + 40)
    ends, stage.ends = stage.ends, bad_until
    await stage.pulls([daemon], PULLS)
    stage.ends = ends
    await stage.heal([daemon])
    await _without(stage, daemon)
    if not await daemon.stop():
        stage.marks.add("leftovers", "the daemon did not end on SIGTERM")


async def _without(stage: Stage, daemon: Daemon) -> None:
    """The upstream goes away: all that was healed is cached, and still comes."""
    await stage.upstream.be(Weather(off=True))
    for number, image in enumerate(stage.library.images[:4]):
        await stage.pull(daemon, image, stage.random(f"without {number}"))
    await stage.upstream.be(Weather())

"""The phases, in the order in which they run, and the share of the time that each gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from attrs import frozen

from tests.torture.phases import churn, clock, crash, evict, faults, lifecycle, soak, storage
from tests.torture.stage import Stage


@frozen
class Phase:
    """`run` returns by `stage.ends`, or a little later: it begins nothing new after that."""

    run: Callable[[Stage], Awaitable[None]]
    weight: float


PHASES: Mapping[str, Phase] = {
    "faults": Phase(faults.run, 3),
    "crash": Phase(crash.run, 3),
    "evict": Phase(evict.run, 2),
    "storage": Phase(storage.run, 3),
    "time": Phase(clock.run, 2),
    "lifecycle": Phase(lifecycle.run, 2),
    "churn": Phase(churn.run, 1),
    "soak": Phase(soak.run, 2),
}

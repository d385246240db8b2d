"""The marks against a daemon, counted by name, and the one line that sums them up.

The law: every name is in the line whether it was met or not, and the exit status is 0 only if all are 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import define, field

NAMES = {
    "wrong": "bytes, sizes or digests that are wrong and look whole",
    "hangs": "requests without an end within their bound",
    "500s": "answers of 500",
    "tracebacks": "tracebacks in the daemon's log",
    "leftovers": "files, processes or ports left behind after healing",
    "over_budget": "looks at the disk that found more than the budget allows",
    "healable": "faults a client saw that one retry would have healed",
    "unexplained": "faults a client saw though the upstream did nothing wrong",
    "unhealed": "things that stayed broken after the cause had gone",
}

_DETAILS = 8
"""Of each mark this many are told in full, in each phase."""


@define
class Marks:
    """What was counted so far."""

    say: Callable[[str], None] = field(repr=False)
    """Is given each line for people."""
    against: Counter[str] = field(factory=Counter)
    counted: Counter[str] = field(factory=Counter)
    """Pulls, requests, kills, bytes, and what was excused."""
    phase: str = ""
    _told: Counter[tuple[str, str]] = field(factory=Counter, init=False, repr=False)

    def add(self, name: str, detail: str) -> None:
        """A mark; `detail` says what happened."""
        if name not in NAMES:
            raise ValueError(f"{name} is not a mark")
        self.against[name] += 1
        self._told[self.phase, name] += 1
        if self._told[self.phase, name] <= _DETAILS:
            self.say(f"MARK {name} [{self.phase}] {detail}")

    def count(self, what: str, by: int = 1) -> None:
        """Something that is no mark."""
        self.counted[what] += by

    @property
    def clean(self) -> bool:
        """Whether every mark is 0."""
        return not any(self.against.values())

    def since(self, counted: Counter[str], against: Counter[str]) -> str:
        """What was done, and which marks were given, since the counts were these."""
        done = [f"{self.counted[name] - counted[name]} {name}" for name in ("pulls", "requests", "kills")]
        marks = [f"{name}={count}" for name, count in sorted((self.against - against).items())]
        return f"{', '.join(done)}; {' '.join(marks) or 'no mark'}"

    def summary(self, seed: int, seconds: float) -> str:
        """The closing line."""
        done = " ".join(f"{name}={self.counted[name]}" for name in ("pulls", "requests", "kills"))
        excused = sum(count for name, count in self.counted.items() if name.startswith("excused"))
        marks = " ".join(f"{name}={self.against[name]}" for name in NAMES)
        verdict = "ok" if self.clean else "FAILED"
        return f"torture {verdict} seed={seed} seconds={seconds:.0f} {done} excused={excused} | {marks}"

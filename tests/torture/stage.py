"""What every phase needs: a library with its upstream, daemons, pulls by the seed's plan, judgement.

The law: what is chosen depends on the seed and on the number of the pull, never on time or order.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

from attrs import define, evolve, field

from tests.torture import disk
from tests.torture.client import Ask, Line, ask
from tests.torture.daemons import Daemon, Settings
from tests.torture.faults import Weather
from tests.torture.judge import LOOK_BACK, RIGHT, TOKEN, Attempt, Outcome, Situation, judge
from tests.torture.library import Image, Library, Shape, Thing, build
from tests.torture.marks import Marks
from tests.torture.steering import Steered

PATIENCE = 3.0
"""Seconds of the daemon's time-outs: those of a fetch that the client joined may have begun so long before."""
LEARNT = 3.0
"""Seconds after which what one worker learnt is known to all."""
_TRACED = 12
"""Requests of docxy's that are told beside a mark."""


@define(eq=False)
class Stage:
    """One phase's."""

    seed: int
    phase: str
    marks: Marks
    directory: Path
    """Its own, existing and empty."""
    ends: float
    """By the monotonic clock; a phase begins nothing new after this."""
    target: type[Daemon] = Daemon
    daemons: list[Daemon] = field(factory=list)
    endpoints: int = 1
    bound: float = 60.0
    """Seconds after which a request is a hang."""
    dawdling: float = 0.0
    """The share of readers that take their time."""
    disturbed: list[list[float]] = field(factory=list)
    """From when to when something was done to daemons that excuses broken connections."""
    down: list[list[float]] = field(factory=list)
    """From when to when all of the upstream was."""
    upstream: Steered = field(init=False)
    library: Library = field(init=False)
    pulled: int = 0

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every blob and manifest, by the hexadecimal part of its digest."""
        things = [each for image in self.library.images for each in image.versions]
        things += [each for image in self.library.images for blobs in image.blobs for each in blobs]
        return {each.digest.partition(":")[2]: each.size for each in things}

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def random(self, what: object) -> Random:
        """The plan's choices for one thing."""
        return Random(f"{self.seed} {self.phase} {what}")

    async def open(self, shape: Shape, weather: Weather | None = None) -> None:
        """Start the upstream."""
        self.library = build(self.seed, shape)
        self.upstream = Steered(self.seed, self.phase, shape)
        await self.upstream.start()
        await self.upstream.be(weather or Weather())

    def daemon(self, **more: object) -> Daemon:
        """A daemon that is not started yet."""
        ports = [self.upstream.ports[name] for name in ("a", "b")[: self.endpoints]]
        settings = evolve(Settings(ports, self.cache), **more)  # type: ignore[arg-type]  # by name
        made = self.target(self.directory / f"daemon{len(self.daemons)}", settings)
        self.daemons.append(made)
        return made

    def close(self) -> None:
        """End everything, and read the last words."""
        for each in self.daemons:
            each.close()
        self.read_logs()
        if hasattr(self, "upstream"):
            self.upstream.close()

    def read_logs(self) -> None:
        """Count tracebacks."""
        for each in self.daemons:
            for complaint in each.complaints():
                self.marks.add("tracebacks", complaint)

    # -- pulls

    async def pulls(self, daemons: Sequence[Daemon], most: int, at_once: int = 6) -> None:
        """Pull images by the plan until there were so many, or the phase ends."""
        first = self.pulled
        self.pulled += most

        async def puller(offset: int) -> None:
            for number in range(first + offset, first + most, at_once):
                if self.left <= 0:
                    return
                random = self.random(f"pull {number}")
                await self.pull(random.choice(daemons), random.choice(self.library.images), random)

        await asyncio.gather(*(puller(offset) for offset in range(at_once)))

    async def pull(self, daemon: Daemon, image: Image, random: Random, version: int = 0) -> bool:
        """Pull an image as clients do: its tag, then its manifest, then its blobs three at a time."""
        self.marks.count("pulls")
        manifest, blobs = image.versions[version], list(image.blobs[version])
        by_tag, by_digest = self.by_tag(image, version), Ask(manifest, manifest.digest)
        if random.random() < 0.5 and not await self._good(daemon, evolve(by_tag, method="HEAD")):
            return False
        if not await self._good(daemon, by_tag if random.random() < 0.7 else by_digest):
            return False
        random.shuffle(blobs)
        asks = [self._way(thing, random) for thing in blobs]
        taken: list[bool] = []
        for start in range(0, len(asks), 3):
            taken += await asyncio.gather(*(self._good(daemon, each) for each in asks[start : start + 3]))
        return all(taken)

    def by_tag(self, image: Image, version: int = 0) -> Ask:
        """Ask for a tag, which may be served as another of its versions for a while after it moved."""
        others = tuple(each for each in image.versions if each is not image.versions[version])
        return Ask(image.versions[version], image.tag, others=others)

    def _way(self, thing: Thing, random: Random) -> Ask:
        """How a client takes a blob: whole, a part, slowly, or not to the end."""
        whole = Ask(thing, thing.digest)
        if random.random() < self.dawdling:
            return evolve(whole, pace=float(random.choice((500_000, 1_000_000, 3_000_000))), bound=120.0)
        way = random.random()
        if way < 0.70 or thing.size < 2:
            return whole
        first = random.randrange(thing.size)
        if way < 0.80:
            return evolve(whole, asked=(first, None))
        if way < 0.88:
            return evolve(whole, asked=(first, first + random.randrange(1, 1 << 20)))
        if way < 0.94:
            return evolve(whole, leave_after=max(1, first))
        return evolve(whole, method="HEAD")

    async def _good(self, daemon: Daemon, what: Ask) -> bool:
        return (await self.ask(daemon, what))[1]

    async def ask(self, daemon: Daemon, what: Ask, line: Line | None = None) -> tuple[Outcome, bool]:
        """Ask, on a connection of its own unless there is a line, and judge what came; whether it was right."""
        self.marks.count("requests")
        what = evolve(what, bound=min(what.bound, self.bound) if not what.pace else 120.0)
        outcome = await (ask(daemon.port, what) if line is None else line.ask(what))
        self.marks.count("bytes", outcome.received)
        situation = Situation(others=what.others)
        verdict = judge(outcome, situation)
        if verdict != RIGHT:
            # Only now: asking what else happened takes longer than most answers.
            situation = await self._situation(daemon, outcome, what)
            verdict = judge(outcome, situation)
        if verdict.mark:
            told = f"{outcome.method} {what.path[-100:]} range={outcome.asked} of {daemon.name}: {verdict.why}"
            told += f" ({outcome.ended - outcome.started:.2f} s, {outcome.headers.get('cache-status', '')})"
            asked = time.time() - time.monotonic() + outcome.started
            told += f", asked at {time.strftime('%H:%M:%S', time.gmtime(asked))}"
            self.marks.add(verdict.mark, told + trace(outcome, situation.attempts))
        elif outcome.whole and outcome.thing.kind == "manifests" and outcome.method == "GET":
            daemon.given.setdefault(outcome.thing.digest, outcome.ended)
        if verdict.excuse:
            self.marks.count(f"excused: {verdict.excuse}")
        return outcome, not verdict.mark and not verdict.excuse

    async def missing(self, what: Ask, line: Line) -> None:
        """Ask for what is not there: 404, and nothing else."""
        self.marks.count("requests")
        outcome = await line.ask(evolve(what, bound=min(what.bound, self.bound)))
        if outcome.timed_out or outcome.status != 404:
            name = "hangs" if outcome.timed_out else "500s" if outcome.status == 500 else "unexplained"
            self.marks.add(name, f"{what.path}: status {outcome.status} {outcome.error} instead of 404")

    async def _situation(self, daemon: Daemon, outcome: Outcome, what: Ask) -> Situation:
        thing = what.thing
        key = f"manifest {thing.repository} {what.reference}" if thing.kind == "manifests" else f"blob {thing.digest}"
        keys = [key, f"{TOKEN}{thing.repository}"]
        attempts, refusals, gaps = await self.upstream.attempts(keys, outcome.started - LOOK_BACK)
        return Situation(
            attempts=attempts,
            endpoints=self.endpoints,
            disturbed=self._disturbed(daemon, outcome),
            off=_met(self.down, outcome),
            others=what.others,
            given=daemon.given.get(thing.digest, math.inf) < outcome.started - LEARNT,
            refusals=refusals,
            slow=any(start <= outcome.ended and outcome.started - PATIENCE <= end for start, end in gaps),
        )

    def _disturbed(self, daemon: Daemon, outcome: Outcome) -> str:
        if any(outcome.started - 0.2 <= at <= outcome.ended + 0.2 for at in daemon.died):
            return "the daemon was killed"
        if _met(self.disturbed, outcome):
            return "the daemon was stopped"
        return ""

    # -- after the cause has gone

    async def heal(self, daemons: Sequence[Daemon], rest: float = 3.0) -> None:
        """The upstream is well again: after a rest everything must be right, and nothing be left over."""
        weather = self.upstream.weather
        await self.upstream.be(evolve(weather, rate=0.0, everything=None, off=False))
        await asyncio.sleep(rest)
        broken = [(d.name, image.repository) for d in daemons for image in await self._failing(d)]
        for name, repository in broken:
            self.marks.add("unhealed", f"{repository} of {name} still fails")
        await self.tidy(daemons, all_pulled=True)

    async def _failing(self, daemon: Daemon) -> list[Image]:
        found = []
        for image in self.library.images:
            asks = [self.by_tag(image), *(Ask(each, each.digest) for each in image.blobs[0])]
            good = await asyncio.gather(*(self._good(daemon, each) for each in asks))
            if not all(good):
                found.append(image)
        return found

    async def tidy(self, daemons: Sequence[Daemon], *, all_pulled: bool) -> None:
        """Look for what is left over in the cache, and for what is kept and wrong."""
        self.read_logs()
        if not self.cache.is_dir() or not self.target.layout:
            return
        if not await self.until(lambda: not disk.leftovers(self.cache, all_pulled=all_pulled), 5):
            left = disk.leftovers(self.cache, all_pulled=all_pulled)
            self.marks.add("leftovers", f"{len(left)} in the cache: {left[:3]}")
        for each in disk.damaged(self.cache):
            self.marks.add("wrong", f"kept in the cache: {each}")
        for daemon in daemons:
            self.marks.counted["most memory of a process, MiB"] = max(
                self.marks.counted["most memory of a process, MiB"], daemon.resident() >> 20
            )

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Whether this came true in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    @contextmanager
    def disturbing(self) -> Iterator[None]:
        """For this while nobody need answer."""
        with _span(self.disturbed):
            yield

    @asynccontextmanager
    async def outage(self, weather: Weather) -> AsyncIterator[None]:
        """For this while the weather is such that nothing can come of the upstream."""
        before = self.upstream.weather
        with _span(self.down):
            await self.upstream.be(weather)
            yield
            await self.upstream.be(before)

    def killed(self, daemon: Daemon, pids: Sequence[int] | None = None) -> None:
        """kill -9, counted."""
        self.marks.count("kills")
        daemon.kill(pids)


def trace(outcome: Outcome, attempts: Sequence[Attempt]) -> str:
    """What the upstream saw of it, in seconds since the client asked: the last of it, a line each."""
    lines = (
        f"\n    {each.started - outcome.started:+.2f} … {each.ended - outcome.started:+.2f} s: "
        f"{each.method} {each.key[:30]} at {each.endpoint}: {each.fault or 'good'}"
        for each in attempts[-_TRACED:]
    )
    return "".join(lines)


@contextmanager
def _span(spans: list[list[float]]) -> Iterator[None]:
    """Note from when to when this lasts."""
    span = [time.monotonic(), math.inf]
    spans.append(span)
    try:
        yield
    finally:
        span[1] = time.monotonic()


def _met(spans: Sequence[Sequence[float]], outcome: Outcome) -> bool:
    """Whether a request falls into one of them, if only in part."""
    return any(start <= outcome.ended and outcome.started <= end for start, end in spans)

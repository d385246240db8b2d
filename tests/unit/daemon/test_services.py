"""What runs beside the site, on a clock of the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.certificates import ReloadingContext, load
from docxy.daemon.services import TELL_INTERVAL, OpenCache, Telling
from docxy.daemon.timers import every
from docxy.names import Digest
from docxy.observe.condition import Condition
from docxy.observe.model import About, ReadModel
from docxy.observe.one_process import OneProcess
from docxy.observe.state import Notes
from docxy.pull.blobs.followers import Followers
from tests.harness.certificates import server_files

LAYER, OTHER = Digest.of(b"layer"), Digest.of(b"other")


@define
class Fill:
    """Of a layer."""

    started: float
    offset: int = 0
    digest: Digest = LAYER
    upstream: str = "docker.io"
    repository: str = "library/alpine"
    size: int = 1 << 30
    connections: int = 1


@frozen(eq=False)
class Follower:
    """One client's way."""

    digest: Digest
    still_arrives: bool = True


@define
class Running:
    """What is being fetched."""

    fills: list[Fill]
    followers: Followers = field(factory=Followers)

    def running(self) -> list[Fill]:
        return self.fills


class TellingTests(SynchronousTestCase):
    """What a process tells the read model of its cache and its certificate."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.condition = Condition(cached=True)
        self.model = ReadModel(
            About("test", "https://mirror.example", 0.0, "none", [], "/cache", 1),
            self.clock.seconds,
            lambda pull: None,
            lambda: None,
            hold=0.0,
            names=True,
        )

    def start(
        self,
        expires: Callable[[], float] | None,
        cache: OpenCache | None = None,
        fills: Any = None,
        number: int = 1,
    ) -> None:
        """`number`: the process's; `fills`: what it fetches."""
        notes = Notes(self.clock.seconds)
        process = OneProcess(self.model, number)
        telling = Telling(
            process, self.condition, fills, {}, notes, cache, None, expires, None, None, self.clock, self.clock
        )
        telling.startService()
        self.addCleanup(telling.stopService)

    def test_rate(self) -> None:
        """The rate of what is fetched is that of some seconds: bytes come in bursts, of which a look sees none."""
        fill = Fill(self.clock.seconds())
        self.start(None, fills=Running([fill]))
        rates = []
        for number in range(20):
            fill.offset += 0 if number % 2 else 2000
            self.clock.advance(TELL_INTERVAL)
            rates.append(self.model.snapshot()["fills"][0]["rate"])
        self.assertGreater(min(rates), 500)
        self.assertLess(max(rates[5:]), 1500)
        self.clock.pump([TELL_INTERVAL] * 7)
        self.assertEqual(self.model.snapshot()["fills"][0]["rate"], 0)

    def test_followers(self) -> None:
        """Of a fill of its own a process tells with its clients; of one of another process, who follows it here."""
        here, there = Running([Fill(0.0)]), Running([])
        for follower in (Follower(LAYER), Follower(LAYER)):
            here.followers.add(follower)
        for follower in (Follower(LAYER), Follower(OTHER), Follower(LAYER, still_arrives=False)):
            there.followers.add(follower)
        self.start(None, fills=here)
        self.start(None, fills=there, number=2)
        (fill,) = self.model.snapshot()["fills"]
        self.assertEqual((fill["digest"], fill["readers"]), (str(LAYER), 3))

    def told(self, what: str) -> Any:
        return self.model.snapshot()["docxy"][what]

    def test_contents(self) -> None:
        """What the cache holds is looked up now and then, in one look at a time, more rarely the longer that takes."""
        self.clock.advance(1000)
        looks: list[Deferred[Mapping[str, Any]]] = []

        async def used() -> int:
            return 42

        async def contents() -> Mapping[str, Any]:
            looks.append(Deferred())
            return await looks[-1]

        unused: Any = None
        cache = OpenCache(unused, unused, unused, used, unused, contents, 100, unused)
        self.start(None, cache)
        self.clock.pump([TELL_INTERVAL] * 5)
        self.assertEqual(len(looks), 1)
        row = {"upstream": "docker.io", "repository": "library/alpine", "name": "docker.io/library/alpine"}
        largest = [{**row, "size": 7, "blobs": 1, "used": 5.0}]
        looks[0].callback({"largest": largest, "next": []})
        self.clock.advance(TELL_INTERVAL)
        shares = {"history": 0.5, "large": 0.5, "large_blob": 4_000_000_000}
        told = {"used": 42, "budget": 100, "shares": shares, "pinned": 0, "pins": 0, "largest": largest, "next": []}
        self.assertEqual(self.model.snapshot()["cache"], told)
        # It took 5 seconds: the next look is 500 later.
        self.clock.pump([TELL_INTERVAL] * 490)
        self.assertEqual(len(looks), 1)
        self.clock.pump([TELL_INTERVAL] * 10)
        self.assertEqual(len(looks), 2)
        looks[1].errback(ValueError("a bug"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.clock.pump([TELL_INTERVAL] * 5)
        self.assertEqual(self.model.snapshot()["cache"], told)

    def test_cache_that_fails(self) -> None:
        """A cache that cannot be used is told of, with the reason, until it can be used again."""
        self.condition.cache_failure = "Permission denied"
        self.start(None)
        self.assertEqual(self.told("cache_failure"), "Permission denied")
        self.condition.cache_failure = None
        self.clock.advance(TELL_INTERVAL)
        self.assertIsNone(self.told("cache_failure"))

    def test_certificate(self) -> None:
        """The end of the certificate in use is told, that of a renewed one too; without one, none."""
        directory = Path(self.mktemp())
        directory.mkdir()
        files = server_files(directory, ["mirror.example"])
        cert, key = str(files.chain), str(files.key)
        context = ReloadingContext(cert, key, load(cert, key))
        self.start(context.expires)
        self.assertEqual(self.told("certificate_expires"), context.pair.expires.timestamp())
        context.pair = evolve(context.pair, expires=context.pair.expires + timedelta(days=90))
        self.clock.advance(TELL_INTERVAL)
        self.assertEqual(self.told("certificate_expires"), context.pair.expires.timestamp())


class TimerTests(SynchronousTestCase):
    def test_goes_on(self) -> None:
        """A call that fails is logged, and the next one comes in its time."""
        calls: list[float] = []
        clock = Clock()

        def work() -> None:
            calls.append(clock.seconds())
            raise ValueError("nothing to see")

        timer = every(5.0, clock, work, "the work")
        timer.startService()
        clock.pump([5.0, 5.0])
        self.successResultOf(timer.stopService())
        self.assertEqual(calls, [0.0, 5.0, 10.0])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)

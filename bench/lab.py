"""What rows are made of: the servers, the content, the sizes, and the names of measures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from attrs import define, field, frozen

from bench import load
from bench.content import Blob, Content
from bench.servers import Setup, Stage, Target
from bench.stats import Goal

GIB = 2.0**30
SPEED, CPU, CLIENT = "GiB/s", "CPU-s/GiB", "client's CPU-s/GiB"
RATE, P99, CORES = "requests/s", "p99, ms", "client's cores"
TAKES = "CPU µs a request"
SECONDS, RSS = "seconds", "RSS, MB"
MIRRORS = ("docxy", "nginx", "proxy", "proxy3")
"""The last one only where it could be built."""
SCHEMES = ("http", "https")
Measured = dict[str, float]


@frozen
class Sizes:
    """How much of it; `--quick` is less."""

    blob: int
    """Bytes of the large blob."""
    crowd_blob: int
    """Of the one that many want at once."""
    small_blob: int
    """Of the one whose first byte is awaited."""
    layers: tuple[int, ...]
    """Bytes of those of an image."""
    wrk_seconds: int
    stalled: int
    """Clients."""
    few: int
    """Blobs in a cache."""
    many: int
    soak_minutes: float


@define
class Lab:
    """What rows measure with; to be closed."""

    setup: Setup
    stage: Stage
    content: Content
    programs: Mapping[str, str]
    sizes: Sizes
    stack: ExitStack
    """Ends what rows have started."""
    _blobs: dict[str, list[Blob]] = field(factory=dict, init=False)
    _made: dict[str, str] = field(factory=dict, init=False)
    _targets: dict[str, Target] = field(factory=dict, init=False)

    @property
    def ca(self) -> Path:
        return self.setup.certificate

    @property
    def upstream(self) -> str:
        """The URL of the mirrors' upstream."""
        return self.stage.upstream.url

    def blob(self, key: str, size: int) -> Blob:
        """The one of this name; made and pushed when it is first asked for."""
        return self.blobs(key, size, 1)[0]

    def blobs(self, key: str, size: int, count: int) -> list[Blob]:
        """Those of this name."""
        if key not in self._blobs:
            self._blobs[key] = [self.content.blob(size) for _ in range(count)]
            self.rest()
        return self._blobs[key]

    def warm(self, target: Target, round_: int) -> Blob:
        """A large blob that this server has, on disk and in memory: another one in each round.

        How fast a blob can be read depends on where in memory it came to lie, whoever reads it.
        """
        blob = self.blob(f"cached {round_}", self.sizes.blob)
        load.pull(self.programs["curl"], target.url + blob.path, blob.size, 1, 1, self.ca)
        target.server.settle()
        os.sync()
        return blob

    def made(self, key: str, make: Callable[[], str]) -> str:
        """The name of something in the registry; made and pushed when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
            self.rest()
        return self._made[key]

    def started(self, key: str, make: Callable[[], Target]) -> Target:
        """A server that only some rows need; started when it is first asked for."""
        if key not in self._targets:
            target = make()
            target.server.start()
            self.stack.callback(target.server.stop)
            self._targets[key] = target
        return self._targets[key]

    def rest(self) -> None:
        """Until the registries with the content have nothing to do, and all is on disk."""
        self.stage.registry.settle()
        self.stage.upstream.server.settle()
        os.sync()


Measure = Callable[[Lab, str, int], Measured]
"""Of the server with this name, in this round; round 0 is the warm-up and is thrown away."""


@frozen
class Row:
    name: str
    title: str
    measure: Measure
    goals: tuple[Goal, ...]
    servers: tuple[str, ...] = MIRRORS
    scheme: str = "http"
    once: bool = False
    """One round, without a warm-up."""


def called(scheme: str) -> str:
    """In titles."""
    return "plain HTTP" if scheme == "http" else "HTTPS"

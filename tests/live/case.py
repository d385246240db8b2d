"""What the live tests of one run share: one bed, one set of certificates, one docxy of each kind.

Making them anew for each test would take longer than the tests.  The law: they start when a
test first asks, and are gone when the tests' process ends, however it ends.
"""

from __future__ import annotations

import atexit
import functools
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.harness.certificates import Files, server_files
from tests.harness.processes import Reactor, free_port, scratch_directory
from tests.live.bed import SERVICE, Bed
from tests.live.clients import Containerd, Docker, Make, Podman, Skopeo
from tests.live.daemon import Docxy
from tests.live.fronts import challenging
from tests.live.machine import ALIAS, HOSTNAME, Machine, Target
from tests.live.requirements import require

T = TypeVar("T")


class Shared:
    """Everything that outlives a test."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._made: dict[object, object] = {}
        self.directory = scratch_directory()
        self._open.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def close(self) -> None:
        """Stop and remove everything."""
        self._open.close()

    @property
    def bed(self) -> Bed:
        """The private Docker Hub, running."""
        return self.once("bed", lambda: self.running(Bed(self.new_directory("bed"))))

    @property
    def certificate(self) -> Files:
        """For docxy."""
        names = (HOSTNAME, ALIAS, "127.0.0.1")
        return self.once("certificate", lambda: server_files(self.new_directory("certificate"), names))

    def docxy(self, auth: str, tls: bool) -> Docxy:
        """A docxy in front of the bed, running, with a cache."""
        return self.once((auth, tls), lambda: self.running(self.new_docxy(auth, tls)))

    def new_docxy(
        self,
        auth: str,
        tls: bool,
        *,
        cache: bool | Path = True,
        options: tuple[str, ...] = (),
        url: str | None = None,
        tables: str = "",
        tmpfs: int = 0,
    ) -> Docxy:
        """A docxy of one's own in front of the bed, to be started and stopped by whoever asked.

        `url`: of what takes Docker Hub's place instead; the rest: see Docxy.
        """
        return Docxy(
            self.new_directory("docxy"),
            url or self.bed.url,
            auth,
            self.certificate if tls else None,
            cache,
            options,
            upstreams=tables,
            tmpfs=tmpfs,
        )

    def new_directory(self, name: str) -> Path:
        """An empty directory."""
        number = len(list(self.directory.iterdir()))
        directory = self.directory / f"{name}-{number}"
        directory.mkdir()
        return directory

    def running(self, part: AbstractContextManager[T]) -> T:
        """Start something; it stops when the tests end."""
        return self._open.enter_context(part)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What this key means, made when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return cast(T, self._made[key])


@functools.cache
def shared() -> Shared:
    """The one of this process."""
    made = Shared()
    atexit.register(made.close)
    return made


class LiveTestCase(TestCase):
    """A test against real daemons; skipped, or in CI failed, where one is missing."""

    timeout = 300

    def setUp(self) -> None:
        """Have everything the test may ask for."""
        require()
        self.shared = shared()
        self.bed = self.shared.bed
        self.reactor = cast(Reactor, reactor)

    def machine(self, target: Target) -> Machine:
        """A machine for this test only, its clients pointed at `target`."""
        machine = Machine(self.shared.new_directory("m"), target)
        self.addCleanup(machine.remove)
        return machine

    def challenging(self, registry: int) -> int:
        """Port of an nginx in front of a registry's, which wants a token of the bed's token service."""
        port = free_port()
        front = challenging(self.shared.new_directory("challenging"), port, registry, self.bed.realm, SERVICE)
        self.addCleanup(front.stop)
        front.start()
        return port


class DebianClients:
    """A mix-in: `check` is made with each of Debian's clients."""

    async def check(self, make: Make) -> None:
        """What a test shows with one kind of client."""
        raise NotImplementedError

    def test_docker(self) -> Deferred[None]:
        """Debian's dockerd and its `docker`."""
        return Deferred.fromCoroutine(self.check(Docker))

    def test_containerd(self) -> Deferred[None]:
        """Debian's containerd and its `ctr`."""
        return Deferred.fromCoroutine(self.check(Containerd))

    def test_podman(self) -> Deferred[None]:
        """Debian's podman."""
        return Deferred.fromCoroutine(self.check(Podman))

    def test_skopeo(self) -> Deferred[None]:
        """Debian's skopeo."""
        return Deferred.fromCoroutine(self.check(Skopeo))

"""Policy over time with real clients: a cooldown that lets pulls go on, and images as they were on a day.

Days pass for docxy alone, by a library that steps its time of day.
"""

from __future__ import annotations

import time
import unittest
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.harness.processes import CommandFailed, which
from tests.live.case import LiveTestCase
from tests.live.clients import Client, Containerd, Docker, Podman
from tests.live.daemon import Docxy
from tests.live.images import DOCKER, OCI, Builder, Image
from tests.live.machine import DOCKER_HUB, HOSTNAME
from tests.torture.shim import Shim, compiler

REPOSITORY = "library/dated"
WEEKLY = "library/daily"
DAY = 86400
YOUNG = "(?i)denied|forbidden|403"


class OverTimeTests(LiveTestCase):
    """A tag that moved, behind a docxy whose images must be three days old."""

    def setUp(self) -> None:
        """The tag is at its first image, which docxy has known for ten days; then it moves."""
        super().setUp()
        if compiler() is None:
            raise unittest.SkipTest("this needs a C compiler, which tests/live/setup.sh installs")
        busybox = which("busybox")
        assert busybox is not None
        self.builder = Builder(self.shared.new_directory("dated"), Path(busybox))
        self.old, self.new = self.builder.single(REPOSITORY, DOCKER), self.builder.index(REPOSITORY, OCI)
        self.bed.push(self.old)
        directory = self.shared.new_directory("docxy")
        self.clock = Shim(self.shared.new_directory("shim"), directory / "cache", 0)
        self.addCleanup(self.clock.close)
        self.days = 0
        self.docxy = Docxy(
            directory,
            self.bed.url,
            "none",
            options=("--tag-ttl=0",),
            environ=self.clock.environ,
            upstreams='min_age = "3d"\non_new = "deny"\n',
        )
        self.addCleanup(self.docxy.stop)
        self.docxy.start()
        self.resolve()
        self.later(10)
        self.bed.push(self.new)

    def resolve(self) -> None:
        """docxy looks where the tag leads."""
        connection = self.docxy.connect()
        connection.request("HEAD", f"/v2/{REPOSITORY}/manifests/latest")
        connection.getresponse().read()
        connection.close()

    def later(self, days: int) -> None:
        """So many days pass for docxy."""
        self.days += days
        self.clock.step(self.days * DAY)

    def clients(self) -> list[Client]:
        machine = self.machine(self.docxy.target)
        found: list[Client] = [make(machine, self.reactor) for make in (Docker, Containerd, Podman)]
        for client in found:
            self.addCleanup(client.stop)
            client.start()
        self.names, self.hosts = machine.directory / "hosts", machine.hosts_dir / DOCKER_HUB / "hosts.toml"
        return found

    def docker(self) -> Docker:
        docker = Docker(self.machine(self.docxy.target), self.reactor)
        self.addCleanup(docker.stop)
        docker.start()
        return docker

    async def got(self, client: Client, image: Image, host: str = "", reference: str = "latest") -> None:
        """The client pulls this image, whole."""
        wrong = await client.pull(image, reference, host or self.docxy.target.host)
        self.assertEqual(wrong, set(), f"{client.name}, {host}")

    def test_cooldown(self) -> Deferred[None]:
        """Every client gets the old image while the new one is young, and cannot have that by its digest; then it."""
        return Deferred.fromCoroutine(self.cooldown())

    async def cooldown(self) -> None:
        clients = self.clients()
        for client in clients:
            await self.got(client, self.old)
            with self.assertRaises(CommandFailed) as refused:
                await client.pull(self.new, self.new.digest, self.docxy.target.host)
            self.assertRegex(str(refused.exception), YOUNG)
        # First sights outlive docxy.
        self.docxy.stop()
        self.docxy.start()
        await self.got(clients[0], self.old)
        self.later(4)
        for client in clients:
            await self.got(client, self.new)
            await self.got(client, self.new, reference=self.new.digest)

    def test_week(self) -> Deferred[None]:
        """A tag moves each day for a week: docker gets the image of three days ago each day, refused before that."""
        return Deferred.fromCoroutine(self.week())

    async def week(self) -> None:
        docker = self.docker()
        daily = [evolve(self.builder.single(f"library/day-{day}", OCI), repository=WEEKLY) for day in range(8)]
        for day, image in enumerate(daily):
            self.bed.push(image)
            if day < 3:
                with self.assertRaises(CommandFailed) as refused:
                    await docker.pull(image, "latest", self.docxy.target.host)
                self.assertRegex(str(refused.exception), YOUNG)
            else:
                await self.got(docker, daily[day - 3])
            self.later(1)

    def test_as_of(self) -> Deferred[None]:
        """Every client gets what the tag was, by a prefix of its name; containerd by each form of its hosts.toml."""
        return Deferred.fromCoroutine(self.as_of())

    async def as_of(self) -> None:
        self.resolve()
        self.later(6)
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 6 * DAY))
        then = f"{self.docxy.target.host}/as-of/{day}"
        clients = self.clients()
        for client in clients:
            await self.got(client, self.old, host=then)
            await self.got(client, self.new)
        name = f"as-of-{day}.{HOSTNAME}"
        with self.names.open("a") as names:
            names.write(f"127.0.0.1 {name}\n")
        for line in (
            f'[host."http://{name}:{self.docxy.port}"]\ncapabilities = ["pull", "resolve"]\n',
            f'[host."http://{then}"]\ncapabilities = ["pull", "resolve"]\n',
            f'[host."http://{self.docxy.target.host}/v2/as-of/{day}/docker.io"]\n'
            'capabilities = ["pull", "resolve"]\noverride_path = true\n',
        ):
            self.hosts.write_text(line)
            await self.got(clients[1], self.old, host=DOCKER_HUB)

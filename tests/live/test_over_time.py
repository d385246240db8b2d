"""Policy over time with real clients: a cooldown that lets pulls go on, and images as they were on a day.

The passing of days is written into the stopped docxy's catalog: what it saw, it saw so much earlier.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from twisted.internet.defer import Deferred

from tests.harness.processes import CommandFailed, which
from tests.live.case import LiveTestCase
from tests.live.clients import Client, Containerd, Docker, Podman
from tests.live.daemon import Docxy
from tests.live.images import DOCKER, OCI, Builder, Image
from tests.live.machine import DOCKER_HUB

REPOSITORY = "library/dated"
DAY = 86400.0


class OverTimeTests(LiveTestCase):
    """A tag that moved, behind a docxy whose images must be three days old."""

    def setUp(self) -> None:
        """The tag is at its first image, which docxy has known for ten days; then it moves."""
        super().setUp()
        busybox = which("busybox")
        assert busybox is not None
        builder = Builder(self.shared.new_directory("dated"), Path(busybox))
        self.old, self.new = builder.single(REPOSITORY, DOCKER), builder.index(REPOSITORY, OCI)
        self.bed.push(self.old)
        self.docxy = Docxy(
            self.shared.new_directory("docxy"),
            self.bed.url,
            "none",
            options=("--tag-ttl=0",),
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

    def later(self, days: float) -> None:
        """So many days pass."""
        self.docxy.stop()
        assert self.docxy.cache_directory is not None
        catalog = sqlite3.connect(self.docxy.cache_directory / "catalog.sqlite")
        with catalog:
            catalog.execute("UPDATE sightings SET first = first - ?", (days * DAY,))
            catalog.execute("UPDATE history SET at = at - ?", (days * DAY,))
        catalog.close()
        self.docxy.start()

    def clients(self) -> list[Client]:
        machine = self.machine(self.docxy.target)
        found: list[Client] = [make(machine, self.reactor) for make in (Docker, Containerd, Podman)]
        for client in found:
            self.addCleanup(client.stop)
            client.start()
        self.hosts = machine.hosts_dir / DOCKER_HUB / "hosts.toml"
        return found

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
            self.assertRegex(str(refused.exception), "(?i)denied|forbidden|403")
        self.later(4)
        for client in clients:
            await self.got(client, self.new)
            await self.got(client, self.new, reference=self.new.digest)

    def test_as_of(self) -> Deferred[None]:
        """Every client gets what the tag was, by a prefix of its name; containerd by both forms of its hosts.toml."""
        return Deferred.fromCoroutine(self.as_of())

    async def as_of(self) -> None:
        self.resolve()
        self.later(6)
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 10 * DAY))
        then = f"{self.docxy.target.host}/as-of/{day}"
        clients = self.clients()
        for client in clients:
            await self.got(client, self.old, host=then)
            await self.got(client, self.new)
        for line in (
            f'[host."http://{then}"]\ncapabilities = ["pull", "resolve"]\n',
            f'[host."http://{self.docxy.target.host}/v2/as-of/{day}/docker.io"]\n'
            'capabilities = ["pull", "resolve"]\noverride_path = true\n',
        ):
            self.hosts.write_text(line)
            await self.got(clients[1], self.old, host=DOCKER_HUB)

"""Accounts and rules of docxy's own, with real clients."""

from __future__ import annotations

import bcrypt
from twisted.internet.defer import Deferred

from tests.live.case import LiveTestCase
from tests.live.clients import Client, Containerd, Docker, Podman, Skopeo
from tests.live.daemon import Docxy
from tests.live.processes import CommandFailed
from tests.live.test_clients import Make

USER, PASSWORD = "bob", "tr0ub4dor&3"
REFUSED = r"(?i)denied|unauthorized|authorization failed|403 Forbidden|401"
"""What the clients say of a registry that does not let them in."""


class GateTests(LiveTestCase):
    """One account, whose group may pull `library/` and nothing else."""

    def setUp(self) -> None:
        """A docxy with this account."""
        super().setUp()
        directory = self.shared.new_directory("docxy")
        file = directory / "htpasswd"
        file.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()}\n")
        table = f'''
[access]
htpasswd = "{file}"
[access.groups]
devs = ["{USER}"]
[[access.rules]]
groups = ["devs"]
repositories = ["docker.io/library/*"]
'''
        self.docxy = Docxy(directory, self.bed.url, "none", self.shared.certificate, upstreams=table)
        self.docxy.start()
        self.addCleanup(self.docxy.stop)
        self.host = self.docxy.target.host
        self.image = self.bed.images["library/small"]

    async def refused(self, client: Client, name: str = "library/small") -> None:
        """The image can't be pulled, and the client says that it may not."""
        try:
            await client.pull(self.bed.images[name], "latest", self.host)
        except CommandFailed as failed:
            self.assertRegex(str(failed), REFUSED)
        else:
            self.fail(f"{client.name} pulled {name}")

    async def check(self, make: Make) -> None:
        """Strangers and wrong passwords get nothing; the account gets what its rule says, until it logs out."""
        client = make(self.machine(self.docxy.target), self.reactor)
        self.addCleanup(client.stop)
        client.start()
        await self.refused(client)
        try:
            await client.login(self.host, USER, "wrong-horse")
        except CommandFailed as failed:
            self.assertRegex(str(failed), r"(?i)incorrect|unauthorized|denied|invalid username")
        else:
            await self.refused(client)
        await client.login(self.host, USER, PASSWORD)
        for reference in (self.image.digest, "latest"):
            self.assertEqual(await client.pull(self.image, reference, self.host), set())
        image = self.bed.images["library/multi"]
        self.assertEqual(await client.pull(image, "latest", self.host), set())
        await self.refused(client, "team/app")
        await client.logout(self.host)
        await self.refused(client)
        log = self.docxy.daemon.text()
        self.assertRegex(log, rf"refused user '{USER}' at 127.0.0.1: token: 401 ")
        self.assertRegex(log, rf"refused user '{USER}' at 127.0.0.1: pull docker.io/team/app: 403 ")
        for secret in (PASSWORD, "wrong-horse", "eyJ"):
            self.assertNotIn(secret, log)

    def test_docker(self) -> Deferred[None]:
        """`docker login`, `docker pull`, `docker logout`."""
        return Deferred.fromCoroutine(self.check(Docker))

    def test_containerd(self) -> Deferred[None]:
        """`ctr images pull --user`."""
        return Deferred.fromCoroutine(self.check(Containerd))

    def test_podman(self) -> Deferred[None]:
        """`podman login`, `podman pull`, `podman logout`."""
        return Deferred.fromCoroutine(self.check(Podman))

    def test_skopeo(self) -> Deferred[None]:
        """`skopeo login`, `skopeo copy`, `skopeo logout`."""
        return Deferred.fromCoroutine(self.check(Skopeo))

"""Accounts of docxy's own: who has one logs in with a real client, and pulls what the rules say."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import bcrypt
from twisted.internet.defer import Deferred

from tests.harness.processes import CommandFailed, until
from tests.live.bed import PASSWORD, USER
from tests.live.case import DebianClients
from tests.live.clients import Client, Docker, Make
from tests.live.daemon import Docxy
from tests.live.logins import LoginTestCase

ACCOUNTS = {"anna": "glass-mountain-seven", "ben": "paper-boat-eleven"}
FOR_ALL, TEAM, PRIVATE = "library/small", "team/app", "alice/private"
RULES = """
[[access.rules]]
groups = ["everyone"]
repositories = ["docker.io/library/*"]

[[access.rules]]
groups = ["devs"]
repositories = ["docker.io/team/**"]

[[access.rules]]
users = ["anna"]
repositories = ["docker.io/alice/*"]

[access.groups]
devs = ["anna"]
"""
REFUSED = r"(?i)denied|unauthorized|authentication required|authorization failed|forbidden|incorrect|invalid username"
"""What the clients say of a registry that does not let them in."""


class GateTests(DebianClients, LoginTestCase):
    """A docxy with accounts, which has an account of its own at the bed's Docker Hub."""

    def setUp(self) -> None:
        """It runs until the test ends."""
        super().setUp()
        self.htpasswd = self.shared.new_directory("accounts") / "htpasswd"
        write(self.htpasswd, ACCOUNTS)
        self.docxy = Docxy(
            self.shared.new_directory("docxy"),
            self.bed.url,
            "none",
            self.shared.certificate,
            environ={"HUB_PASSWORD": PASSWORD},
            upstreams=f'username = "{USER}"\npassword_env = "HUB_PASSWORD"\n'
            f'[access]\nhtpasswd = "{self.htpasswd}"\n{RULES}',
        )
        self.addCleanup(self.docxy.stop)
        self.docxy.start()
        self.host = self.docxy.target.host

    async def pulled(self, client: Client, *repositories: str) -> None:
        """These can be had, whole."""
        for repository in repositories:
            wrong = await client.pull(self.bed.images[repository], "latest", self.host)
            self.assertEqual(wrong, set(), f"{client.name} {repository}")

    async def refused(self, client: Client, *repositories: str) -> None:
        """These can't, and the client says that it may not, by tag and by digest."""
        for repository in repositories:
            image = self.bed.images[repository]
            for reference in ("latest", image.digest):
                try:
                    await client.pull(image, reference, self.host)
                except CommandFailed as failed:
                    self.assertRegex(str(failed), REFUSED)
                else:
                    self.fail(f"{client.name} pulled {repository} {reference}")

    async def wrong_password(self, client: Client, user: str) -> None:
        """Refused at login, or where that is not asked for, at the pull."""
        try:
            await client.login(self.host, user, "wrong-horse")
        except CommandFailed as failed:
            self.assertRegex(str(failed), REFUSED)
        else:
            await self.refused(client, FOR_ALL)
            await client.logout(self.host)

    async def check(self, make: Make) -> None:
        """Nobody without an account; each account what its rules say; the upstream sees docxy's account only."""
        client = self.client(make)
        with self.bed.watch_tokens() as tokens:
            await self.refused(client, FOR_ALL)
            await self.wrong_password(client, "anna")
            await client.login(self.host, "anna", ACCOUNTS["anna"])
            await self.pulled(client, FOR_ALL, TEAM, PRIVATE)
            await client.logout(self.host)
            # All is in the cache now, and in dockerd's own store.
            await self.refused(client, FOR_ALL)
            await client.login(self.host, "ben", ACCOUNTS["ben"])
            await self.pulled(client, FOR_ALL)
            await self.refused(client, TEAM, PRIVATE)
            await client.logout(self.host)
            self.assertEqual({request.account for request in tokens.requests()}, {USER})
        self.assert_told()

    def assert_told(self) -> None:
        """The log has who was refused what, and no password in any form."""
        log = self.docxy.daemon.text()
        self.assertRegex(log, rf"ben.*docker\.io/{TEAM}|docker\.io/{TEAM}.*ben")
        self.assert_no_secrets(*ACCOUNTS.items(), (USER, PASSWORD), ("anna", "wrong-horse"))

    def test_account_changes(self) -> Deferred[None]:
        """A new password and a removed account hold while docxy runs: who was logged in is out."""

        async def check() -> None:
            client = self.client(Docker)
            await client.login(self.host, "ben", ACCOUNTS["ben"])
            await self.pulled(client, FOR_ALL)
            write(self.htpasswd, {"ben": "another-one-now"})
            # Each worker looks at the file for itself, and which of them answers is chance.
            until(lambda: {self.status("ben", "another-one-now") for _ in range(20)} == {200})
            await self.refused(client, FOR_ALL)
            self.assertEqual(self.status("anna", ACCOUNTS["anna"]), 401)
            await client.login(self.host, "ben", "another-one-now")
            await self.pulled(client, FOR_ALL)

        return Deferred.fromCoroutine(check())

    def status(self, user: str, password: str) -> int:
        """Of a ping with Basic."""
        connection = self.docxy.connect()
        try:
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            connection.request("GET", "/v2/", headers={"Authorization": f"Basic {pair}", "Host": self.host})
            return connection.getresponse().status
        finally:
            connection.close()


def write(path: Path, accounts: Mapping[str, str]) -> None:
    """An htpasswd file, put in place at once; the cheapest bcrypt there is."""
    lines = [f"{user}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}\n" for user, word in accounts.items()]
    new = path.with_suffix(".new")
    new.write_text("".join(lines))
    new.rename(path)

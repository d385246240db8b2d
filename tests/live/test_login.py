"""Accounts of the upstream work through docxy, and their secrets stay with whom they are meant for."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred

from tests.harness.processes import CommandFailed
from tests.live.bed import PASSWORD, USER
from tests.live.case import DebianClients, LiveTestCase
from tests.live.clients import Client, Docker, Make, Skopeo
from tests.live.logins import LoginTestCase

PRIVATE = "alice/private"
SECRETS = ((USER, PASSWORD), (USER, "wrong-horse"))
REFUSED = r"(?i)denied|unauthorized|authorization failed|403 Forbidden"
"""What the clients say of a registry that does not let them in."""


class LoginTests(DebianClients, LoginTestCase):
    """In transparent mode a client's own account decides."""

    def setUp(self) -> None:
        """A docxy of the mode."""
        super().setUp()
        self.docxy = self.shared.docxy("transparent", True)
        self.host = self.docxy.target.host
        self.image = self.bed.images[PRIVATE]

    async def refused(self, client: Client) -> None:
        """The private image can't be pulled, and the client says that it may not."""
        try:
            await client.pull(self.image, "latest", self.host)
        except CommandFailed as failed:
            self.assertRegex(str(failed), REFUSED)
        else:
            self.fail(f"{client.name} pulled {PRIVATE}")

    async def check(self, make: Make) -> None:
        """Strangers and wrong passwords are refused, the account gets its image until it logs out."""
        client = self.client(make)
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
        await client.logout(self.host)
        await self.refused(client)
        self.assert_no_secrets(*SECRETS)

    def test_docker_identity_token(self) -> Deferred[None]:
        """After `docker login`, which asks for a refresh token, dockerd POSTs that, and it is not logged."""

        async def check() -> None:
            client = self.client(Docker)
            await client.login(self.host, USER, PASSWORD)
            assert isinstance(client, Docker)
            config = client.machine.directory / "home" / ".docker" / "config.json"
            kept = json.loads(config.read_text())["auths"][self.host]["identitytoken"]
            with self.bed.watch_tokens() as tokens:
                self.assertEqual(await client.pull(self.image, "latest", self.host), set())
                self.assertEqual({request.account for request in tokens.requests("POST")}, {USER})
            self.assertNotIn(kept, self.docxy.daemon.text())

        return Deferred.fromCoroutine(check())

    def test_private_layer_by_digest(self) -> Deferred[None]:
        """Knowing the digest of a private layer is no way to it, under any name, though docxy has its bytes."""

        async def check() -> None:
            client = self.client(Skopeo)
            await client.login(self.host, USER, PASSWORD)
            self.assertEqual(await client.pull(self.image, "latest", self.host), set())
            digest, _ = self.image.layers[1]
            for repository in (PRIVATE, "library/small"):
                status = self.ask_anonymously(repository, digest)
                self.assertIn(status, (401, 403, 404), f"{repository}: {status}")

        return Deferred.fromCoroutine(check())

    def ask_anonymously(self, repository: str, digest: str) -> int:
        """Status of a blob, asked with what docxy's token endpoint gives to anyone."""
        connection = self.docxy.connect()
        try:
            connection.request("GET", f"/auth/token?service=s&scope=repository:{repository}:pull")
            response = connection.getresponse()
            self.assertEqual(response.status, 200)
            token = json.loads(response.read())["token"]
            headers = {"Authorization": f"Bearer {token}"}
            connection.request("GET", f"/v2/{repository}/blobs/{digest}", headers=headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()


class NoAuthTests(LiveTestCase):
    """With `--auth none` docxy reads what anyone may read."""

    def test_private_is_refused(self) -> Deferred[None]:
        """A private image can't be had, by no client's password either."""

        async def check() -> None:
            docxy = self.shared.docxy("none", True)
            client = Skopeo(self.machine(docxy.target), self.reactor)
            image = self.bed.images[PRIVATE]
            for log_in in (False, True):
                if log_in:
                    await client.login(docxy.target.host, USER, PASSWORD)
                try:
                    await client.pull(image, "latest", docxy.target.host)
                except CommandFailed as failed:
                    self.assertRegex(str(failed), f"{REFUSED}|is private")
                else:
                    self.fail(f"pulled {PRIVATE}")
            self.assertNotIn(PASSWORD, docxy.daemon.text())

        return Deferred.fromCoroutine(check())

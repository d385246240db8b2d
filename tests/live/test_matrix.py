"""Every client that keeps images, in every way to say who may pull: cold, warm, and with the registry off.

The command line tools of today go the same way in test_today.py.
"""

from __future__ import annotations

import bcrypt
from twisted.internet.defer import Deferred

from tests.live.case import DebianClients, LiveTestCase
from tests.live.clients import Make
from tests.live.clients_today import BuildKit, Containerd2, Docker2
from tests.live.images import ESTARGZ
from tests.live.test_today import ACCOUNT

MULTI = "library/multi"


class NoneTests(DebianClients, LiveTestCase):
    """Nobody is asked for anything."""

    auth = "none"
    account: tuple[str, str] | None = None
    """Of docxy's own, which it then wants."""

    async def check(self, make: Make) -> None:
        """Pull all three times, by a client that keeps nothing from the time before."""
        tables = ""
        if self.account is not None:
            user, password = self.account
            htpasswd = self.shared.new_directory("accounts") / "htpasswd"
            htpasswd.write_text(f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n")
            tables = f'[access]\nhtpasswd = "{htpasswd}"\n'
        docxy = self.shared.new_docxy(self.auth, True, tables=tables)
        self.addCleanup(docxy.stop)
        docxy.start()
        host = docxy.target.host
        client = make(self.machine(docxy.target), self.reactor)
        self.addCleanup(client.stop)

        async def pull(when: str) -> None:
            client.start()
            try:
                if self.account is not None:
                    await client.login(host, *self.account)
                # By digest too: dockerd always asks what a tag means.
                for repository, by_tag in ((MULTI, True), (MULTI, False), (ESTARGZ, True)):
                    image = self.bed.images[repository]
                    reference = "latest" if by_tag else image.digest
                    wrong = await client.pull(image, reference, host)
                    self.assertEqual(wrong, set(), f"{client.name}, {repository} {reference}, {when}")
            finally:
                client.stop()

        await pull("cold")
        await pull("warm")
        with self.bed.off():
            await pull("with the registry off")
        self.assertNotIn("Traceback", docxy.daemon.text())

    def test_containerd2(self) -> Deferred[None]:
        """containerd 2, each layer in ranges at once."""
        return Deferred.fromCoroutine(self.check(Containerd2))

    def test_docker2(self) -> Deferred[None]:
        """dockerd 2 with the containerd image store."""
        return Deferred.fromCoroutine(self.check(Docker2))

    def test_buildkit(self) -> Deferred[None]:
        """BuildKit, which builds on what it pulls."""
        return Deferred.fromCoroutine(self.check(BuildKit))


class TransparentTests(NoneTests):
    """Clients get their tokens through docxy."""

    auth = "transparent"


class AccessTests(NoneTests):
    """Clients log in to an account of docxy's own."""

    account = ACCOUNT

"""Every client that keeps images, in every way to say who may pull: cold, warm, and with the registry off.

The command line tools of today go the same way in test_today.py.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.live.case import DebianClients, LiveTestCase
from tests.live.clients import Docker, Make
from tests.live.clients_today import BuildKit, Containerd2, Docker2
from tests.live.images import ESTARGZ, Image
from tests.live.logins import ACCOUNT, account_table
from tests.live.stores import ATTESTED, LAYERS, ZSTD

MULTI = "library/multi"


class NoneTests(DebianClients, LiveTestCase):
    """Nobody is asked for anything."""

    auth = "none"
    account: tuple[str, str] | None = None
    """Of docxy's own, which it then wants."""

    def setUp(self) -> None:
        """The bed, with more images: an attestation for each platform, 60 layers, zstd."""
        super().setUp()
        self.more = self.shared.once("more images", self._more)

    def _more(self) -> list[Image]:
        build = self.bed.builder
        images = [build.attested(ATTESTED), build.layered(LAYERS, 60), build.zstd(ZSTD)]
        for image in images:
            self.bed.push(image)
        return images

    async def check(self, make: Make) -> None:
        """Pull all three times, by a client that keeps nothing from the time before."""
        tables = "" if self.account is None else account_table(self.shared.new_directory("accounts"))
        docxy = self.shared.new_docxy(self.auth, True, tables=tables)
        self.addCleanup(docxy.stop)
        docxy.start()
        host = docxy.target.host
        client = make(self.machine(docxy.target), self.reactor)
        self.addCleanup(client.stop)

        # Debian's dockerd knows no zstd.
        more = [image for image in self.more if make is not Docker or image.repository != ZSTD]

        async def pull(when: str) -> None:
            client.start()
            try:
                if self.account is not None:
                    await client.login(host, *self.account)
                # By digest first: dockerd keeps manifests, but always asks what a tag means.
                multi = self.bed.images[MULTI]
                images = [multi, self.bed.images[ESTARGZ], *([] if when == "warm" else more)]
                for image, reference in [(multi, multi.digest), *((image, "latest") for image in images)]:
                    wrong = await client.pull(image, reference, host)
                    self.assertEqual(wrong, set(), f"{client.name}, {image.repository} {reference}, {when}")
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

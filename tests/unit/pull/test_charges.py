"""Who pays for what: each counted request to a registry is charged once, to the account that spent it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults

from docxy.names import OCI_INDEX
from docxy.settings.model import AuthMode
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import REPOSITORY, Mirror, MirrorCase
from tests.unit.pull.test_quota import ANN, BOB, PASSWORDS, QuotaCase, client


async def spent(mirror: Mirror) -> dict[tuple[str, str], int]:
    """Charges to the first upstream since the last time, by account and repository."""
    mirror.served.recorder.flush()
    snapshot = await mirror.served.view.snapshot()
    return {(who["account"], who["repository"]): who["count"] for who in snapshot["upstreams"][0]["spenders"]}


class OwnAccounts(QuotaCase):
    """docxy pays."""

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts=PASSWORDS)
        self.digest = self.upstream.add_image(REPOSITORY, "one")

    async def test_once(self) -> None:
        """The first GET costs one, its challenge nothing; HEAD, layers and what is cached cost nothing."""
        docxy = self.hub(ANN)
        layer = self.upstream.add_blob(REPOSITORY, b"bytes")
        await docxy.manifest("one", method="HEAD")
        await docxy.blob(layer)
        self.assertEqual(await spent(docxy), {})
        for _ in range(3):
            self.assertEqual((await docxy.manifest("one")).status, 200)
        self.seconds.advance(120)
        self.assertEqual((await docxy.manifest("one")).status, 200)
        self.assertEqual(await spent(docxy), {("ann", REPOSITORY): 1})

    async def test_at_once(self) -> None:
        """Five clients who share one request are charged one."""
        docxy = self.hub(ANN)
        await gatherResults([client(docxy, "one", REPOSITORY) for _ in range(5)])
        self.assertEqual(await spent(docxy), {("ann", REPOSITORY): 1})

    async def test_retried(self) -> None:
        """A request that is asked again because it failed is charged again."""
        docxy = self.hub(ANN)
        self.upstream.on("manifest", Fault(status=500), method="GET")
        self.assertEqual((await docxy.manifest("one")).status, 200)
        self.assertEqual(await spent(docxy), {("ann", REPOSITORY): 2})

    async def test_next_account(self) -> None:
        """A 429 costs nothing: the account that was let in pays."""
        docxy = self.hub(ANN, BOB)
        self.upstream.on("manifest", Fault.too_many_requests("30"), method="GET")
        self.assertEqual((await docxy.manifest("one")).status, 200)
        (paid,) = self.accounts("manifest")
        self.assertEqual(await spent(docxy), {(paid, REPOSITORY): 1})

    async def test_referrers(self) -> None:
        """Where the fallback tag of a registry without referrers is fetched, that is a manifest too."""
        self.upstream.referrers = False
        docxy = self.hub(ANN)
        answer = await docxy.ask(f"/v2/{REPOSITORY}/referrers/{self.digest}")
        self.assertEqual((answer.status, answer.header("Content-Type")), (200, OCI_INDEX))
        self.assertEqual(await spent(docxy), {("ann", REPOSITORY): 1})


class ClientsAccounts(MirrorCase):
    """Clients pay."""

    auth = AuthMode.TRANSPARENT

    async def test_tokens(self) -> None:
        """A client that has logged in is called by a digest of its token, which is not the token; others share ''."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.auth = Auth("bearer", accounts=PASSWORDS)
        token: Any = (await self.mirror.token()).json["token"]
        self.assertEqual((await self.mirror.manifest("latest")).status, 401)
        self.assertEqual((await self.mirror.manifest("latest", token)).status, 200)
        charges = await spent(self.mirror)
        self.assertEqual(list(charges.values()), [1])
        ((account, _),) = charges
        self.assertRegex(account, r"^token [0-9a-f]{12}$")
        self.assertNotIn(account.removeprefix("token "), token)
        (pull,) = (await self.mirror.served.view.snapshot())["pulls"]
        self.assertEqual((pull["account"], pull["answers"]), (account, 2))

"""How docxy gets past a challenge with tokens of its own."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any, cast

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from docxy.broadcast import Broadcast, to_nobody
from docxy.errors import Denied
from docxy.upstream.authorize import Account, OwnAuthorizer
from docxy.upstream.quota import Quota
from docxy.upstream.tokens import OwnTokens
from tests.unit.upstream.test_tokens import ACCESS, REALM, Case


@frozen(eq=False)
class Got:
    """An answer; a 401 has a challenge, the same at every endpoint."""

    status: int
    source: str = ACCESS.endpoint
    redirected: bool = False

    def header(self, name: str) -> None:
        return None

    def header_values(self, name: str) -> list[str]:
        return [f'Bearer realm="{REALM}",service="s",scope="{ACCESS.scope}"']

    async def drain(self) -> None:
        return


class OwnTests(Case):
    """`OwnAuthorizer`."""

    def setUp(self) -> None:
        super().setUp()
        quota = Quota(self.clock.seconds, Broadcast(to_nobody), "q", lambda limit, remaining: None)
        self.own = OwnAuthorizer([Account(OwnTokens(self.service, self.clock), quota)], "docker.io")
        self.sent: list[str | None] = []

    def ask(self, endpoint: str, *taken: str) -> Deferred[Any]:
        """One request to an endpoint that takes these tokens."""

        async def send(authorization: str | None) -> Any:
            self.sent.append(authorization)
            return Got(200 if authorization in taken else 401)

        self.sent.clear()
        access = evolve(ACCESS, endpoint=endpoint)
        return Deferred.fromCoroutine(self.own.send(cast(Any, send), access, None))

    def test_other_endpoint(self) -> None:
        """A token that one endpoint took and another one refuses is replaced, once; one that is new is not."""
        self.successResultOf(self.ask(ACCESS.endpoint, "Bearer t1"))
        self.successResultOf(self.ask("https://other", "Bearer t2"))
        self.assertEqual(self.sent, [None, "Bearer t1", "Bearer t2"])
        self.failureResultOf(self.ask("https://third"), Denied)
        self.assertEqual(self.sent, [None, "Bearer t2", "Bearer t3"])
        self.assertEqual(self.granted, 3)

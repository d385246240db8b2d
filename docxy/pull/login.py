"""The ping and the token endpoint: how a client comes to be let in.

The law: in transparent mode the upstream decides; only a stranger, and only while the
upstream's token service does not answer, is given a pass of docxy's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Interface, implementer

from docxy.errors import TooManyRequests, Unauthorized, UpstreamError
from docxy.pull.access import credential_of
from docxy.pull.passes import LIFETIME, Passes
from docxy.storage.records import UpstreamCatalog
from docxy.upstream.authorize import ClientAuthorizer
from docxy.upstream.relay import TokenRelay
from docxy.upstream.remote import Remote
from docxy.upstream.tokens import relayed

_SECRETS = frozenset({"password", "refresh_token"})


class ILogin(Interface):
    """See the methods of the same name of `IPull`."""

    async def ping(authorization: str | None) -> None:
        """Raises Unauthorized with a challenge."""

    async def token(parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool) -> dict[str, object]:
        """The answer to a token request."""


def _now(clock: IReactorTime) -> str:
    return datetime.fromtimestamp(clock.seconds(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@implementer(ILogin)
@frozen
class NoLogin:
    """No-auth mode: nobody is asked for anything."""

    clock: IReactorTime

    async def ping(self, authorization: str | None) -> None:
        return

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        return relayed({"token": "", "access_token": "", "expires_in": 300}, _now(self.clock))


@frozen
class Strangers:
    """What is kept so that strangers can go on while the token service is down."""

    catalog: UpstreamCatalog
    passes: Passes

    def met(self, token: str, lifetime: float) -> None:
        """A stranger was just given this token, for `lifetime` seconds."""
        until = self.catalog.whole.seconds() + lifetime
        self.catalog.whole.stranger(credential_of(f"Bearer {token}"), until)

    def pass_for(self, parameters: Sequence[tuple[str, str]]) -> dict[str, object] | None:
        """A pass for what is asked and public, as a token service's answer; None when nothing is."""
        public = [name for name in _repositories(parameters) if self.passes.is_public(self.catalog, name)]
        if not public:
            return None
        token = self.passes.issue(public)
        return {"token": token, "access_token": token, "expires_in": LIFETIME}


@implementer(ILogin)
@frozen
class RelayedLogin:
    """Transparent mode."""

    _log = Logger()

    remote: Remote
    relay: TokenRelay
    authorizer: ClientAuthorizer
    clock: IReactorTime
    strangers: Strangers | None
    """None without a cache: there is nothing a pass could reach."""

    async def ping(self, authorization: str | None) -> None:
        reached = None if self.strangers is None else self.strangers.passes.read(authorization)
        if authorization is None or (reached is not None and not reached):
            asked = await self.relay.challenge()
            if asked:
                raise Unauthorized("authentication is required", headers=self.authorizer.headers(asked))
        elif reached is None:
            await self.remote.ping(authorization)

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        stranger = authorization is None and not any(name in _SECRETS for name, _ in parameters)
        try:
            answer = await self.relay.ask(parameters, authorization, post=post)
        except (UpstreamError, TooManyRequests) as error:
            passed = self.strangers.pass_for(parameters) if stranger and self.strangers is not None else None
            if passed is None:
                raise
            self._log.warn("a stranger gets a pass to what is cached: {error}", error=error)
            return relayed(passed, _now(self.clock))
        out = relayed(answer, _now(self.clock))
        if stranger and self.strangers is not None and out["token"]:
            self.strangers.met(str(out["token"]), float(str(out["expires_in"])))
        return out


def _repositories(parameters: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The repositories that the scopes of a token request want to pull from."""
    for name, value in parameters:
        if name != "scope":
            continue
        for scope in value.split():
            kind, _, rest = scope.partition(":")
            repository, _, actions = rest.rpartition(":")
            if kind == "repository" and "pull" in actions.split(","):
                yield repository

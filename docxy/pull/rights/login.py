"""The ping and the token endpoint: how a client comes to be let in.

The law: in transparent mode the upstream decides.  Only an anonymous client, and only while
the upstream's token service does not answer, gets a token of docxy's own.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Interface, implementer

from docxy.catalog.interfaces import ITokens, RelayedToken
from docxy.catalog.secret import Secret
from docxy.errors import TooManyRequests, Unauthorized, UpstreamError
from docxy.pull.rights.offline_tokens import LIFETIME, OfflineTokens
from docxy.upstream.authorize import ClientAuthorizer
from docxy.upstream.remote import Remote
from docxy.upstream.token_relay import TokenRelay
from docxy.upstream.tokens import relayed

MAX_REPOSITORIES = 16
"""Repositories of a token request that count here; clients ask for one, or for two where they copy."""


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
    """No-auth mode: docxy asks no client for credentials."""

    clock: IReactorTime

    async def ping(self, authorization: str | None) -> None:
        return

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        return relayed({"token": "", "access_token": "", "expires_in": 300}, _now(self.clock))


@frozen
class TokenMemory:
    """What is kept of token requests, so that clients can go on during an outage.

    While the registry is down, a fresh token stands for its owner's late verdicts (`verdicts`);
    while the token service is down too, an anonymous client gets an offline token.
    """

    tokens: ITokens
    secret: Secret
    offline_tokens: OfflineTokens
    seconds: Callable[[], float]
    """The time since the epoch."""

    def keep(self, token: str, account: str | None, parameters: Sequence[tuple[str, str]], lifetime: float) -> None:
        """The token service just gave this token to this account (`account_of`), for `lifetime` seconds."""
        repositories = frozenset(islice(_repositories(parameters), MAX_REPOSITORIES))
        known = RelayedToken(self.secret.credential(account), repositories)
        self.tokens.keep(self.secret.credential(f"Bearer {token}"), known, self.seconds() + lifetime)

    async def is_known(self, authorization: str) -> bool:
        """Whether this is a token that the token service gave through docxy, and that is good still."""
        return await self.tokens.get(self.secret.credential(authorization)) is not None

    async def offline_token(self, parameters: Sequence[tuple[str, str]]) -> dict[str, object] | None:
        """An offline token for the public repositories in a request, as a token service's answer.

        None when no repository in it is public.
        """
        wanted = islice(_repositories(parameters), MAX_REPOSITORIES)
        public = [name for name in wanted if await self.offline_tokens.is_public(name)]
        if not public:
            return None
        token = self.offline_tokens.issue(public)
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
    memory: TokenMemory | None
    """None without a cache: an offline token could reach nothing."""

    async def ping(self, authorization: str | None) -> None:
        reached = None if self.memory is None else self.memory.offline_tokens.read(authorization)
        if authorization is None or (reached is not None and not reached):
            asked = await self.relay.challenge()
            if asked:
                raise Unauthorized("authentication is required", headers=self.authorizer.headers(asked))
        elif reached is None:
            try:
                await self.remote.ping(authorization)
            except (UpstreamError, TooManyRequests):
                # The token service vouched for this token; what it reaches is decided for each repository.
                if self.memory is None or not await self.memory.is_known(authorization):
                    raise

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        account = account_of(parameters, authorization)
        try:
            answer = await self.relay.ask(parameters, authorization, post=post)
        except (UpstreamError, TooManyRequests) as error:
            offline = None
            if self.memory is not None and account is None:
                offline = await self.memory.offline_token(parameters)
            if offline is None:
                raise
            self._log.warn("an anonymous client gets a token for what is cached: {error}", error=error)
            return relayed(offline, _now(self.clock))
        out = relayed(answer, _now(self.clock))
        if self.memory is not None and out["token"]:
            # Its lifetime as the service says it: clients are given more where it is short.
            self.memory.keep(str(out["token"]), account, parameters, float(str(answer["expires_in"])))
        return out


def account_of(parameters: Sequence[tuple[str, str]], authorization: str | None) -> str | None:
    """What proves the account in a token request, as an Authorization; None when the client is anonymous.

    The secret too, not the name alone: one account may have several, of unequal rights.
    A password is the same in a form and in Basic.
    """
    form = dict(reversed(parameters))
    if authorization is not None:
        return authorization
    if "password" in form:
        pair = f"{form.get('username', '')}:{form['password']}".encode("utf-8", "surrogatepass")
        return f"Basic {b64encode(pair).decode('ascii')}"
    return f"refresh {form['refresh_token']}" if "refresh_token" in form else None


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

"""Who answers the upstream's challenge: the client (transparent) or docxy (none).

The law: a client's Authorization is either passed to the upstream as it is or not looked
at at all; docxy never acts in a client's name.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from urllib.parse import urljoin

from attrs import frozen
from twisted.logger import Logger
from zope.interface import Interface, implementer

from docxy.errors import (
    AccountRefused,
    BadRequest,
    Denied,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unsupported,
    UpstreamError,
)
from docxy.observe import trail
from docxy.upstream.api_url import ApiUrl
from docxy.upstream.challenge import Challenge, bearer, parse
from docxy.upstream.login import IAccountSecret
from docxy.upstream.question import Destination
from docxy.upstream.quota import Quota
from docxy.upstream.response import Response
from docxy.upstream.tokens import OwnTokens

Send = Callable[[str | None], Awaitable[Response]]
"""Sends one request with this Authorization (None: without)."""


COUNTED = "GET manifests"
"""The kind of request that registries count against a pull limit."""


def charging(send: Send, access: Destination, account: Account | None) -> Send:
    """The same, its counted requests charged to an account, None: the client's own.

    This is the one place that counts them: for the metrics (`Quota.spent`) and for the ledger
    (`docxy.observe.trail.ITrail.charge`).  A challenge and a refusal for the limit itself cost nothing; everything
    else does, as far as docxy knows.
    """
    if access.kind != COUNTED:
        return send

    async def charged(authorization: str | None) -> Response:
        response = await send(authorization)
        if response.status not in (401, 429):
            if account is not None:
                account.quota.charge()
            trail.charged(None if account is None else account.name)
        return response

    return charged


class IAuthorizer(Interface):
    """Gets a request past the upstream's challenge."""

    async def send(send: Send, access: Destination, authorization: str | None) -> Response:
        """The upstream's response, never a 401.

        `authorization` is the client's, or None where the endpoint may not know it.  Raises Unauthorized
        with a challenge when the client must answer it, Denied when nobody here can, UpstreamError.
        """


def challenges(response: Response) -> list[Challenge]:
    """What a 401 asks for; a realm that is relative is one of who answered."""
    return [_absolute(challenge, response) for challenge in parse(response.header_values("WWW-Authenticate"))]


def _absolute(challenge: Challenge, response: Response) -> Challenge:
    realm = challenge.parameters.get("realm", "")
    if challenge.scheme != "bearer" or not realm.startswith("/"):
        return challenge
    try:
        return Challenge("bearer", {**challenge.parameters, "realm": urljoin(response.source, realm)})
    except ValueError:
        return challenge


@implementer(IAuthorizer)
@frozen
class ClientAuthorizer:
    """Transparent mode: the client's Authorization goes up, the challenge comes down with our realm."""

    realm: str
    """Absolute URL of our token endpoint."""
    upstream: str
    """Its name, for messages."""
    base: ApiUrl
    """Its URL: repositories have other names there than here, where the URL has a path."""
    saw: Callable[[list[Challenge]], None]
    """Called with the challenges that a client without credentials got."""

    async def send(self, send: Send, access: Destination, authorization: str | None) -> Response:
        response = await charging(send, access, None)(authorization)
        if response.status != 401:
            return response
        asked = challenges(response)
        await response.drain()
        if authorization is None:
            self.saw(asked)
        raise Unauthorized(f"{self.upstream} asks for authentication", headers=self.headers(asked))

    def headers(self, asked: Iterable[Challenge]) -> tuple[tuple[str, str], ...]:
        """The upstream's challenges as clients get them."""
        return tuple(("WWW-Authenticate", str(self.rewritten(challenge))) for challenge in asked)

    def rewritten(self, challenge: Challenge) -> Challenge:
        """A Bearer challenge that leads to us; others stay (a Basic one is answered to us anyway)."""
        if challenge.scheme != "bearer":
            return challenge
        parameters = {**challenge.parameters, "realm": self.realm}
        if "scope" in parameters:
            parameters["scope"] = self.base.unscoped(parameters["scope"])
        return Challenge("bearer", parameters)


@frozen
class Account:
    """Whom docxy is at the upstream: one of its own accounts, or anonymous."""

    tokens: OwnTokens
    quota: Quota
    secret: IAccountSecret | None = None
    """None: anonymous."""

    @property
    def name(self) -> str:
        """As the operator configured it; empty: anonymous."""
        return "" if self.secret is None else self.secret.username


@implementer(IAuthorizer)
class OwnAuthorizer:
    """No-auth mode: docxy fetches tokens itself and the client's Authorization is ignored.

    Accounts are used in turn; one that the upstream limits is left out until its time is over, and one
    that it refuses gives way to the next.
    """

    _log = Logger()

    def __init__(self, accounts: Sequence[Account], upstream: str, anonymous: Account | None = None) -> None:
        """`anonymous`: for endpoints that may not know any of the accounts."""
        self._accounts = deque(accounts)
        self._anonymous = deque(accounts if anonymous is None else [anonymous])
        self._upstream = upstream
        self._known_refused: set[str] = set()

    async def send(self, send: Send, access: Destination, authorization: str | None) -> Response:
        accounts = self._accounts if access.trusted else self._anonymous
        refused: AccountRefused | None = None
        for account in self._turn(accounts, access.limited):
            try:
                response = await self._as(account, charging(send, access, account), access)
            except AccountRefused as error:
                refused = error
                continue
            if response.redirected:
                # What the registry's storage says of its limits is this blob's affair.
                return response
            account.quota.observe(response.header("RateLimit-Limit"), response.header("RateLimit-Remaining"))
            if response.status != 429:
                return response
            account.quota.limited(access.limited, dict(response.retry_after).get("Retry-After"))
            if not any(other.quota.wait(access.limited) <= 0 for other in accounts):
                return response
            await response.drain()
        if refused is not None:
            raise refused
        wait = min(account.quota.wait(access.limited) for account in accounts)
        raise TooManyRequests(
            f"{self._upstream} limits requests; not asked again for {wait:.0f} s",
            headers=(("Retry-After", str(max(1, math.ceil(wait)))),),
        )

    def _turn(self, accounts: deque[Account], limited: str) -> Iterator[Account]:
        """Accounts to try: those with plenty left first, beginning with the one whose turn it is."""
        accounts.rotate(-1)
        free = [account for account in accounts if account.quota.wait(limited) <= 0]
        yield from sorted(free, key=lambda account: account.quota.scarce)

    def is_calm(self) -> bool:
        """Whether the upstream neither limits us nor is about to."""
        return not self.scarce and not any(account.quota.is_limited for account in self._accounts)

    @property
    def left(self) -> float:
        """The share that is left of the limit of the account that has most left."""
        return max(account.quota.left for account in self._accounts)

    @property
    def scarce(self) -> bool:
        """Whether little is left of what the upstream allows to all accounts."""
        return all(account.quota.scarce for account in self._accounts)

    async def _as(self, account: Account, send: Send, access: Destination) -> Response:
        kept = account.tokens.kept(access)
        if kept is not None:
            response = await send(f"Bearer {kept}")
            if response.status not in (400, 401):
                return response
            # 400 is how ECR Public refuses an expired token.  Its challenge may lead nowhere
            # (nvcr), so ask again without a token.
            await response.drain()
            account.tokens.forget(access, kept)
        response = await send(None)
        if response.status != 401:
            return response
        asked = challenges(response)
        await response.drain()
        authorization, kept = await self._answer(account, asked, access)
        response = await send(authorization)
        if response.status == 401 and kept is not None:
            # Granted before for another endpoint, which took it.
            await response.drain()
            account.tokens.forget(access, kept)
            authorization, _ = await self._answer(account, asked, access)
            response = await send(authorization)
        if response.status == 401 and authorization.startswith("Basic ") and account.secret is not None:
            await response.drain()
            login = await account.secret.login() if await account.secret.renew() else None
            if login is None:
                raise self._refused(account.secret, f"{self._upstream} refused its name or password")
            response = await send(login.authorization)
        if response.status == 401:
            await response.drain()
            raise Denied(f"{self._upstream} has nothing here that docxy may read")
        if account.secret is not None:
            self._known_refused.discard(account.secret.username)
        return response

    def _refused(self, secret: IAccountSecret, why: str) -> AccountRefused:
        """Logs the first refusal, until the account works again."""
        if secret.username not in self._known_refused:
            self._known_refused.add(secret.username)
            self._log.error(
                "{upstream} refuses docxy's account {username}: {why}; cached tags are served stale until it is let in",
                upstream=self._upstream,
                username=secret.username,
                why=why,
            )
        return AccountRefused(why)

    async def _answer(
        self, account: Account, asked: Sequence[Challenge], access: Destination
    ) -> tuple[str, str | None]:
        """The Authorization that a challenge asks for; the token in it if that is one from before."""
        challenge = bearer(asked)
        if challenge is None:
            if account.secret is not None and any(each.scheme == "basic" for each in asked):
                login = await account.secret.login()
                if login is not None and not login.is_identity:
                    return login.authorization, None
            raise Denied(f"{self._upstream} asks for credentials that docxy does not have")
        try:
            token, kept = await account.tokens.get(challenge, access)
        except (Unauthorized, Denied) as error:
            if account.secret is not None:
                raise self._refused(account.secret, error.message) from error
            raise Denied(error.message) from error
        except (BadRequest, NotFound, Unsupported) as error:
            raise Denied(error.message) from error
        if not token:
            raise UpstreamError(f"the token service of {self._upstream} granted an empty token")
        return f"Bearer {token}", token if kept else None

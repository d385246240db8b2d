"""Who answers the upstream's challenge: the client (transparent) or docxy (none).

The law: a client's Authorization is either passed to the upstream as it is or not looked
at at all; docxy never acts in a client's name.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from attrs import frozen
from zope.interface import Interface, implementer

from docxy.errors import BadRequest, Denied, NotFound, TooManyRequests, Unauthorized, Unsupported, UpstreamError
from docxy.upstream.challenge import Challenge, bearer, parse
from docxy.upstream.fetch import Response
from docxy.upstream.quota import Quota
from docxy.upstream.tokens import Access, Tokens

Send = Callable[[str | None], Awaitable[Response]]
"""Sends one request with this Authorization (None: without)."""


class IAuthorizer(Interface):
    """Gets a request past the upstream's challenge."""

    async def send(send: Send, access: Access, authorization: str | None) -> Response:
        """The upstream's response, never a 401.

        `authorization` is the client's, or None where it may not be told.  Raises Unauthorized
        with a challenge when the client must answer it, Denied when nobody here can, UpstreamError.
        """


def challenges(response: Response) -> list[Challenge]:
    """What a 401 asks for."""
    return parse(response.header_values("WWW-Authenticate"))


@implementer(IAuthorizer)
@frozen
class ClientAuthorizer:
    """Transparent mode: the client's Authorization goes up, the challenge comes down with our realm."""

    realm: str
    """Absolute URL of our token endpoint."""
    upstream: str
    """Its name, for messages."""
    saw: Callable[[list[Challenge]], None]
    """Told what a stranger was asked for."""

    async def send(self, send: Send, access: Access, authorization: str | None) -> Response:
        response = await send(authorization)
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
        return Challenge("bearer", {**challenge.parameters, "realm": self.realm})


@frozen
class Account:
    """One way to be somebody at the upstream: an account of docxy's own, or a stranger."""

    tokens: Tokens
    quota: Quota
    authorization: str | None = None
    """For an upstream that asks for Basic."""


@implementer(IAuthorizer)
class OwnAuthorizer:
    """No-auth mode: docxy fetches tokens itself and the client's Authorization is ignored.

    Accounts are used in turn; one that the upstream limits is left out until its time is over.
    """

    def __init__(self, accounts: Sequence[Account], upstream: str, stranger: Account | None = None) -> None:
        """`stranger`: for endpoints that are not to know any of the accounts, where there are such."""
        self._accounts = deque(accounts)
        self._strangers = deque(accounts if stranger is None else [stranger])
        self._upstream = upstream

    async def send(self, send: Send, access: Access, authorization: str | None) -> Response:
        accounts = self._accounts if access.trusted else self._strangers
        for account in self._turn(accounts, access.limited):
            response = await self._as(account, send, access)
            account.quota.observe(response.header("RateLimit-Limit"), response.header("RateLimit-Remaining"))
            if response.status != 429:
                return response
            account.quota.limited(access.limited, response.header("Retry-After"))
            if not any(other.quota.wait(access.limited) <= 0 for other in accounts):
                return response
            await response.drain()
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
    def scarce(self) -> bool:
        """Whether little is left of what the upstream allows to all accounts."""
        return all(account.quota.scarce for account in self._accounts)

    async def _as(self, account: Account, send: Send, access: Access) -> Response:
        kept = account.tokens.kept(access)
        if kept is not None:
            response = await send(f"Bearer {kept}")
            if response.status not in (400, 401):
                return response
            # 400 is how ECR Public refuses an expired token.  Its challenge may lead nowhere
            # (nvcr), so ask again as a stranger.
            await response.drain()
            account.tokens.forget(access, kept)
        response = await send(None)
        if response.status != 401:
            return response
        asked = challenges(response)
        await response.drain()
        authorization = await self._answer(account, asked, access)
        response = await send(authorization)
        if response.status == 401:
            await response.drain()
            raise Denied(f"{self._upstream} has nothing here that docxy may read")
        return response

    async def _answer(self, account: Account, asked: Sequence[Challenge], access: Access) -> str:
        """The Authorization that a challenge asks for."""
        challenge = bearer(asked)
        if challenge is None:
            if account.authorization is not None and any(each.scheme == "basic" for each in asked):
                return account.authorization
            raise Denied(f"{self._upstream} asks for credentials that docxy does not have")
        try:
            token = await account.tokens.get(challenge, access)
        except (Unauthorized, BadRequest, NotFound, Unsupported) as error:
            raise Denied(error.message) from error
        if not token:
            raise UpstreamError(f"the token service of {self._upstream} granted an empty token")
        return f"Bearer {token}"

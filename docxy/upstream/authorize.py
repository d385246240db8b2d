"""Who answers the upstream's challenge: the client (transparent) or docxy (none).

The law: a client's Authorization is either passed to the upstream as it is or not looked
at at all; docxy never acts in a client's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen
from zope.interface import Interface, implementer

from docxy.errors import Denied, Unauthorized, UpstreamError
from docxy.upstream.challenge import Challenge, bearer, parse
from docxy.upstream.fetch import Response
from docxy.upstream.tokens import Tokens

Send = Callable[[str | None], Awaitable[Response]]
"""Sends one request with this Authorization (None: without)."""


class IAuthorizer(Interface):
    """Gets a request past the upstream's challenge."""

    async def send(send: Send, scope: str, authorization: str | None) -> Response:
        """The upstream's response, never a 401.

        `authorization` is the client's.  Raises Unauthorized with a challenge when the
        client must answer it, Denied when nobody here can, UpstreamError.
        """


def challenges(response: Response) -> list[Challenge]:
    """What a 401 asks for."""
    return parse(response.headers.getRawHeaders("WWW-Authenticate", []))


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

    async def send(self, send: Send, scope: str, authorization: str | None) -> Response:
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


@implementer(IAuthorizer)
@frozen
class OwnAuthorizer:
    """No-auth mode: docxy fetches tokens itself and the client's Authorization is ignored."""

    tokens: Tokens
    upstream: str

    async def send(self, send: Send, scope: str, authorization: str | None) -> Response:
        kept = self.tokens.kept(scope)
        if kept is not None:
            response = await send(f"Bearer {kept}")
            if response.status not in (400, 401):
                return response
            # 400 is how ECR Public refuses an expired token.  Its challenge may lead nowhere
            # (nvcr), so ask again as a stranger.
            await response.drain()
            self.tokens.forget(scope, kept)
        response = await send(None)
        if response.status != 401:
            return response
        challenge = bearer(challenges(response))
        await response.drain()
        if challenge is None:
            raise Denied(f"{self.upstream} asks for credentials that docxy does not have")
        try:
            token = await self.tokens.get(challenge, scope)
        except Unauthorized as error:
            raise Denied(error.message) from error
        if not token:
            raise UpstreamError(f"the token service of {self.upstream} granted an empty token")
        response = await send(f"Bearer {token}")
        if response.status == 401:
            await response.drain()
            raise Denied(f"{self.upstream} has nothing here that an anonymous client may read")
        return response

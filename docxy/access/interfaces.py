"""The gate: it stands between a request and everything that docxy does for it.

The law: the gate decides who may pull what, and nothing else.  It knows no upstream, no
cache and no body.  A request that it does not refuse is let in.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.http import Request
from zope.interface import Attribute, Interface


class IGate(Interface):
    """Who may come in."""

    asks: bool = Attribute(
        """Whether docxy has accounts of its own that clients log in to.

        Then `Authorization` is for docxy, and no upstream may see it.
        """
    )

    def address(request: Request) -> str:
        """The client's IP address, normalised: the peer's, or what trusted proxies say of it.

        "unix" for the peer at a Unix socket, "unknown" when a trusted proxy names no address.
        """

    async def admit(request: Request, upstream: str, repository: str | None) -> None:
        """Let the request in, or raise.

        `upstream`: its name; `repository`: as that upstream calls it, None for a ping.  Raises
        Unauthorized with a challenge, Denied, or TooManyRequests with Retry-After.
        """

    async def pullable(request: Request, upstream: str, repositories: Sequence[str]) -> list[str]:
        """Those of an upstream's repositories that a request which was let in may pull; raises as `admit` does.

        Sets the request's `account`: None where it showed no account's password or token.
        """

    async def token(request: Request, parameters: Sequence[tuple[str, str]], post: bool) -> dict[str, object] | None:
        """The answer to a token request; None when docxy has no accounts, so that the upstream has to answer.

        `parameters`: of the query, or of the form when `post`.  Raises as `admit` does, and
        BadRequest.
        """

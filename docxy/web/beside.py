"""The plain HTTP port beside HTTPS: health, and what has to be read without TLS; all else is redirected.

The laws: an ACME server's challenge is answered only for a token that docxy is being asked about, to anybody:
an ACME server says from nowhere that it comes; no other path answers without the perimeter.  Until there is a
certificate nothing is redirected: HTTPS would refuse the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.web.resource import IResource, Resource

from docxy.errors import NotFound
from docxy.web.answers import Leaf, Unavailable
from docxy.web.request import Pairs, Request

CHALLENGES = b"/.well-known/acme-challenge/"
"""RFC 8555, section 8.3."""
CA = b"/ca.pem"
_PLAIN: Pairs = (("Content-Type", "application/octet-stream"), ("Cache-Control", "no-store"))
_PEM: Pairs = (("Content-Type", "application/x-pem-file"), ("Cache-Control", "no-store"))
_WAIT = (("Retry-After", "10"),)

Read = Callable[[], Awaitable[bytes | None]]


class Authority(Leaf):
    """The certificate of docxy's own authority: what clients are to trust."""

    def __init__(self, read: Read) -> None:
        """`read`: its PEM file; None where there is none."""
        Leaf.__init__(self, self._send)
        self._read = read

    async def _send(self, request: Request) -> None:
        pem = await self._read()
        if pem is None:
            raise NotFound("this mirror has no authority of its own")
        request.answer(200, _PEM, pem)


class Beside(Resource):
    """Challenges, the authority, and then the redirect."""

    isLeaf = True

    def __init__(
        self,
        challenge: Callable[[str], Awaitable[bytes | None]],
        authority: IResource | None,
        redirect: IResource,
        health: IResource,
        is_ready: Callable[[], bool],
    ) -> None:
        """`challenge`: the answer for a token, None for one that is not known; `is_ready`: is there a certificate?

        `authority`, `redirect`, `health`: with their perimeters.
        """
        Resource.__init__(self)
        self._challenge = challenge
        self._authority = authority
        self._redirect = redirect
        self._health = health
        self._is_ready = is_ready
        self._challenges = Leaf(self._answer)
        self._nothing_yet = Leaf(self._wait)

    def render(self, request: Request) -> object:
        path = request.path
        if path.startswith(CHALLENGES):
            return self._challenges.render(request)
        if path == CA and self._authority is not None:
            return self._authority.render(request)
        if path in (b"/health", b"/ready", b"/startup"):
            # What probes here does not follow a redirect to another name.
            return self._health.render(request)
        if self._is_ready():
            return self._redirect.render(request)
        return self._nothing_yet.render(request)

    async def _answer(self, request: Request) -> None:
        token = request.path[len(CHALLENGES) :].decode("ascii", "replace")
        answer = await self._challenge(token)
        if answer is None:
            raise NotFound("no such challenge is open")
        request.answer(200, _PLAIN, answer)

    async def _wait(self, request: Request) -> None:
        raise Unavailable("this mirror has no certificate yet; its log says why", headers=_WAIT)

"""The gate without accounts: it looks at the client's address and at nothing else.

The law: the gate checks the address of every request.  Tokens and passwords are not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import field, frozen
from twisted.web.http import Request
from zope.interface import implementer

from docxy.access.audit import refused
from docxy.access.interfaces import IGate
from docxy.addresses import Perimeter, peer
from docxy.errors import Denied


@implementer(IGate)
@frozen
class OpenGate:
    """Lets every client in whose address may come in."""

    perimeter: Callable[[], Perimeter]
    """The one in force."""
    asks: bool = field(default=False, init=False)

    def address(self, request: Request) -> str:
        return client_address(self.perimeter(), request)

    async def admit(self, request: Request, upstream: str, repository: str | None) -> None:
        check_address(self.perimeter(), request, described(upstream, repository))

    async def pullable(self, request: Request, upstream: str, repositories: Sequence[str]) -> list[str]:
        return list(repositories)

    async def token(
        self, request: Request, parameters: Sequence[tuple[str, str]], post: bool
    ) -> dict[str, object] | None:
        check_address(self.perimeter(), request, "token")
        return None


def described(upstream: str, repository: str | None) -> str:
    """A request, in the words of the log."""
    return f"ping {upstream}" if repository is None else f"pull {upstream}/{repository}"


def client_address(perimeter: Perimeter, request: Request) -> str:
    """See `IGate.address`."""
    at = peer(request.getClientAddress())
    if at not in perimeter.trusted_proxies:
        return at
    # As bytes: text would have to be UTF-8, and whatever came must not be an error.
    return perimeter.client(at, request.requestHeaders.getRawHeaders(perimeter.address_header.value.encode(), []))


def check_address(perimeter: Perimeter, request: Request, asked: str) -> str:
    """The client's address; raises Denied."""
    address = client_address(perimeter, request)
    if not perimeter.admits(address):
        raise refused(Denied(f"the address {address} may not use this registry"), None, address, asked)
    return address

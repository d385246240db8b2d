"""The gate that asks nobody: the address is all it looks at.

The law: whatever is asked, the address is looked at first.  Tokens and passwords pass by.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from twisted.web.http import Request
from zope.interface import implementer

from docxy.errors import Denied
from docxy.gate.addresses import Perimeter
from docxy.gate.audit import refused
from docxy.gate.interfaces import IGate


@implementer(IGate)
@frozen
class OpenGate:
    """Lets in whoever comes from an address that may come."""

    perimeter: Perimeter = field(factory=Perimeter)
    asks: bool = False

    @property
    def alike(self) -> bool:
        return self.perimeter.is_open

    def address(self, request: Request) -> str:
        return self.perimeter.address(request)

    async def admit(self, request: Request, upstream: str, repository: str | None) -> None:
        check_address(self.perimeter, request, described(upstream, repository))

    async def pullable(self, request: Request, upstream: str, repositories: Sequence[str]) -> list[str]:
        return list(repositories)

    async def token(
        self, request: Request, parameters: Sequence[tuple[str, str]], post: bool
    ) -> dict[str, object] | None:
        check_address(self.perimeter, request, "token")
        return None


def described(upstream: str, repository: str | None) -> str:
    """What is asked for, in the words of the log."""
    return f"ping {upstream}" if repository is None else f"pull {upstream}/{repository}"


def check_address(perimeter: Perimeter, request: Request, asked: str) -> str:
    """The client's address; raises Denied."""
    address = perimeter.address(request)
    if not perimeter.admits(address):
        raise refused(Denied(f"the address {address} may not use this registry"), None, address, asked)
    return address

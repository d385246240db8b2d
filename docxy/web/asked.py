"""What all endpoints of `/v2/` know of a request once it is clear what it asks for.

The law: a `Location` follows from the URI alone, so that requests share it; an `Asked` is one request's.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from docxy.pull.caller import Caller
from docxy.pull.interfaces import IPull
from docxy.routing import Target
from docxy.web.request import API_VERSION, Request

Headers = list[tuple[str, str]]

_TOKEN = 12
"""Digits of a credential's key that stand for a client without an account."""


@frozen
class Location:
    """Where a URI leads: the same for every request that has it."""

    path: str
    """Raw, without the query."""
    raw_query: str
    query: Sequence[tuple[str, str]]
    target: Target
    headers: Sequence[tuple[str, str]]
    """What every answer from there has."""
    is_permitted: bool
    """Whether the upstream's `allow` and `deny` let it be pulled."""

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), None)


@frozen
class Asked:
    """A request that was let in."""

    request: Request
    at: Location
    pull: IPull
    authorization: str | None
    """What the upstream may see of the client's."""

    @property
    def head(self) -> bool:
        return self.request.method == b"HEAD"

    async def caller(self, accept: Sequence[str] = ()) -> Caller:
        """Who asks; raises Unauthorized with a challenge."""
        caller = await self.pull.caller(self.at.target.repository, self.authorization, accept)
        if self.authorization is not None:
            self.request.token = caller.credential[:_TOKEN]
        if self.request.floor is not None:
            caller = evolve(caller, floor=self.request.floor)
        if self.at.target.as_of is not None:
            caller = evolve(caller, as_of=self.at.target.as_of)
        return caller

    def accept(self) -> list[str]:
        """Every Accept line, as it came."""
        return [value.decode("utf-8") for value in self.request.fields.get(b"accept", ())]

    def headers(self, *more: tuple[str, str]) -> Headers:
        """The answer's headers: what all have, and more."""
        return [API_VERSION, *self.at.headers, *more]

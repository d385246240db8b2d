"""What the pages and their JSON have in common: a leaf of the tree, query parameters, JSON.

The law: only GET and HEAD are answered; what a client writes into a query has a bound.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from twisted.web.resource import Resource

from docxy.errors import BadRequest, NotFound, RegistryError
from docxy.web.request import Pairs, Request
from docxy.web.respond import respond

MOST_PULLS = 500
"""Pulls of one answer."""
USUAL_PULLS = 100
JSON: Pairs = (("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Vary", "Authorization"))


class Unavailable(RegistryError):
    """The page or event stream cannot be served now; the message says what to do."""

    status = 503
    code = "UNAVAILABLE"


class Leaf(Resource):
    """One page."""

    isLeaf = True

    def __init__(self, answer: Callable[[Request], Awaitable[None]]) -> None:
        Resource.__init__(self)
        self._answer = answer

    def render(self, request: Request) -> int:
        return respond(request, self._checked(request))

    async def _checked(self, request: Request) -> None:
        if request.method not in (b"GET", b"HEAD"):
            raise request.unsupported()
        await self._answer(request)


async def nothing(request: Request) -> None:
    """The answer where there is no page."""
    raise NotFound("nothing is here; see /status")


def answer_json(request: Request, content: object) -> None:
    """All of an answer."""
    request.answer(200, JSON, dumped(content))


def dumped(content: object) -> bytes:
    """As JSON, with the end of its line."""
    return json.dumps(content, separators=(",", ":")).encode("ascii") + b"\n"


def parameter(request: Request, name: str) -> str | None:
    """The first value of a query parameter."""
    found = parameters(request).get(name)
    return None if found is None else found[0][:512]


def parameters(request: Request) -> dict[str, list[str]]:
    """All of the query.  Raises BadRequest."""
    query = request.uri.partition(b"?")[2].decode("ascii", "replace")
    try:
        return parse_qs(query[:4096], max_num_fields=20)
    except ValueError:
        raise BadRequest("the query has too many fields") from None


def count(request: Request) -> int:
    """`n`: how many pulls the client wants.  Raises BadRequest."""
    n = parameter(request, "n")
    if n is None:
        return USUAL_PULLS
    if not (n.isascii() and n.isdigit() and int(n[:6]) > 0):
        raise BadRequest(f"n={n[:40]!a} is not a number above 0")
    return min(int(n[:6]), MOST_PULLS)


LOGIN = (("WWW-Authenticate", 'Basic realm="docxy", charset="UTF-8"'),)
"""The challenge that browsers and curl can answer."""
Snapshot = dict[str, Any]

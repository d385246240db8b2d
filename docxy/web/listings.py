"""Listings: `tags/list`, `referrers/<digest>` and `_catalog`, page by page.

The law: `_catalog` has no name that the client may not pull; a link to the next page leads here, not upstream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlencode

from attrs import frozen

from docxy import links
from docxy.access.interfaces import IGate
from docxy.errors import NotFound, PaginationInvalid
from docxy.names import Digest
from docxy.pull.interfaces import IPull, PulledListing
from docxy.routing import Router, permitted
from docxy.settings.model import Upstream
from docxy.web.asked import Asked, Location
from docxy.web.request import Request
from docxy.web.send import Sender

MAX_PAGE = 10_000
"""`n` of a listing, at most."""
DEFAULT_PAGE = 100
"""Names in a `_catalog` page, where the client does not say."""


async def serve_tags(asked: Asked, sender: Sender) -> None:
    """A page of a repository's tags."""
    if asked.at.target.as_of is not None:
        raise NotFound("which tags a repository had at a time is not listed here; ask for a tag by its name")
    _page(asked.at)
    query = links.page(asked.at.raw_query)
    pulled = await asked.pull.tags(asked.at.target.repository, query, await asked.caller())
    await _serve(asked, pulled, sender)


async def serve_referrers(asked: Asked, sender: Sender) -> None:
    """What refers to a digest."""
    target = asked.at.target
    digest = Digest.parse(target.reference)
    query = links.page(asked.at.raw_query)
    pulled = await asked.pull.referrers(target.repository, digest, query, await asked.caller())
    await _serve(asked, pulled, sender)


async def _serve(asked: Asked, pulled: PulledListing, sender: Sender) -> None:
    listing = pulled.listing
    asked.request.cache_status = str(pulled.status)
    headers = asked.headers(
        ("Content-Type", listing.media_type), ("Cache-Status", asked.request.cache_status), *listing.passed
    )
    link = links.leading_here(listing.link, asked.at.path, asked.at.raw_query)
    if link is not None:
        headers.append(("Link", link))
    await sender.answer(asked.request, 200, headers, listing.body)


@frozen
class Repositories:
    """`_catalog`: what is cached."""

    router: Router
    gate: IGate
    pulls: Mapping[str, IPull]
    """By the upstream's name."""

    async def serve(self, asked: Asked, sender: Sender) -> None:
        """Names as this client would pull them, those of other upstreams with their prefix."""
        at, target = asked.at, asked.at.target
        n, last = _page(at)
        count = DEFAULT_PAGE if n is None else n
        names: list[str] = []
        for upstream in [target.upstream] if target.named else self.router.upstreams:
            prefix = "" if target.named or upstream == self.router.default else f"{upstream.name}/"
            if prefix and last > prefix and not last.startswith(prefix):
                continue
            after = last.removeprefix(prefix) if last.startswith(prefix) else ""
            found = await self._pullable(asked.request, upstream, after, count + 1)
            names += [f"{prefix}{name}" for name in found]
        page = sorted(names)[:count]
        headers = asked.headers(("Content-Type", "application/json"))
        if page and len(names) > count:
            query = urlencode({"n": count, "last": page[-1], **({"ns": ns} if (ns := at.parameter("ns")) else {})})
            headers.append(("Link", f'<{at.path}?{query}>; rel="next"'))
        await sender.answer(asked.request, 200, headers, json.dumps({"repositories": page}).encode("ascii"))

    async def _pullable(self, request: Request, upstream: Upstream, after: str, count: int) -> list[str]:
        """The first `count` cached repositories behind a name that this client may pull."""
        found: list[str] = []
        while len(found) < count:
            known = await self.pulls[upstream.name].repositories(after, MAX_PAGE)
            allowed = await self.gate.pullable(request, upstream.name, known)
            found += [name for name in allowed if permitted(upstream, name)]
            if len(known) < MAX_PAGE:
                break
            after = known[-1]
        return found[:count]


def _page(at: Location) -> tuple[int | None, str]:
    """`n` and `last` of a listing; raises PaginationInvalid."""
    n = at.parameter("n")
    if n is not None and not (n.isascii() and n.isdigit()):
        raise PaginationInvalid(f"n={n[:40]!a} is not a number")
    return None if n is None else min(int(n[:10]), MAX_PAGE), at.parameter("last") or ""

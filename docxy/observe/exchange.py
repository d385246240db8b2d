"""One request that was answered, or one fetch that ended, as everything that shows what docxy did sees it.

Pure.  The law: an exchange holds nothing secret: no credential, no query, no signed URL; an
account is a name, and a client that must stay private has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

from attrs import NOTHING, field, fields, frozen

WAITS = ("login", "headers", "upstream", "rate", "connection", "disk", "client")
"""What a response can wait for: the check of its client's password, the upstream's response headers, its next bytes,
docxy's own limit of the rate, a free connection to the upstream, the cache's disk, the client itself."""
FETCH, CHARGES = "fetches", "charges"
"""Kinds of events besides answers: a fetch of a blob began (not `whole`) or ended, for those who joined it in other
processes; requests that count to an upstream's quota were made after the answer had ended."""
TOKEN = "token "
"""What the name of a client without an account begins with; a keyed digest of its credentials follows."""
_OURS = re.compile(r"[0-9a-f]{16}")
LONGEST = 512
"""Characters of a text that a client chose, at most."""


@frozen
class Exchange:
    """One answered request for a manifest or a blob."""

    at: float
    """When the answer ended, in seconds since the epoch."""
    seconds: float
    """From the request's head to the answer's last byte."""
    kind: str
    """`manifests` or `blobs`; or `FETCH`, `CHARGES`."""
    upstream: str
    repository: str
    reference: str
    """As the client wrote it: a tag or a digest."""
    status: int
    cache: str
    """As `docxy.observe.metrics.cache_word` has it: `hit`, `miss`, `collapsed`, `stale`…"""
    head: bool = False
    digest: str | None = None
    """What the reference led to."""
    size: int | None = None
    """Bytes of the whole content."""
    sent: int = 0
    """Bytes of the body that went out."""
    whole: bool = True
    """Whether all of the answer went out."""
    first_byte: float | None = None
    """Seconds from the request's head to the first byte of the answer's body."""
    client: str | None = None
    """Its address; None where the operator keeps clients private."""
    account: str | None = None
    agent: str = ""
    """The client's program, as it calls itself."""
    platform: str | None = None
    """Of a manifest that an index led to, as `linux/amd64`; the read model knows it."""
    platforms: Mapping[str, str] = field(factory=dict)
    """Of an index that this process had not seen before: digests of its manifests -> their platforms."""
    received: int = 0
    """Bytes that came from the upstream for this answer."""
    archived: bool = False
    """Whether its bytes came from the archive, or the client was sent there for them."""
    connections: int = 0
    """Connections to the upstream that the fill used at most."""
    resumed: int = 0
    failovers: int = 0
    retry_after: float | None = None
    """Seconds that an answer with status 429 or 503 named."""
    limit: str = ""
    """Whose limit a 429 tells of: `logins`, docxy's own of wrong passwords; `tokens`, the token service's; empty, the
    registry's."""
    waits: Mapping[str, float] = field(factory=dict)
    """Seconds for each of `WAITS`."""
    request_id: str = ""
    joined: str = ""
    """The id of the request that began the fetch which this one joined, where both are for one repository."""
    charged: Mapping[str, int] = field(factory=dict)
    """Counted requests to the upstream that it took, by the account whose pull limit paid; empty name: nobody's."""
    group: str = ""
    """Of the client, as `[access.groups]` names it."""
    error: str = ""
    """What an error answer said."""

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes; without what is as usual."""
        names, values, usual = _fields()
        told = zip(names, values(self), usual, strict=True)
        # Made for each answer: what is as usual is mostly the very same object, or as empty as that.
        return {name: value for name, value, one in told if value is not one and (value or one is None or one is True)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Exchange:
        """Raises TypeError for what `to_json` does not make."""
        return cls(**told)


@cache
def _fields() -> tuple[tuple[str, ...], Callable[[Exchange], tuple[Any, ...]], tuple[Any, ...]]:
    """The names of an exchange's fields, what gets their values, and their defaults, None for those without."""
    names = tuple(attribute.name for attribute in fields(Exchange))
    usual = [attribute.default for attribute in fields(Exchange)]
    return names, attrgetter(*names), tuple(None if each is NOTHING else each for each in usual)


def own(request_id: str) -> str:
    """An id as docxy makes them; empty for one that a client chose, which may say who that is."""
    return request_id if _OURS.fullmatch(request_id) else ""


def clipped(text: str) -> str:
    """A text that a client chose, within bounds and printable."""
    text = text[:LONGEST]
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)

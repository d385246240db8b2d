"""One request to an upstream: what it asks for, where it goes, and what its statuses mean.

Pure.  The law: a question is the same at every endpoint of its upstream.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from docxy.errors import RegistryError

MISSING = frozenset({404})
NO_HEAD = frozenset({400, 404, 405, 410, 501})
NO_REFERRERS = frozenset({400, 404, 405, 406, 410, 415, 501})
"""Statuses by which registries say that something is not there."""
REFUSING = frozenset({400, 413, 414, 431, 451})
"""Those that are about the request, not about how the registry is."""
BROKEN = frozenset({500, 502})
"""Those of a server that stumbled: the same request may well succeed now."""


@frozen
class Question:
    """One request to whichever endpoint answers it."""

    method: str
    repository: str
    rest: str
    """`manifests/latest`, with a query where it has one."""
    unknown: type[RegistryError]
    """What it raises when there is nothing of the kind."""
    headers: Sequence[tuple[str, Sequence[str]]] = ()
    absent: frozenset[int] = MISSING
    """Statuses that mean this."""

    @property
    def asked(self) -> str:
        """For messages."""
        return f"{self.repository}/{self.rest.partition('?')[0]}"

    @property
    def kind(self) -> str:
        """What upstreams count separately."""
        return f"{self.method} {self.rest.partition('/')[0]}"


@frozen
class Destination:
    """Where a request goes, and what for."""

    endpoint: str
    """Base URL."""
    scope: str
    """To ask a token service for where a challenge names none."""
    kind: str
    """What upstreams count separately: method and kind of content."""
    trusted: bool = True
    """Whether the endpoint may know docxy's account."""

    @property
    def limited(self) -> str:
        """What a 429 is about: an endpoint's says nothing of another's."""
        return f"{self.kind} {self.endpoint}"

"""Who asks for something of a repository, as everything in `pull` needs to know it.

The law: a `Caller` is made once for each request, by the rights of its upstream
(`IRights.caller`), and never changed.  Nothing else works out a credential's key.
"""

from __future__ import annotations

from attrs import frozen

from docxy.pull.accept import Accept


@frozen
class Caller:
    """A client's request for one repository."""

    authorization: str | None
    """The client's `Authorization`, for the upstream; None without one, and where docxy uses its own account."""
    credential: str
    """The key under which verdicts, misses and refusals of this client are kept; never the credential itself."""
    cached_only: bool
    """Whether the client holds a token of docxy's own: the upstream cannot be asked in its name."""
    accept: Accept
    """Which manifests the client takes."""
    as_of: float | None = None
    """The time that the client asks about, in seconds since the epoch; None: now."""
    floor: float | None = None
    """Share of an upstream's pull limit below which nothing is spent for this client, so that it is left for others;
    None: docxy saves as it always does."""

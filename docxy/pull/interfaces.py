"""What the web asks for, and what it is given."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from zope.interface import Attribute, Interface

from docxy.names import Digest, Reference
from docxy.pull.status import CacheStatus
from docxy.ranges import Range, Span
from docxy.upstream.body import IBody
from docxy.upstream.remote import Listing, Manifest, Pairs


@frozen
class PulledManifest:
    """A manifest, and how it was come by."""

    manifest: Manifest
    status: CacheStatus
    age: int | None = None
    """Seconds since the upstream confirmed it; None when it just did."""


@frozen
class PulledBlob:
    """A blob or a part of it, on its way."""

    span: Span | None
    """What `body` holds; None when the upstream did not say how long the blob is."""
    body: IBody
    status: CacheStatus
    passed: Pairs = ()


@frozen
class PulledListing:
    """A page of tags or referrers."""

    listing: Listing
    status: CacheStatus


class IPull(Interface):
    """One upstream as clients are given it.

    `authorization` is the client's header, or None.  Every method raises RegistryError.
    """

    unanswered: CacheStatus = Attribute("CacheStatus: of an error that does not say how it was come by.")

    async def ping(authorization: str | None) -> None:
        """Whether a client with this authorization may go on; raises Unauthorized with a challenge."""

    async def token(parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool) -> dict[str, object]:
        """The answer to a token request, as the client gets it; scopes are already the upstream's."""

    async def manifest(
        repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> PulledManifest:
        """A manifest with its bytes."""

    async def head_manifest(
        repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> PulledManifest:
        """What is known of a manifest, its bytes perhaps None."""

    async def blob(repository: str, digest: Digest, asked: Range | None, authorization: str | None) -> PulledBlob:
        """A blob, or the asked range of it."""

    async def blob_size(repository: str, digest: Digest, authorization: str | None) -> tuple[int | None, CacheStatus]:
        """How long a blob is; never downloads it."""

    async def tags(repository: str, query: str, authorization: str | None) -> PulledListing:
        """A page of the repository's tags."""

    def repositories(after: str, limit: int) -> list[str]:
        """What of the upstream is cached and anybody may know of: names behind `after`, sorted."""

    async def referrers(repository: str, digest: Digest, query: str, authorization: str | None) -> PulledListing:
        """What refers to a digest."""

"""What the web asks of an upstream's pull, and the answers.

The law: the web sees every pull, with a cache and without one, by this interface alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from zope.interface import Attribute, Interface

from docxy.archive.interfaces import Link
from docxy.bodies import IBody
from docxy.content import Listing, Manifest, Pairs
from docxy.names import Digest, Reference
from docxy.observe.trail import Fetched
from docxy.pull.cache_status import CacheStatus
from docxy.pull.caller import Caller
from docxy.ranges import Range, Span


@frozen
class PulledManifest:
    """A manifest, and where it came from."""

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
    fetched: Fetched | None = None
    """How it is fetched, by this process; None where nothing is, or by another."""


@frozen
class PulledListing:
    """A page of tags or referrers."""

    listing: Listing
    status: CacheStatus


@frozen
class CachedLayer:
    """A layer or config of an image."""

    digest: str
    size: int
    """Bytes."""
    cached: bool
    """Whether it is in the cache."""


@frozen
class CachedImage:
    """A manifest of one platform that is in the cache."""

    digest: str
    platform: str
    """As `linux/amd64`; empty: not known."""
    layers: tuple[CachedLayer, ...]
    """With the config, which comes first."""

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(layer.size for layer in self.layers)

    @property
    def cached(self) -> int:
        """Bytes that are in the cache."""
        return sum(layer.size for layer in self.layers if layer.cached)


@frozen
class CachedTag:
    """Where a tag leads, as far as the cache knows."""

    name: str
    digest: str
    media_type: str
    checked: float
    """When the upstream last said so, in seconds since the epoch."""
    images: tuple[CachedImage, ...] = ()
    """Of the platforms that are in the cache."""
    marks: tuple[str, ...] = ()
    """What is ordered about it: `recalled`, `frozen`, `pinned`, `kept`."""


@frozen
class TagChange:
    """Where a tag led from some time on."""

    name: str
    digest: str | None
    """None: the upstream did not have the tag any more."""
    at: float
    """When docxy first saw it there, in seconds since the epoch."""
    first: float
    """When docxy first saw the digest in this repository."""


class IPull(Interface):
    """One upstream, as clients get it.

    `authorization` is the client's header, or None.  Every method raises RegistryError.
    What belongs to a repository takes a `Caller` that was made for that repository.
    """

    unanswered: CacheStatus = Attribute("CacheStatus of an error that has none.")
    redirects: bool = Attribute("bool: whether `elsewhere` may say anything but None.")

    async def ping(authorization: str | None) -> None:
        """Whether a client with this authorization may go on; raises Unauthorized with a challenge."""

    async def token(parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool) -> dict[str, object]:
        """The answer to a token request, as the client gets it; scopes are already the upstream's."""

    async def caller(repository: str, authorization: str | None, accept: Sequence[str] = ()) -> Caller:
        """Who asks for something of this repository; raises Unauthorized with a challenge."""

    async def manifest(repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        """A manifest with its bytes."""

    async def head_manifest(repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        """What is known of a manifest, its bytes perhaps None."""

    async def blob(repository: str, digest: Digest, asked: Range | None, caller: Caller) -> PulledBlob:
        """A blob, or the asked range of it."""

    async def elsewhere(repository: str, digest: Digest, caller: Caller) -> Link | None:
        """Where the client, who wants all of a blob or a range, gets it itself; None: by `blob`."""

    async def blob_size(repository: str, digest: Digest, caller: Caller) -> tuple[int | None, CacheStatus]:
        """How long a blob is; never downloads it."""

    async def tags(repository: str, query: str, caller: Caller) -> PulledListing:
        """A page of the repository's tags."""

    async def repositories(after: str, limit: int) -> list[str]:
        """What of the upstream is cached and anybody may know of: names behind `after`, sorted."""

    async def cached(repository: str, limit: int) -> list[CachedTag]:
        """Cached tags, those that the upstream confirmed last first, for a viewer that may know of the repository."""

    async def changes(repository: str, tag: str | None, limit: int) -> list[TagChange]:
        """Where a tag or all tags of a repository led, the newest first; for the same viewers."""

    async def nameable(repositories: Sequence[str]) -> list[str]:
        """Those of some repositories that anybody may know of, cached or not."""

    async def referrers(repository: str, digest: Digest, query: str, caller: Caller) -> PulledListing:
        """What refers to a digest."""

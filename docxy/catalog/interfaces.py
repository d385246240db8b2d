"""What is known of upstreams, question by question; `sqlite` and `memory` answer them alike.

The laws: *a catalog that fails, forgets*: no method raises, reading a broken one finds nothing, and pulls go on
with the upstream's help.  A repository is known to hold a digest, and a credential to read a repository, only
because the upstream itself said so.  Nothing here waits on the reactor's thread:

- What memory knows is answered without waiting: awaiting it costs no turn of the reactor.
- What this process wrote, it reads at once; another process sees it a moment later (`behind.LAG`).
- What is written is on its way to the disk: it is lost when the process is killed before that.
- `latest=True` reads past memory, so that what another process was told meanwhile is seen.

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import frozen
from zope.interface import Attribute, Interface

from docxy.catalog.secret import Secret
from docxy.names import Digest

Stays = Callable[[str, str, str], bool]
"""Upstream, repository and tag -> whether it stays."""


def no_tag(upstream: str, repository: str, tag: str) -> bool:
    """The `Stays` of where nothing is pinned."""
    return False


def is_recent(at: float, now: float, limit: float) -> bool:
    """Whether something of this time is less than `limit` seconds old.

    An age below 0 is none that can be believed: the clock was set back since.
    """
    return 0 <= now - at < limit


@frozen
class HeldManifest:
    """A manifest as its repository served it."""

    media_type: str
    size: int
    seen: float
    """When the upstream last served it."""


@frozen
class TagRecord:
    """Where a tag pointed."""

    digest: Digest
    media_type: str
    size: int
    checked: float
    """When the upstream last said so."""
    retry: float
    """Until when the upstream is not asked again, because it failed to answer."""


@frozen
class ListingRecord:
    """A page as the upstream gave it."""

    media_type: str
    body: bytes
    link: str | None
    checked: float


@frozen
class RelayedToken:
    """A token that a token service gave to a client of docxy."""

    owner: str
    """The credential of the account that asked for it; `""` for an anonymous client."""
    repositories: frozenset[str]
    """Repositories that it was asked for, to pull from."""


@frozen
class Change:
    """Where a tag pointed from some time on."""

    tag: str
    digest: Digest | None
    """None: the upstream did not have the tag any more."""
    at: float
    """When docxy first saw it there."""
    first: float
    """When docxy first saw the digest in this repository, under any name; as `at` where that is not known."""


@frozen
class Sighting:
    """Since when a repository is known to have a manifest."""

    first: float
    excused: bool = False
    """Whether it was let through however young it was, by an operator's exception."""


@frozen
class AsOf:
    """What is known of a tag at some time."""

    change: Change | None
    """The last one until then; None: docxy had not seen the tag yet."""
    began: float | None
    """Since when docxy knows the tag; None: it does not."""


class ITags(Interface):
    """Where the tags of one upstream pointed when it was last asked."""

    async def get(repository: str, tag: str, latest: bool = False) -> TagRecord | None:
        """The record."""

    async def newest(repository: str, limit: int) -> list[tuple[str, TagRecord]]:
        """The tags of a repository, by their names here; those that the upstream was asked about last come first."""

    def keep(repository: str, tag: str, digest: Digest, media_type: str, size: int) -> None:
        """The upstream just said where the tag points."""

    def postpone(repository: str, tag: str, record: TagRecord, until: float) -> None:
        """The upstream failed to answer: it is not asked about this tag until then.  `record`: as it is known."""

    def drop(repository: str, tag: str) -> None:
        """The upstream has no such tag any more."""

    async def drop_all_of(repository: str, digest: Digest) -> None:
        """The upstream does not have this manifest any more: no tag points at it."""


class IHeld(Interface):
    """Which repository of one upstream served which digest.  Asking is a use, which keeps the row alive."""

    def hold_blob(repository: str, digest: Digest) -> None:
        """The upstream just served this blob under this repository."""

    def hold_manifest(repository: str, digest: Digest, media_type: str, size: int) -> None:
        """The upstream just served this manifest under this repository."""

    async def blob(repository: str, digest: Digest, latest: bool = False) -> bool:
        """Whether the upstream once served this blob under this repository."""

    async def manifest(repository: str, digest: Digest) -> HeldManifest | None:
        """A manifest that the upstream once served under this repository."""

    async def any_manifest(repository: str) -> Digest | None:
        """The manifest of this repository that the upstream served last."""

    async def manifests(repository: str, limit: int) -> list[Digest]:
        """Manifests of this repository, those that the upstream served last come first."""

    async def repositories(after: str, limit: int, public_since: float | None) -> list[str]:
        """Repositories that hold something, sorted, behind a name; with `public_since` only what was public then."""

    def drop(repository: str, digest: Digest) -> None:
        """The upstream does not have this under this repository any more."""

    async def flushed() -> None:
        """Returns when other processes can read what was written before, or after a moment if it cannot be written."""


class IHistory(Interface):
    """What one upstream had when, by docxy's clock: since when digests are known, and where tags pointed.

    A digest is seen when the upstream itself shows that it has it, by HEAD or GET: asking for one makes none known.
    """

    async def seen(repository: str, digest: Digest) -> Sighting:
        """The upstream just showed this manifest: when it first did.  The first sight of all processes stands."""

    async def sighting(repository: str, digest: Digest, latest: bool = False) -> Sighting | None:
        """When the upstream first showed this manifest; None: it never did.  Asking is a use."""

    def lists(repository: str, sighting: Sighting, children: Sequence[Digest]) -> None:
        """An index that was first seen then names these manifests, which were there with it."""

    async def flushed() -> None:
        """See `IHeld`."""

    def changed(repository: str, tag: str, digest: Digest | None) -> None:
        """The tag points here now; None: it is gone.  One change is one row, however many processes note it."""

    async def learn(repository: str, tag: str, theirs: Sequence[Change], told: Change | None) -> None:
        """What another node saw of a tag, the oldest first, becomes part of what is known; see `merging`.

        The first sights of its digests are those of either node.  `told`: where the upstream just said that it leads.
        """

    async def changes(repository: str, tag: str | None, limit: int) -> list[Change]:
        """The changes of a tag or of all tags of a repository, the newest first."""

    async def as_of(repository: str, tag: str, at: float) -> AsOf:
        """Where the tag pointed at that time."""

    async def in_use(used: float, checked: float, limit: int) -> list[tuple[str, str]]:
        """Repositories and tags that lead to what was pulled since `used`, and were not asked for since `checked`.

        What was not asked for the longest comes first.
        """


class IVerdicts(Interface):
    """Which credential could read which repository of one upstream; credentials are `Secret.credential`s."""

    async def allowed_at(repository: str, credential: str, latest: bool = False) -> float | None:
        """When the upstream last let this credential read this repository."""

    def allow(repository: str, credential: str) -> None:
        """The upstream just let it."""

    def revoke(repository: str, credential: str) -> None:
        """The upstream just refused it."""

    async def public_at(repository: str) -> float | None:
        """When the upstream last let an anonymous client read this repository."""

    def publish(repository: str) -> None:
        """It just let one."""

    def unpublish(repository: str) -> None:
        """It just refused one."""


class IListings(Interface):
    """Pages of tags and of referrers of one upstream; the oldest go when there are too many (`schema.MAX_PAGES`)."""

    async def get(repository: str, page: str) -> ListingRecord | None:
        """A page that was kept."""

    def keep(repository: str, page: str, media_type: str, body: bytes, link: str | None) -> None:
        """The upstream just gave this page."""

    def drop(repository: str, page: str) -> None:
        """The upstream has no such page any more."""


class IMissing(Interface):
    """What one upstream did not have, for a credential; a matter of seconds, and of this process."""

    def keep(repository: str, reference: str, credential: str, message: str, lifetime: float) -> None:
        """The upstream just said that it does not have this, as far as this credential sees."""

    def message(repository: str, reference: str, credential: str) -> str | None:
        """What it said, while that still stands."""


class ITokens(Interface):
    """Whose a token is that a token service gave through docxy; of all upstreams."""

    def keep(credential: str, token: RelayedToken, until: float) -> None:
        """A token service just gave this token, good until then."""

    async def get(credential: str) -> RelayedToken | None:
        """What is known of a token, while it is good."""


class IFacts(Interface):
    """Small values with names, of which there are few: all are in memory."""

    def get(name: str) -> str | None:
        """What was kept under a name, by this process or by any that ended before it began."""

    async def latest(name: str) -> str | None:
        """The same, and what another process has kept there meanwhile."""

    def keep(name: str, value: str) -> None:
        """Keep a value, replacing what was there."""


class IClaims(Interface):
    """Who asks an upstream something that one asker is enough for.

    Saves requests; nothing may depend on it for being right.  A claim dies with its process.
    """

    async def claim(key: str, patience: float) -> bool:
        """True when it is for us to ask: then `release` has to follow.

        False when one of this process who asked meanwhile is done, or is not after `patience` seconds.  After a wait
        for another process it is True: look at the `latest` before asking.
        """

    def release(key: str) -> None:
        """We are done asking.  Other processes hear of it once what we wrote is there for them to read."""


@frozen
class UpstreamCatalog:
    """What is known of one upstream: every key holds its name, so that equal paths never mix."""

    upstream: str
    tags: ITags
    held: IHeld
    verdicts: IVerdicts
    listings: IListings
    missing: IMissing
    history: IHistory


class ICatalog(Interface):
    """All that is known."""

    secret: Secret = Attribute("Secret: what credentials are keyed with.")
    claims: IClaims = Attribute("IClaims.")
    facts: IFacts = Attribute("IFacts.")
    tokens: ITokens = Attribute("ITokens.")

    def upstream(name: str) -> UpstreamCatalog:
        """One upstream's part."""

    async def flushed() -> None:
        """Returns when other processes can read what was written before, or after a moment if it cannot be written."""

    async def spare(digests: Collection[str]) -> None:
        """These are in use wherever a repository holds them: a purge forgets none of them for a while."""

    async def purge(unseen: float, short: float, history: float, stays: Stays = no_tag) -> None:
        """Forget rows that are past their use, and those beyond the bounds, a few at a time; call it now and then.

        `stays`: whether a tag is kept, however old it is.
        `unseen`: seconds after which what nobody pulled is forgotten; `short`: the same for verdicts; `history`: the
        same for where tags pointed before they moved.
        """

    async def close() -> None:
        """Write down what is on its way; nothing is asked of it any more."""

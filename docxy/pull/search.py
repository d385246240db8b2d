"""Several registries searched as one, in the operator's order.

The laws: *a repository is of the first registry that has it*: what is missing in it there is missing, so that nobody
who publishes under the same name elsewhere takes its place (dependency confusion).  Only "not here" leads to the next
registry: 404, and a registry's own refusal; never a failure, nor what docxy's own rules refuse.  Bytes that a digest
names are the same wherever they are, so for those any registry will do.  What a registry has is cached as its own.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from attrs import frozen
from cachetools import LRUCache, TTLCache
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from docxy.archive.interfaces import Link
from docxy.errors import (
    BlobUnknown,
    Denied,
    FrozenGone,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    Unauthorized,
    Withheld,
)
from docxy.names import Digest, Reference
from docxy.pull.accept import read
from docxy.pull.cache_status import MISS, CacheStatus
from docxy.pull.caller import Caller
from docxy.pull.interfaces import CachedTag, IPull, PulledBlob, PulledListing, PulledManifest, TagChange
from docxy.pull.rights.login import NoLogin
from docxy.ranges import Range
from docxy.settings.model import Upstream

MOST = 10_000
"""Repositories of which is remembered where they are."""
LOOKED = 60.0
"""Seconds for which is remembered whether a registry has a repository."""
_FIRST_TAG = "n=1"

T = TypeVar("T")


@frozen
class Member:
    """One of the registries."""

    upstream: Upstream
    pull: IPull

    def name_of(self, repository: str) -> str:
        """A repository as this registry knows it."""
        return f"library/{repository}" if self.upstream.library and "/" not in repository else repository


Ask = Callable[[Member, str], Awaitable[T]]
"""Asks one registry about a repository, under its name there."""


@implementer(IPull)
class SearchPull:
    """See `IPull`; no client logs in to any of the registries."""

    unanswered = MISS

    def __init__(
        self, name: str, members: Sequence[Member], permits: Callable[[Upstream, str], bool], clock: IReactorTime
    ) -> None:
        """`permits`: whether the lists of one of them let a repository be pulled."""
        self._name = name
        self._members = tuple(members)
        self._permits = permits
        self._login = NoLogin(clock)
        self._places: LRUCache[str, Member] = LRUCache(MOST)
        self._looked: TTLCache[tuple[str, str], bool] = TTLCache(MOST, LOOKED, timer=clock.seconds)

    async def ping(self, authorization: str | None) -> None:
        return

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        return await self._login.token(parameters, None, post)

    async def caller(self, repository: str, authorization: str | None, accept: Sequence[str] = ()) -> Caller:
        return Caller(None, credential="", cached_only=False, accept=read(accept))

    async def manifest(self, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        return await self._manifest(repository, reference, lambda at, name: at.pull.manifest(name, reference, caller))

    async def head_manifest(self, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        return await self._manifest(
            repository, reference, lambda at, name: at.pull.head_manifest(name, reference, caller)
        )

    async def _manifest(self, repository: str, reference: Reference, ask: Ask[PulledManifest]) -> PulledManifest:
        if isinstance(reference, Digest):
            return await self._anywhere(repository, ask, ManifestUnknown(self._missing(f"{repository}@{reference}")))
        missed: RegistryError = ManifestUnknown(self._missing(f"{repository}:{reference}"))
        for number, member in enumerate(self._permitting(repository)):
            try:
                found = await ask(member, member.name_of(repository))
            except RegistryError as error:
                if not _is_missing(error) or await self._has(member, repository):
                    raise
                missed = error if number == 0 else missed
            else:
                self._places[repository] = member
                return found
        raise missed

    async def blob(self, repository: str, digest: Digest, asked: Range | None, caller: Caller) -> PulledBlob:
        missing = BlobUnknown(self._missing(f"{digest} of {repository}"))
        return await self._anywhere(repository, lambda at, name: at.pull.blob(name, digest, asked, caller), missing)

    @property
    def redirects(self) -> bool:
        return any(member.pull.redirects for member in self._members)

    async def elsewhere(self, repository: str, digest: Digest, caller: Caller) -> Link | None:
        missing = BlobUnknown(self._missing(f"{digest} of {repository}"))
        return await self._anywhere(repository, lambda at, name: at.pull.elsewhere(name, digest, caller), missing)

    async def blob_size(self, repository: str, digest: Digest, caller: Caller) -> tuple[int | None, CacheStatus]:
        missing = BlobUnknown(self._missing(f"{digest} of {repository}"))
        return await self._anywhere(repository, lambda at, name: at.pull.blob_size(name, digest, caller), missing)

    async def tags(self, repository: str, query: str, caller: Caller) -> PulledListing:
        for member in self._permitting(repository):
            if await self._has(member, repository):
                return await member.pull.tags(member.name_of(repository), query, caller)
        raise NameUnknown(self._missing(repository))

    async def referrers(self, repository: str, digest: Digest, query: str, caller: Caller) -> PulledListing:
        for member in self._near(repository):
            if member is self._places.get(repository) or await self._has(member, repository):
                return await member.pull.referrers(member.name_of(repository), digest, query, caller)
        raise NameUnknown(self._missing(repository))

    async def repositories(self, after: str, limit: int) -> list[str]:
        # They are listed as those of the registries.
        return []

    async def cached(self, repository: str, limit: int) -> list[CachedTag]:
        for member in self._near(repository):
            found = await member.pull.cached(member.name_of(repository), limit)
            if found:
                return found
        return []

    async def changes(self, repository: str, tag: str | None, limit: int) -> list[TagChange]:
        for member in self._near(repository):
            found = await member.pull.changes(member.name_of(repository), tag, limit)
            if found:
                return found
        return []

    async def nameable(self, repositories: Sequence[str]) -> list[str]:
        found = []
        for repository in repositories:
            for member in self._permitting(repository):
                if await member.pull.nameable([member.name_of(repository)]):
                    found.append(repository)
                    break
        return found

    def _permitting(self, repository: str) -> Iterator[Member]:
        """The registries whose lists let the repository be pulled, in their order."""
        return (each for each in self._members if self._permits(each.upstream, each.name_of(repository)))

    def _near(self, repository: str) -> list[Member]:
        """The same, first the one that something of the repository was last pulled from."""
        place = self._places.get(repository)
        return sorted(self._permitting(repository), key=lambda member: member is not place)

    async def _anywhere(self, repository: str, ask: Ask[T], missing: RegistryError) -> T:
        """What the first registry that has it answers; if none does, the first failure."""
        failed: RegistryError | None = None
        for member in self._near(repository):
            try:
                return await ask(member, member.name_of(repository))
            except RegistryError as error:
                if isinstance(error, (Withheld, FrozenGone)) or error.status in (400, 416):
                    raise
                if failed is None and not _is_missing(error):
                    failed = error
        raise failed or missing

    async def _has(self, member: Member, repository: str) -> bool:
        """Whether a registry has a repository of this name: it had a tag, or has one.

        Raises RegistryError when the registry does not say.
        """
        key = member.upstream.name, repository
        known = self._looked.get(key)
        if known is None:
            name = member.name_of(repository)
            # The history knows of tags that went, too.
            known = bool(await member.pull.cached(name, 1) or await member.pull.changes(name, None, 1))
            known = known or await self._has_tags(member, name)
            self._looked[key] = known
        return known

    async def _has_tags(self, member: Member, name: str) -> bool:
        try:
            listed = await member.pull.tags(name, _FIRST_TAG, await self.caller(name, None))
        except RegistryError as error:
            if _is_missing(error):
                return False
            raise
        try:
            # Some registries list no tags of what is not there.
            return bool(json.loads(listed.listing.body)["tags"])
        except (ValueError, KeyError, TypeError):
            return False

    def _missing(self, what: str) -> str:
        names = ", ".join(member.upstream.name for member in self._members)
        return f"{what} is in none of the registries of {self._name}: {names}"


def _is_missing(error: RegistryError) -> bool:
    """Whether a registry says that it does not have something, or not for docxy: registries mix these up."""
    if isinstance(error, (Withheld, FrozenGone)):
        return False
    return isinstance(error, (ManifestUnknown, NameUnknown, BlobUnknown, Denied, Unauthorized))

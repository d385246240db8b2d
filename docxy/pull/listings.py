"""Cached pages of tags and of referrers, by the same rules as tags.

The law: a page stays fresh as long as a tag does; only a client that the upstream lets read the
repository gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from docxy.catalog.interfaces import ListingRecord, UpstreamCatalog, is_recent
from docxy.content import Listing
from docxy.errors import Denied, NameUnknown, RegistryError, TooManyRequests, Unauthorized, UpstreamError
from docxy.pull.cache_status import NEGATIVE, STALE, CacheStatus, telling
from docxy.pull.caller import Caller
from docxy.pull.interfaces import PulledListing
from docxy.pull.manifests import NEGATIVE_FOR
from docxy.pull.refusals import Pauses, RecentRefusals
from docxy.pull.rights.offline_tokens import only_cached
from docxy.pull.rights.verdicts import IRights
from docxy.pull.tag_rules import TagRules
from docxy.single_flight import SingleFlight

MAX_KEPT = 1024 * 1024
"""Bytes of a page; longer ones are passed on and not kept."""

_Key = tuple[str, str, str]
"""Repository, page, credential."""
Ask = Callable[[], Coroutine[Any, Any, Listing]]


class ListingCache:
    """Listings of one upstream."""

    _log = Logger()

    def __init__(self, known: UpstreamCatalog, rights: IRights, rules: TagRules, seconds: Callable[[], float]) -> None:
        """`seconds`: the time since the epoch."""
        self._listings = known.listings
        self._missing = known.missing
        self._seconds = seconds
        self._rights = rights
        self._rules = rules
        self._asking: SingleFlight[_Key, PulledListing] = SingleFlight()
        self._refusals: RecentRefusals[_Key] = RecentRefusals(seconds)
        self._paused: Pauses[tuple[str, str]] = Pauses(seconds)

    async def get(
        self, repository: str, page: str, caller: Caller, unknown: type[RegistryError], ask: Ask
    ) -> PulledListing:
        """A page; `page` names it within the repository, `ask` asks the upstream in the client's name.

        `unknown`: what `ask` raises when there is none.
        """
        record = await self._listings.get(repository, page)
        if caller.cached_only:
            if record is None:
                raise only_cached(f"{repository}/{page}")
            return self._kept(record, "stale-offline-token")
        if record is not None and is_recent(record.checked, self._seconds(), self._rules.ttl):
            if await self._rights.allow(repository, caller):
                return self._kept(record, None)
        elif record is not None and await self._is_paused(repository, page, caller):
            return self._kept(record, "stale-upstream-paused")
        missed = self._missing.message(repository, page, caller.credential)
        if missed is not None:
            raise unknown(missed, headers=telling(NEGATIVE))
        key = (repository, page, caller.credential)
        self._refusals.check(key)
        joined = key in self._asking
        pulled = await self._asking.do(key, lambda: self._ask(repository, page, caller, unknown, ask, record))
        return evolve(pulled, status=evolve(pulled.status, collapsed=True)) if joined else pulled

    async def _ask(
        self,
        repository: str,
        page: str,
        caller: Caller,
        unknown: type[RegistryError],
        ask: Ask,
        record: ListingRecord | None,
    ) -> PulledListing:
        try:
            listing = await ask()
        except (UpstreamError, TooManyRequests) as error:
            if isinstance(error, TooManyRequests):
                self._refusals.note((repository, page, caller.credential), error)
            if record is None or not await self._rights.allowed_lately(repository, caller):
                raise
            self._paused.note((repository, page), error)
            self._log.warn(
                "{repository}/{page} is served stale: {error}", repository=repository, page=page, error=error
            )
            return self._kept(record, "stale-upstream-failed")
        except (Unauthorized, Denied):
            await self._rights.refused(repository, caller)
            raise
        except unknown as error:
            kept_for = min(NEGATIVE_FOR, self._rules.ttl)
            if kept_for > 0:
                self._missing.keep(repository, page, caller.credential, error.message, kept_for)
            if await self._rights.allowed_lately(repository, caller):
                self._listings.drop(repository, page)
            raise
        if unknown is NameUnknown:
            await self._rights.granted(repository, caller)
        # A list of referrers gives no right: registries without that API have an empty one for everybody.
        may_read = await self._rights.allowed_lately(repository, caller)
        if listing.assumed and not may_read:
            # Of a repository that the client may not read, the upstream says the same.
            raise unknown(f"{repository}/{page.partition('?')[0]} is not on the upstream, or is private")
        # Nor does such a list displace the one that clients who may read the repository get.
        stored = may_read and len(listing.body) <= MAX_KEPT
        if stored:
            self._listings.keep(repository, page, listing.media_type, listing.body, listing.link)
        return PulledListing(listing, CacheStatus(fwd="miss" if record is None else "stale", stored=stored))

    async def _is_paused(self, repository: str, page: str, caller: Caller) -> bool:
        """Whether the upstream just failed to answer, and the client may go on without."""
        return (repository, page) in self._paused and await self._rights.allowed_lately(repository, caller)

    def _age(self, record: ListingRecord) -> float:
        return self._seconds() - record.checked

    def _kept(self, record: ListingRecord, detail: str | None) -> PulledListing:
        ttl = int(self._rules.ttl - self._age(record))
        listing = Listing(record.media_type, record.body, record.link)
        if detail is not None:
            listing = evolve(listing, passed=(STALE,))
        return PulledListing(listing, CacheStatus(hit=True, ttl=ttl, detail=detail))

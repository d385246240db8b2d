"""Cached pages of tags and of referrers, by the same rules as tags.

The law: a page is as good as a tag's digest, for as long; it is shown to whom the upstream
lets read the repository.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from docxy.errors import Denied, RegistryError, TooManyRequests, Unauthorized, UpstreamError
from docxy.flight import SingleFlight
from docxy.pull.access import IAccess
from docxy.pull.interfaces import PulledListing
from docxy.pull.limits import Limits, pause
from docxy.pull.manifests import NEGATIVE_FOR, TagRules
from docxy.pull.passes import only_cached
from docxy.pull.status import NEGATIVE, CacheStatus, telling
from docxy.storage.records import ListingRecord, UpstreamCatalog
from docxy.upstream.remote import Listing

MAX_KEPT = 1024 * 1024
"""Bytes of a page; longer ones are passed on and not kept."""

_Key = tuple[str, str, str]
"""Repository, page, credential."""
Ask = Callable[[], Coroutine[Any, Any, Listing]]


class ListingCache:
    """Listings of one upstream."""

    _log = Logger()

    def __init__(self, catalog: UpstreamCatalog, access: IAccess, rules: TagRules) -> None:
        self._catalog = catalog
        self._access = access
        self._rules = rules
        self._asking: SingleFlight[_Key, PulledListing] = SingleFlight()
        self._limits: Limits[_Key] = Limits(catalog.whole.seconds)
        self._paused: dict[tuple[str, str], float] = {}

    async def get(
        self, repository: str, page: str, authorization: str | None, unknown: type[RegistryError], ask: Ask
    ) -> PulledListing:
        """A page; `page` names it within the repository, `ask` asks the upstream in the client's name.

        `unknown`: what `ask` raises when there is none.
        """
        record = self._catalog.listing(repository, page)
        if self._access.cached_only(repository, authorization):
            if record is None:
                raise only_cached(f"{repository}/{page}")
            return self._kept(record, "stale-pass")
        if record is not None and self._age(record) < self._rules.ttl:
            await self._access.allow(repository, None, authorization, None)
            if self._access.allowed_lately(repository, authorization):
                return self._kept(record, None)
        elif record is not None and self._is_paused(repository, page, authorization):
            return self._kept(record, "stale-upstream-paused")
        credential = self._access.credential(authorization)
        missed = self._catalog.missed(repository, page, credential)
        if missed is not None:
            raise unknown(missed, headers=telling(NEGATIVE))
        key = (repository, page, credential)
        self._limits.check(key)
        joined = key in self._asking
        pulled = await self._asking.do(key, lambda: self._ask(key, authorization, unknown, ask, record))
        return evolve(pulled, status=evolve(pulled.status, collapsed=True)) if joined else pulled

    async def _ask(
        self,
        key: _Key,
        authorization: str | None,
        unknown: type[RegistryError],
        ask: Ask,
        record: ListingRecord | None,
    ) -> PulledListing:
        repository, page, credential = key
        try:
            listing = await ask()
        except (UpstreamError, TooManyRequests) as error:
            if isinstance(error, TooManyRequests):
                self._limits.note(key, error)
            if record is None or not self._access.allowed_lately(repository, authorization):
                raise
            self._paused[(repository, page)] = self._catalog.whole.seconds() + pause(error)
            self._log.warn(
                "{repository}/{page} is served stale: {error}", repository=repository, page=page, error=error
            )
            return self._kept(record, "stale-upstream-failed")
        except (Unauthorized, Denied):
            self._access.refused(repository, authorization)
            raise
        except unknown as error:
            until = self._catalog.whole.seconds() + NEGATIVE_FOR
            self._catalog.miss(repository, page, credential, error.message, until)
            if self._access.allowed_lately(repository, authorization):
                self._catalog.drop_listing(repository, page)
            raise
        self._access.granted(repository, authorization)
        stored = len(listing.body) <= MAX_KEPT
        if stored:
            self._catalog.keep_listing(repository, page, listing.media_type, listing.body, listing.link)
        return PulledListing(listing, CacheStatus(fwd="miss" if record is None else "stale", stored=stored))

    def _is_paused(self, repository: str, page: str, authorization: str | None) -> bool:
        """Whether the upstream just failed to answer, and the client may go on without."""
        now = self._catalog.whole.seconds()
        self._paused = {each: until for each, until in self._paused.items() if until > now}
        return (repository, page) in self._paused and self._access.allowed_lately(repository, authorization)

    def _age(self, record: ListingRecord) -> float:
        return self._catalog.whole.seconds() - record.checked

    def _kept(self, record: ListingRecord, detail: str | None) -> PulledListing:
        ttl = int(self._rules.ttl - self._age(record))
        listing = Listing(record.media_type, record.body, record.link)
        if detail is not None:
            listing = evolve(listing, passed=(("Warning", '110 docxy "Response is Stale"'),))
        return PulledListing(listing, CacheStatus(hit=True, ttl=ttl, detail=detail))

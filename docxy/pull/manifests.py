"""Cached manifests and tags of one upstream.

The law: a digest is served from the cache for ever, a tag until its time to live is over.
Then docxy asks the upstream by HEAD, which costs no quota, and by GET only when the digest
changed.  While the upstream does not answer, the cached tag is served stale; what the upstream
refuses, or says is gone, is not.

A tag may lead clients with different `Accept` headers to different manifests: it is kept once
for those that take every kind, and once for each narrower choice (`Accept.variant`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from docxy.catalog.interfaces import IClaims, TagRecord, UpstreamCatalog, is_recent
from docxy.content import Manifest, flaw
from docxy.errors import (
    Denied,
    ManifestUnknown,
    TooManyRequests,
    Unauthorized,
    UpstreamError,
)
from docxy.names import Digest, Reference, Tag
from docxy.observe.trail import Shared, collecting, waited
from docxy.pull.archived import ArchivedManifests
from docxy.pull.cache_status import ARCHIVED, HIT, NEGATIVE, STALE, CacheStatus, telling
from docxy.pull.caller import Caller
from docxy.pull.interfaces import PulledManifest
from docxy.pull.kept_manifests import KeptManifests
from docxy.pull.kept_tag import KeptTag, variant_of
from docxy.pull.refusals import LONGEST_PAUSE, RecentRefusals, pause
from docxy.pull.reserve import reserved
from docxy.pull.rights.offline_tokens import only_cached
from docxy.pull.rights.verdicts import IRights
from docxy.pull.sightings import Sightings
from docxy.pull.tag_rules import TagRules
from docxy.single_flight import SingleFlight
from docxy.upstream.remote import Remote

NEGATIVE_FOR = 10.0
"""Seconds for which a missing manifest is not asked for again (signature tags are asked for with every pull)."""
_CLAIM_PATIENCE = 30.0
"""Seconds to wait for another client or process that asks the upstream already."""

Work = Callable[[], Coroutine[Any, Any, PulledManifest]]
_Key = tuple[str, str | None, str, tuple[str, ...], bool, bool]
"""Repository, digest or kept tag, credential, what the upstream is asked with, whether by HEAD, whether quota is
reserved for others."""


class ManifestCache:
    """Manifests of one upstream."""

    _log = Logger()

    def __init__(
        self,
        remote: Remote,
        kept: KeptManifests,
        known: UpstreamCatalog,
        claims: IClaims,
        rights: IRights,
        rules: TagRules,
        sightings: Sightings,
        archived: ArchivedManifests | None,
        seconds: Callable[[], float],
    ) -> None:
        """`archived`: what other nodes know; `seconds`: the time since the epoch."""
        self._archived = archived
        self._sightings = sightings
        self._remote = remote
        self._kept = kept
        self._upstream = known.upstream
        self._tags = known.tags
        self._held = known.held
        self._missing = known.missing
        self._claims = claims
        self._rights = rights
        self._rules = rules
        self._seconds = seconds
        self._refusals: RecentRefusals[_Key] = RecentRefusals(seconds)
        self._asking: SingleFlight[_Key, PulledManifest] = SingleFlight()
        self._shared: dict[_Key, Shared] = {}
        """What each question that is being asked waited for."""

    async def get(self, repository: str, reference: Reference, caller: Caller, head: bool) -> PulledManifest:
        """A manifest, its bytes None for a HEAD that the cache had no bytes for.

        Raises RegistryError.
        """
        if isinstance(reference, Digest):
            return await self._by_digest(repository, reference, caller, head)
        return await self._by_tag(repository, reference, caller, head)

    async def _by_digest(self, repository: str, digest: Digest, caller: Caller, head: bool) -> PulledManifest:
        """A digest has one representation: the client's `Accept` does not matter."""
        held = await self._held.manifest(repository, digest)
        cached = await self._kept.manifest(held, digest, head)
        if held is not None and cached is not None:
            await self._rights.allow(repository, caller, digest)
            return PulledManifest(cached, HIT, max(0, int(self._seconds() - held.seen)))
        if caller.cached_only:
            raise only_cached(str(digest))

        async def fetch() -> PulledManifest:
            try:
                found = None if head else await self._archived_digest(repository, digest, caller)
                return found or await self._fetch(repository, digest, caller, (), head)
            except ManifestUnknown:
                if await self._rights.allowed_lately(repository, caller):
                    # A tag that leads to what is gone would lead clients there again.
                    await self._tags.drop_all_of(repository, digest)
                raise

        return await self._once(repository, str(digest), caller, (), head, fetch)

    async def _by_tag(self, repository: str, tag: Tag, caller: Caller, head: bool) -> PulledManifest:
        kept = await self._kept.tag(repository, tag, caller, head)
        if kept.record is not None and kept.manifest is not None:
            if caller.cached_only:
                return self._stale(kept.manifest, kept.record, "offline-token")
            pulled = await self._unasked(repository, tag, caller, kept.manifest, kept.record)
            if pulled is not None:
                return pulled
        elif caller.cached_only:
            raise only_cached(f"{repository}:{tag}")
        work = partial(self._renew, repository, tag, caller, head)
        pulled = await self._once(repository, kept.name, caller, kept.accept, head, work)
        if kept.name == tag.name and not caller.accept.takes(pulled.manifest.media_type):
            # What everybody gets has become something that this client does not take.
            kept = variant_of(tag, caller)
            pulled = await self._once(repository, kept.name, caller, kept.accept, head, work)
        return pulled

    async def _once(
        self, repository: str, name: str | None, caller: Caller, accept: tuple[str, ...], head: bool, work: Work
    ) -> PulledManifest:
        """Ask the upstream once for all who want the same; the answers of those who joined say so.

        `name`: a digest, or what a tag is kept under; `accept`: what the upstream is asked with.
        """
        if name is not None:
            missed = self._missing.message(repository, name, caller.credential)
            if missed is not None:
                raise ManifestUnknown(missed, headers=telling(NEGATIVE))
        key = (repository, name, caller.credential, accept, head, self._rules.refuses(caller))
        self._refusals.check(key)
        shared = self._shared.get(key)
        if shared is None:
            return await self._asking.do(key, lambda: self._asked(repository, key, caller, work))
        before = shared.connecting
        try:
            pulled = await self._asking.do(key, lambda: self._asked(repository, key, caller, work))
        finally:
            waited("connection", shared.connecting - before)
        return evolve(pulled, status=evolve(pulled.status, collapsed=True))

    async def _asked(self, repository: str, key: _Key, caller: Caller, work: Work) -> PulledManifest:
        shared = self._shared[key] = Shared()
        try:
            with collecting(shared):
                return await work()
        except ManifestUnknown as error:
            kept_for = min(NEGATIVE_FOR, self._rules.ttl)
            if key[1] is not None and kept_for > 0:
                self._missing.keep(repository, key[1], caller.credential, error.message, kept_for)
            raise
        except (Unauthorized, Denied):
            await self._rights.refused(repository, caller)
            raise
        except TooManyRequests as error:
            self._refusals.note(key, error)
            raise
        finally:
            del self._shared[key]

    async def _fetch(
        self, repository: str, reference: Reference, caller: Caller, accept: tuple[str, ...], head: bool
    ) -> PulledManifest:
        """From the upstream, and into the cache."""
        if not head and self._rules.refuses(caller):
            raise reserved(self._upstream, repository, reference)
        ask = self._remote.head_manifest if head else self._remote.manifest
        manifest = await ask(repository, reference, accept, caller.authorization)
        await self._rights.granted(repository, caller)
        await self._sightings.manifest(repository, manifest)
        await self._kept.keep(repository, manifest)
        if manifest.body is None:
            held = await self._held.manifest(repository, manifest.digest)
            # Bytes that came by their digest, before any tag was asked for, are the better witness too.
            manifest = manifest if held is None else evolve(manifest, size=held.size)
        return PulledManifest(manifest, CacheStatus(fwd="miss", stored=manifest.body is not None))

    async def _unasked(
        self, repository: str, tag: Tag, caller: Caller, manifest: Manifest, record: TagRecord
    ) -> PulledManifest | None:
        """What is kept, where the upstream was asked lately or is left alone for a while; None: it is to be asked."""
        ttl = self._rules.ttl_of(repository, tag)
        if is_recent(record.checked, self._seconds(), ttl):
            await self._rights.allow(repository, caller, tag)
            return self._fresh(manifest, record, ttl)
        if self._is_paused(record) and await self._rights.allowed_lately(repository, caller):
            return self._stale(manifest, record, "upstream-paused")
        return None

    async def _fetch_tag(self, repository: str, tag: Tag, caller: Caller, head: bool, kept: KeptTag) -> PulledManifest:
        if kept.record is not None and self._rules.is_immutable(repository, tag):
            return await self._fetch(repository, kept.record.digest, caller, (), head)
        pulled = await self._fetch(repository, tag, caller, kept.accept, head)
        if kept.name is not None:
            self._sightings.tag(repository, kept.name, kept.record, pulled.manifest.digest)
            manifest = pulled.manifest
            self._keep_tag(repository, kept.name, manifest.digest, manifest.media_type, manifest.size)
        return pulled

    def _keep_tag(self, repository: str, name: str, digest: Digest, media_type: str, size: int) -> None:
        """The upstream just said where a tag leads."""
        self._tags.keep(repository, name, digest, media_type, size)
        if self._archived is not None:
            self._archived.told(repository, name, digest, media_type, size)

    async def _archived_tag(self, repository: str, kept: KeptTag) -> KeptTag:
        """With what other nodes know of a tag, and its bytes; what is kept where they know no more."""
        if self._archived is None or kept.name is None:
            return kept
        record = kept.record or await self._archived.tag(repository, kept.name)
        body = None if record is None else await self._archived.body(record.digest)
        if record is None or body is None or flaw(body, record.media_type) is not None:
            return kept
        return evolve(kept, record=record, manifest=Manifest(record.media_type, record.digest, len(body), body))

    async def _archived_digest(self, repository: str, digest: Digest, caller: Caller) -> PulledManifest | None:
        """A manifest's bytes from the archive, where the upstream says that this repository has it."""
        body = None if self._archived is None else await self._archived.body(digest)
        if body is None:
            return None
        try:
            told = await self._remote.head_manifest(repository, digest, (), caller.authorization)
            await self._rights.granted(repository, caller)
            await self._sightings.manifest(repository, told)
            media_type = told.media_type
        except (UpstreamError, TooManyRequests):
            listed = await self._kept.listing(repository, digest)
            if listed is None or not await self._rights.allowed_lately(repository, caller):
                raise
            media_type = listed.media_type
        if flaw(body, media_type) is not None:
            return None
        manifest = Manifest(media_type, digest, len(body), body)
        await self._kept.keep(repository, manifest)
        return PulledManifest(manifest, ARCHIVED)

    async def _renew(self, repository: str, tag: Tag, caller: Caller, head: bool) -> PulledManifest:
        """A tag that is not known, or not fresh: ask, unless another process just did."""
        name = (await self._kept.tag(repository, tag, caller, head)).name
        claim = f"{self._upstream}/{repository}:{name} {caller.credential}"
        mine = name is not None and await self._claims.claim(claim, _CLAIM_PATIENCE)
        try:
            kept = await self._kept.tag(repository, tag, caller, head, latest=True)
            if kept.record is None or kept.manifest is None:
                found = await self._archived_tag(repository, kept)
                if found.record is None or found.manifest is None:
                    return await self._fetch_tag(repository, tag, caller, head, kept)
                # However lately another node asked, this one asks too: the archive is not the upstream.
                asked = await self._revalidate(repository, tag, caller, head, found, found.record, found.manifest)
                if asked.manifest.digest == found.manifest.digest:
                    await self._kept.keep(repository, found.manifest)
                return asked
            # What another process was told meanwhile is as good.
            unasked = await self._unasked(repository, tag, caller, kept.manifest, kept.record)
            if unasked is not None:
                return unasked
            return await self._revalidate(repository, tag, caller, head, kept, kept.record, kept.manifest)
        finally:
            if mine:
                self._claims.release(claim)

    async def _revalidate(
        self,
        repository: str,
        tag: Tag,
        caller: Caller,
        head: bool,
        kept: KeptTag,
        record: TagRecord,
        cached: Manifest,
    ) -> PulledManifest:
        name = kept.name or tag.name
        try:
            told = await self._remote.head_manifest(repository, tag, kept.accept, caller.authorization)
            await self._rights.granted(repository, caller)
            if told.digest != record.digest:
                await self._sightings.manifest(repository, told)
                self._sightings.tag(repository, name, record, told.digest)
                if self._rules.spares(caller):
                    return self._stale(cached, record, "saving-quota")
                # A HEAD costs no quota, a GET does: this is where a pull limit strikes.
                pulled = await self._fetch_tag(repository, tag, caller, head, kept)
                return evolve(pulled, status=evolve(pulled.status, fwd="stale"))
        except (UpstreamError, TooManyRequests) as error:
            if not await self._rights.allowed_lately(repository, caller):
                raise
            self._tags.postpone(repository, name, record, self._seconds() + pause(error))
            self._log.warn("{repository}:{tag} is served stale: {error}", repository=repository, tag=tag, error=error)
            return self._stale(cached, record, "upstream-failed")
        except ManifestUnknown:
            if not await self._rights.allowed_lately(repository, caller):
                # Registries say the same of what is private.
                raise
            self._sightings.tag(repository, name, record, None)
            if self._rules.keep_gone or self._rules.pinned(repository, tag.name):
                return self._stale(cached, record, "gone")
            self._tags.drop(repository, name)
            if self._archived is not None:
                self._archived.gone(repository, name)
            raise
        if self._rules.keep_gone or self._rules.pinned(repository, tag.name):  # it may have been gone meanwhile
            self._sightings.tag(repository, name, None, record.digest)
        self._keep_tag(repository, name, record.digest, record.media_type, record.size)
        manifest = evolve(cached, passed=told.passed)
        return PulledManifest(manifest, CacheStatus(fwd="stale", ttl=int(self._rules.ttl)), 0)

    def _is_paused(self, record: TagRecord) -> bool:
        # No pause is longer: one that seems to be was noted before the clock was set back.
        return 0 < record.retry - self._seconds() <= LONGEST_PAUSE

    def _fresh(self, cached: Manifest, record: TagRecord, ttl: float) -> PulledManifest:
        age = max(0, int(self._seconds() - record.checked))
        return PulledManifest(cached, CacheStatus(hit=True, ttl=int(ttl) - age), age)

    def _stale(self, cached: Manifest, record: TagRecord, why: str) -> PulledManifest:
        age = max(0, int(self._seconds() - record.checked))
        passed = (*cached.passed, STALE)
        status = CacheStatus(hit=True, ttl=int(self._rules.ttl) - age, detail=f"stale-{why}")
        return PulledManifest(evolve(cached, passed=passed), status, age)

"""Cached manifests and tags of one upstream.

The law: a digest is served from the cache for ever, a tag until its time to live is over.
Then the upstream is asked by HEAD, which costs no quota, and by GET only when the digest
changed.  What can't be asked is served stale; what is refused or gone is not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from docxy.errors import (
    Denied,
    ManifestUnknown,
    TooManyRequests,
    Unauthorized,
    UpstreamError,
)
from docxy.flight import SingleFlight
from docxy.names import INDEX_TYPES, MANIFEST_TYPES, Digest, Reference, Tag
from docxy.pull.access import IAccess
from docxy.pull.interfaces import PulledManifest
from docxy.pull.limits import Limits, pause
from docxy.pull.passes import only_cached
from docxy.pull.status import HIT, NEGATIVE, CacheStatus, telling
from docxy.storage.interfaces import DigestMismatch, IBlobStore, StorageError, WriterBusy
from docxy.storage.recent import Recent
from docxy.storage.records import HeldManifest, TagRecord, UpstreamCatalog
from docxy.upstream.remote import Manifest, Remote

NEGATIVE_FOR = 10.0
"""Seconds for which a missing manifest is not asked for again (signature tags are asked for with every pull)."""
STRETCH = 10
"""Times as long as usual a tag is believed while quota is saved."""
_CLAIMED_FOR = 30.0
_CLAIM_POLL = 0.02

Work = Callable[[], Coroutine[Any, Any, PulledManifest]]


@frozen
class Client:
    """Who asks, and what it can take."""

    authorization: str | None
    accept: Sequence[str]
    head: bool

    @property
    def takes_all(self) -> bool:
        """Whether its answer is the one that everybody gets.

        To others a registry may give one platform's manifest instead of the index, or 404.
        """
        return all(acceptable(self.accept, each) for each in (*INDEX_TYPES, *MANIFEST_TYPES))


@frozen
class TagRules:
    """How tags age."""

    told: float
    """Seconds a tag is believed, as the operator chose."""
    keep_gone: bool = False
    """Whether a tag that the upstream deleted is served on."""
    saving: Callable[[], bool] = lambda: False
    """Whether the upstream's quota is nearly spent, so that what is cached has to do."""

    @property
    def ttl(self) -> float:
        """Seconds a tag is believed at this moment."""
        return self.told * STRETCH if self.saving() else self.told


class ManifestCache:
    """Manifests of one upstream."""

    _log = Logger()

    def __init__(
        self,
        remote: Remote,
        store: IBlobStore,
        recent: Recent,
        catalog: UpstreamCatalog,
        access: IAccess,
        rules: TagRules,
        clock: IReactorTime,
    ) -> None:
        self._remote = remote
        self._store = store
        self._recent = recent
        self._catalog = catalog
        self._access = access
        self._rules = rules
        self._clock = clock
        self._limits: Limits[tuple[str, Reference, str]] = Limits(catalog.whole.seconds)
        self._asking: SingleFlight[tuple[str, Reference, str, tuple[str, ...], bool], PulledManifest] = SingleFlight()

    @property
    def _seconds(self) -> Callable[[], float]:
        return self._catalog.whole.seconds

    async def get(self, repository: str, reference: Reference, client: Client) -> PulledManifest:
        """A manifest, its bytes None for a HEAD that the cache had no bytes for.

        Raises RegistryError.
        """
        if isinstance(reference, Digest):
            return await self._by_digest(repository, reference, client)
        return await self._by_tag(repository, reference, client)

    async def _by_digest(self, repository: str, digest: Digest, client: Client) -> PulledManifest:
        held = self._catalog.held_manifest(repository, digest)
        cached = await self._cached(held, digest, client)
        if held is not None and cached is not None:
            await self._access.allow(repository, digest, client.authorization, None)
            return PulledManifest(cached, HIT, max(0, int(self._seconds() - held.seen)))
        if self._access.cached_only(repository, client.authorization):
            raise only_cached(str(digest))
        return await self._once(repository, digest, client, lambda: self._fetch(repository, digest, client))

    async def _by_tag(self, repository: str, tag: Tag, client: Client) -> PulledManifest:
        record = self._catalog.tag(repository, str(tag))
        cached = await self._recorded(repository, record, client)
        if record is not None and cached is not None:
            if self._access.cached_only(repository, client.authorization):
                return self._stale(cached, record, "pass")
            now = self._seconds()
            if now - record.checked < self._rules.ttl:
                await self._access.allow(repository, tag, client.authorization, None)
                return self._fresh(cached, record)
            if now < record.retry and self._access.allowed_lately(repository, client.authorization):
                return self._stale(cached, record, "upstream-paused")
        elif self._access.cached_only(repository, client.authorization):
            raise only_cached(f"{repository}:{tag}")
        return await self._once(repository, tag, client, lambda: self._renew(repository, tag, client))

    async def _once(self, repository: str, reference: Reference, client: Client, work: Work) -> PulledManifest:
        """Ask the upstream once for all who want the same; the answers of those who joined say so."""
        credential = self._access.credential(client.authorization)
        missed = self._catalog.missed(repository, str(reference), credential)
        if missed is not None:
            raise ManifestUnknown(missed, headers=telling(NEGATIVE))
        self._limits.check((repository, reference, credential))
        key = (repository, reference, credential, tuple(client.accept), client.head)
        joined = key in self._asking
        pulled = await self._asking.do(key, lambda: self._asked(repository, reference, client, work))
        return evolve(pulled, status=evolve(pulled.status, collapsed=True)) if joined else pulled

    async def _asked(self, repository: str, reference: Reference, client: Client, work: Work) -> PulledManifest:
        try:
            return await work()
        except ManifestUnknown as error:
            if client.takes_all:
                credential = self._access.credential(client.authorization)
                until = self._seconds() + NEGATIVE_FOR
                self._catalog.miss(repository, str(reference), credential, error.message, until)
            raise
        except (Unauthorized, Denied):
            self._access.refused(repository, client.authorization)
            raise
        except TooManyRequests as error:
            self._limits.note((repository, reference, self._access.credential(client.authorization)), error)
            raise

    async def _fetch(self, repository: str, reference: Reference, client: Client) -> PulledManifest:
        """From the upstream, and into the cache."""
        ask = self._remote.head_manifest if client.head else self._remote.manifest
        manifest = await ask(repository, reference, client.accept, client.authorization)
        self._access.granted(repository, client.authorization)
        await self._keep(repository, manifest)
        if isinstance(reference, Tag) and client.takes_all:
            self._catalog.keep_tag(repository, str(reference), manifest.digest, manifest.media_type, manifest.size)
        return PulledManifest(manifest, CacheStatus(fwd="miss", stored=manifest.body is not None))

    async def _renew(self, repository: str, tag: Tag, client: Client) -> PulledManifest:
        """A tag that is not known, or not fresh: ask, unless another process just did."""
        claim = f"{self._catalog.upstream}/{repository}:{tag} {self._access.credential(client.authorization)}"
        mine = await self._claim(claim)
        try:
            record = self._catalog.tag(repository, str(tag))
            cached = await self._recorded(repository, record, client)
            if record is None or cached is None:
                return await self._fetch(repository, tag, client)
            # What another process was told meanwhile is as good.
            if self._seconds() - record.checked < self._rules.ttl:
                await self._access.allow(repository, tag, client.authorization, None)
                return self._fresh(cached, record)
            if self._seconds() < record.retry and self._access.allowed_lately(repository, client.authorization):
                return self._stale(cached, record, "upstream-paused")
            return await self._revalidate(repository, tag, client, record, cached)
        finally:
            if mine:
                self._catalog.whole.release(claim)

    async def _claim(self, key: str) -> bool:
        """Whether we ask; else another process did, and is done or late."""
        if self._catalog.whole.claim(key, _CLAIMED_FOR):
            return True
        deadline = self._clock.seconds() + _CLAIMED_FOR
        while self._catalog.whole.claimed(key) and self._clock.seconds() < deadline:
            await deferLater(self._clock, _CLAIM_POLL, lambda: None)
        return False

    async def _revalidate(
        self, repository: str, tag: Tag, client: Client, record: TagRecord, cached: Manifest
    ) -> PulledManifest:
        try:
            told = await self._remote.head_manifest(repository, tag, client.accept, client.authorization)
            self._access.granted(repository, client.authorization)
            if told.digest != record.digest:
                if self._rules.saving():
                    return self._stale(cached, record, "saving-quota")
                # A HEAD costs no quota, a GET does: this is where a pull limit strikes.
                pulled = await self._fetch(repository, tag, client)
                return evolve(pulled, status=evolve(pulled.status, fwd="stale"))
        except (UpstreamError, TooManyRequests) as error:
            if not self._access.allowed_lately(repository, client.authorization):
                raise
            self._catalog.postpone_tag(repository, str(tag), self._seconds() + pause(error))
            self._log.warn("{repository}:{tag} is served stale: {error}", repository=repository, tag=tag, error=error)
            return self._stale(cached, record, "upstream-failed")
        except ManifestUnknown:
            if not self._access.allowed_lately(repository, client.authorization) or not client.takes_all:
                # Registries say the same of what is private, and of what is there in types that were not accepted.
                raise
            if self._rules.keep_gone:
                return self._stale(cached, record, "gone")
            self._catalog.drop_tag(repository, str(tag))
            raise
        self._catalog.keep_tag(repository, str(tag), record.digest, record.media_type, record.size)
        manifest = evolve(cached, passed=told.passed)
        return PulledManifest(manifest, CacheStatus(fwd="stale", ttl=int(self._rules.ttl)), 0)

    def _fresh(self, cached: Manifest, record: TagRecord) -> PulledManifest:
        age = max(0, int(self._seconds() - record.checked))
        return PulledManifest(cached, CacheStatus(hit=True, ttl=int(self._rules.ttl) - age), age)

    def _stale(self, cached: Manifest, record: TagRecord, why: str) -> PulledManifest:
        age = max(0, int(self._seconds() - record.checked))
        passed = (*cached.passed, ("Warning", '110 docxy "Response is Stale"'))
        status = CacheStatus(hit=True, ttl=int(self._rules.ttl) - age, detail=f"stale-{why}")
        return PulledManifest(evolve(cached, passed=passed), status, age)

    async def _recorded(self, repository: str, record: TagRecord | None, client: Client) -> Manifest | None:
        """What a tag's record leads to, when the client can take it and the bytes it needs are here."""
        if record is None or not acceptable(client.accept, record.media_type):
            return None
        if client.head:
            return Manifest(record.media_type, record.digest, record.size, None)
        return await self._cached(self._catalog.held_manifest(repository, record.digest), record.digest, client)

    async def _cached(self, held: HeldManifest | None, digest: Digest, client: Client) -> Manifest | None:
        if held is None or not acceptable(client.accept, held.media_type):
            return None
        if client.head:
            return Manifest(held.media_type, digest, held.size, None)
        body = await self._recent.load(digest)
        return None if body is None else Manifest(held.media_type, digest, len(body), body)

    async def _keep(self, repository: str, manifest: Manifest) -> None:
        if manifest.body is None:
            # What a HEAD tells is not verified by anything, and what is held is held for ever.
            return
        try:
            writer = await self._store.write(manifest.digest)
            try:
                await writer.announce(manifest.size)
                await writer.write(manifest.body[writer.offset :])
                await writer.commit()
            except BaseException:
                await writer.cancel()
                raise
        except (WriterBusy, DigestMismatch):
            pass
        except StorageError as error:
            self._log.error("{digest} is not cached: {error}", digest=manifest.digest, error=error)
        self._recent.keep(manifest.digest, manifest.body)
        self._catalog.hold(repository, manifest.digest, manifest.media_type, manifest.size)


def acceptable(accept: Sequence[str], media_type: str) -> bool:
    """Whether an Accept takes a media type (RFC 9110 section 12.5.1); no Accept takes anything."""
    ranges = [line for value in accept for line in value.split(",") if line.strip()]
    if not ranges:
        return True
    for line in ranges:
        named, *parameters = (part.strip().lower() for part in line.split(";"))
        if any(p.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for p in parameters):
            continue
        if named in (media_type, "*/*", f"{media_type.partition('/')[0]}/*"):
            return True
    return False

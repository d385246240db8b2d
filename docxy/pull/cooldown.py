"""Manifests that are old enough.

The law: *a cooldown never breaks a pull that has an answer*.  A tag whose digest is younger than the operator wants
is answered with the newest digest of that tag that is old enough; only where there is none, `on_new` decides.  How
old a digest is, docxy's own first sight of it says, never its publisher; an index and what it names are of one age.

The gate stands around everything that answers for a manifest: GET and HEAD, by tag and by digest, cached or not, and
as a blob, where docxy knows that it is a manifest.
What a tag leads to is asked for by HEAD first, so that no pull is spent on what is not served.  What passes as an
exception is noted as such, since a client asks for its digest next, perhaps at another process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, MutableMapping

from attrs import evolve
from cachetools import LRUCache
from twisted.logger import Logger

from docxy import moments
from docxy.catalog.interfaces import IHistory, Sighting
from docxy.content import index_manifests
from docxy.errors import ManifestUnknown, TooManyRequests, UpstreamError, Withheld
from docxy.names import Digest, Reference, Tag
from docxy.observe.verdict import duration
from docxy.pull.cache_status import CacheStatus, telling
from docxy.pull.caller import Caller
from docxy.pull.interfaces import PulledManifest
from docxy.pull.manifests import ManifestCache
from docxy.pull.sightings import Sightings
from docxy.settings.cooldown import Cooldown, OnNew

OLDER, NEW, WOULD_DENY = "cooldown", "cooldown-new", "cooldown-observed"
"""Details of `Cache-Status`: an older digest in its place; a young one, as there is no older; the same, observed."""
DENIED = CacheStatus(detail="cooldown-denied")
"""Of an error: it is too young, and the operator chose to refuse it."""
MOST_CHANGES = 100
"""Changes of a tag that are looked at."""
MOST_TRIED = 5
"""Older digests that are asked for, where the upstream does not have them any more."""
_INDEXES = 1_000

Rule = Callable[[str, str | None], Cooldown | None]
"""Repository and tag -> what goes for it; the tag is None for a digest."""
Released = Callable[[str, str | None, Digest | None], bool]
"""Whether the operator excepted a repository's tag, or a digest."""


class Cooled:
    """Those of one upstream."""

    _log = Logger()

    def __init__(
        self,
        upstream: str,
        manifests: ManifestCache,
        history: IHistory,
        sightings: Sightings,
        rule: Rule,
        released: Released,
        seconds: Callable[[], float],
    ) -> None:
        """`upstream`: its name; `seconds`: the time since the epoch."""
        self._upstream = upstream
        self._manifests = manifests
        self._history = history
        self._sightings = sightings
        self._rule = rule
        self._released = released
        self._seconds = seconds
        self._shared: MutableMapping[tuple[str, Digest, Sighting], bool] = LRUCache(_INDEXES)
        self.counts: Counter[str] = Counter()
        """What became of what was too young: `older`, `served`, `observed`, `denied`."""

    async def get(self, repository: str, reference: Reference, caller: Caller, head: bool) -> PulledManifest:
        """See `ManifestCache.get`.  Raises Denied for what is too young."""
        of_digests = self._rule(repository, None)
        if isinstance(reference, Digest):
            if of_digests is None:
                return await self._manifests.get(repository, reference, caller, head)
            return await self._by_digest(repository, reference, caller, head, of_digests)
        rule = self._rule(repository, reference.name)
        if rule is None and of_digests is None:
            return await self._manifests.get(repository, reference, caller, head)
        if rule is None or self._released(repository, reference.name, None):
            pulled = await self._manifests.get(repository, reference, caller, head)
            return await self._passed(repository, pulled, of_digests)
        return await self._by_tag(repository, reference, caller, head, rule, of_digests)

    async def _by_tag(
        self, repository: str, tag: Tag, caller: Caller, head: bool, rule: Cooldown, of_digests: Cooldown | None
    ) -> PulledManifest:
        pulled = await self._manifests.get(repository, tag, caller, True)
        if not head and await self._young(repository, pulled.manifest.digest, tag.name, rule) is None:
            # It may have moved again meanwhile.
            pulled = await self._manifests.get(repository, tag, caller, False)
        young = await self._young(repository, pulled.manifest.digest, tag.name, rule)
        if young is None:
            return await self._passed(repository, pulled, of_digests)
        older = await self._older(repository, tag, caller, head, rule)
        if older is not None:
            self.counts["older"] += 1
            return await self._listed(repository, older, of_digests)
        what = f"{repository}:{tag} leads to {pulled.manifest.digest}, which"
        detail = self._on_new(what, young, rule, "no older digest of this tag can be served")
        if not head and pulled.manifest.body is None:
            pulled = await self._manifests.get(repository, tag, caller, False)
        pulled = evolve(pulled, status=evolve(pulled.status, detail=pulled.status.detail or detail))
        return await self._passed(repository, pulled, of_digests)

    async def _by_digest(
        self, repository: str, digest: Digest, caller: Caller, head: bool, rule: Cooldown
    ) -> PulledManifest:
        detail = None
        if await self._young(repository, digest, None, rule) is not None:
            # The upstream has it and this client may read it: only then is its age anybody's business.
            await self._manifests.get(repository, digest, caller, True)
            await self._history.seen(repository, digest)
            young = await self._young(repository, digest, None, rule)
            if young is not None:
                detail = self._on_new(f"{repository}@{digest}", young, rule, "it was asked for by its digest")
        pulled = await self._manifests.get(repository, digest, caller, head)
        if detail is not None:
            return evolve(pulled, status=evolve(pulled.status, detail=detail))
        return await self._passed(repository, pulled, rule)

    async def check_blob(self, repository: str, digest: Digest) -> None:
        """Raises Withheld for a blob that is known to be a manifest which is too young, and refused for that."""
        rule = self._rule(repository, None)
        if rule is None or rule.on_new is not OnNew.DENY or self._released(repository, None, digest):
            return
        sighting = await self._history.sighting(repository, digest)
        if sighting is None or self._is_old(sighting, rule):
            return
        # Another process may know that it is excused.
        sighting = await self._history.sighting(repository, digest, latest=True) or sighting
        if not sighting.excused and not self._is_old(sighting, rule):
            self._on_new(f"{repository}@{digest}", sighting, rule, "it was asked for as a blob")

    async def _young(self, repository: str, digest: Digest, tag: str | None, rule: Cooldown) -> Sighting | None:
        """How long it is known, when that is not long enough; a digest that was never seen is seen now."""
        sighting = await self._history.sighting(repository, digest)
        if self._is_old(sighting, rule) or self._released(repository, tag, digest):
            return None
        # Another process may know better.
        sighting = await self._history.sighting(repository, digest, latest=True)
        if self._is_old(sighting, rule) or (tag is None and sighting is not None and sighting.excused):
            return None
        if sighting is None and tag is not None:
            # The upstream just said that it has it, or did so once.
            return await self._history.seen(repository, digest)
        return Sighting(self._seconds()) if sighting is None else sighting

    def _is_old(self, sighting: Sighting | None, rule: Cooldown) -> bool:
        return sighting is not None and self._seconds() - sighting.first >= rule.min_age

    async def _older(
        self, repository: str, tag: Tag, caller: Caller, head: bool, rule: Cooldown
    ) -> PulledManifest | None:
        """The newest that is old enough, that the client takes and that can still be had."""
        changes = await self._history.changes(repository, tag.name, MOST_CHANGES)
        if not caller.accept.takes_all and caller.accept.variant is not None:
            variant = f"{tag.name} {caller.accept.variant}"
            changes = [*await self._history.changes(repository, variant, MOST_CHANGES), *changes]
        now = self._seconds()
        old = dict.fromkeys(
            each.digest for each in changes if each.digest is not None and now - each.first >= rule.min_age
        )
        for digest in [*old][:MOST_TRIED]:
            try:
                pulled = await self._manifests.get(repository, digest, caller, head)
            except (ManifestUnknown, UpstreamError, TooManyRequests) as error:
                self._log.info(
                    "{repository}:{tag}: {digest} is old enough and cannot be had: {error}",
                    repository=repository,
                    tag=tag,
                    digest=digest,
                    error=error,
                )
                continue
            if caller.accept.takes(pulled.manifest.media_type):
                return evolve(pulled, status=evolve(pulled.status, detail=OLDER))
        return None

    def _on_new(self, what: str, young: Sighting, rule: Cooldown, why: str) -> str:
        """What goes into `Cache-Status` where it is served.  Raises Denied."""
        until = young.first + rule.min_age
        told = (
            f"{self._upstream}/{what} was first seen here {moments.shown(young.first)}: this mirror's cooldown of "
            f"{duration(rule.min_age)} holds it back until {moments.shown(until)}, and {why}"
        )
        if rule.on_new is OnNew.DENY:
            self.counts["denied"] += 1
            raise Withheld(told, headers=telling(DENIED))
        if rule.on_new is OnNew.OBSERVE:
            self.counts["observed"] += 1
            self._log.warn("it would be denied: {told}", told=told)
            return WOULD_DENY
        self.counts["served"] += 1
        return NEW

    async def _passed(self, repository: str, pulled: PulledManifest, of_digests: Cooldown | None) -> PulledManifest:
        """What is served by its tag, however young it is, is served by its digest too, with what it names."""
        manifest = pulled.manifest
        if of_digests is None or of_digests.on_new is not OnNew.DENY:
            return pulled
        sighting = await self._history.sighting(repository, manifest.digest)
        if sighting is not None and (sighting.excused or self._is_old(sighting, of_digests)):
            return await self._listed(repository, pulled, of_digests)
        first = self._seconds() if sighting is None else sighting.first
        self._history.lists(repository, Sighting(first, excused=True), [manifest.digest, *index_manifests(manifest)])
        await self._history.flushed()
        return pulled

    async def _listed(self, repository: str, pulled: PulledManifest, of_digests: Cooldown | None) -> PulledManifest:
        """What an index names is known, to all processes, before a client can ask for it."""
        manifest = pulled.manifest
        if of_digests is None or of_digests.on_new is not OnNew.DENY or manifest.body is None:
            return pulled
        sighting = await self._history.sighting(repository, manifest.digest)
        if sighting is not None:
            key = (repository, manifest.digest, sighting)
            if key not in self._shared:
                self._shared[key] = True
                self._sightings.index(repository, manifest, sighting)
                await self._history.flushed()
        return pulled

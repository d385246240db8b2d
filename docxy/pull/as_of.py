"""What a tag was at a time.

The law: *the same name and the same moment have the same answer*, as long as it can be had: the history answers, and
nothing newer takes its place.  Who may read the repository now may read what it was; nobody else learns that it was.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from docxy import moments
from docxy.catalog.interfaces import AsOf, IHistory
from docxy.errors import ManifestUnknown
from docxy.names import Digest, Reference, Tag
from docxy.pull.archived import ArchivedManifests
from docxy.pull.cache_status import CacheStatus, telling
from docxy.pull.caller import Caller
from docxy.pull.cooldown import Cooled
from docxy.pull.interfaces import PulledManifest
from docxy.pull.rights.verdicts import IRights

AS_OF = "as-of"
"""Detail of `Cache-Status`: what the tag was at the time that was asked for."""
UNKNOWN_THEN = CacheStatus(detail="as-of")
"""Of an error: docxy does not know what the tag was then."""


@frozen
class Dated:
    """The manifests of one upstream, now and before."""

    upstream: str
    """Its name."""
    cooled: Cooled
    rights: IRights
    history: IHistory
    archived: ArchivedManifests | None
    """What other nodes know."""
    seconds: Callable[[], float]
    """The time since the epoch."""

    async def get(self, repository: str, reference: Reference, caller: Caller, head: bool) -> PulledManifest:
        """See `Cooled.get`; of a tag what it was at `caller.as_of`, where there is one."""
        if caller.as_of is None or isinstance(reference, Digest):
            return await self.cooled.get(repository, reference, caller, head)
        at = caller.as_of
        found = await self._known(repository, reference.name, at)
        # What its narrow Accept selects of the tag has a history of its own.
        narrow = None
        if caller.accept.variant:
            narrow = await self._known(repository, f"{reference} {caller.accept.variant}", at)
        if narrow is not None and found.change is None and narrow.change is not None:
            found, narrow = narrow, None
        await self._may_read(repository, reference, caller, found)
        pulled = await self._then(repository, reference, caller, at, found, head)
        is_other = narrow is not None and narrow.change is not None and narrow.change.digest is not None
        if narrow is not None and is_other and not caller.accept.takes(pulled.manifest.media_type):
            pulled = await self._then(repository, reference, caller, at, narrow, head)
        return evolve(pulled, status=evolve(pulled.status, detail=pulled.status.detail or AS_OF))

    async def _known(self, repository: str, name: str, at: float) -> AsOf:
        """Where a tag led, by its name in the catalog."""
        found = await self.history.as_of(repository, name, at)
        if found.began is None and self.archived is not None:
            await self.archived.tag(repository, name)
            found = await self.history.as_of(repository, name, at)
        return found

    async def _may_read(self, repository: str, tag: Tag, caller: Caller, found: AsOf) -> None:
        """Raises what the upstream says to a client that may not."""
        if not await self.rights.allow(repository, caller):
            digest = None if found.change is None else found.change.digest
            await self.rights.allow(repository, caller, tag if digest is None else digest)

    async def _then(
        self, repository: str, tag: Tag, caller: Caller, at: float, found: AsOf, head: bool
    ) -> PulledManifest:
        what, then = f"{self.upstream}/{repository}:{tag}", moments.shown(at)
        change = found.change
        if at > self.seconds():
            raise self._unknown(f"what {what} will be at {then}, nobody knows yet")
        if change is None and found.began is None:
            raise self._unknown(f"this mirror has never seen {what}, so it cannot say what it was at {then}")
        if change is None:
            assert found.began is not None
            raise self._unknown(
                f"this mirror first saw {what} at {moments.shown(found.began)}, and cannot say what it was at {then}"
            )
        if change.digest is None:
            raise self._unknown(f"{what} was not on the registry at {then}: it was gone by {moments.shown(change.at)}")
        try:
            return await self.cooled.get(repository, change.digest, caller, head)
        except ManifestUnknown as error:
            raise ManifestUnknown(
                f"{what} was {change.digest} at {then}, and that is neither cached nor on the registry any more",
                headers=error.headers,
            ) from None

    def _unknown(self, message: str) -> ManifestUnknown:
        return ManifestUnknown(message, headers=telling(UNKNOWN_THEN))

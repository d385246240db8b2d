"""A pull without a cache: every request is one to the upstream.

The law: nothing is kept; whole blobs are verified while they pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from zope.interface import implementer

from docxy.archive.interfaces import Link
from docxy.bodies import IBody, VerifiedBody
from docxy.errors import ManifestUnknown, RangeInvalid, UpstreamUnavailable
from docxy.names import Digest, Reference, Tag
from docxy.pull.accept import read
from docxy.pull.blobs.again import Source
from docxy.pull.blobs.resuming import Resuming
from docxy.pull.cache_status import BYPASS, CacheStatus
from docxy.pull.caller import Caller
from docxy.pull.cooldown import Rule
from docxy.pull.interfaces import CachedTag, IPull, PulledBlob, PulledListing, PulledManifest, TagChange
from docxy.pull.reserve import reserved
from docxy.pull.rights.login import ILogin, NoLogin
from docxy.ranges import Range
from docxy.settings.cooldown import OnNew
from docxy.upstream.blob_response import BlobResponse
from docxy.upstream.remote import Remote


@implementer(IPull)
@frozen
class DirectPull:
    """Relays one upstream."""

    unanswered = BYPASS
    redirects = False

    remote: Remote
    login: ILogin
    refuses: Callable[[Caller], bool]
    """Whether nothing is spent for a client, because others have a reserve."""
    resuming: Resuming
    rule: Rule
    """How old an image must be, where there should be a cache and it cannot be used."""

    async def ping(self, authorization: str | None) -> None:
        await self.login.ping(authorization)

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        return await self.login.token(parameters, authorization, post)

    async def caller(self, repository: str, authorization: str | None, accept: Sequence[str] = ()) -> Caller:
        return Caller(authorization, credential="", cached_only=False, accept=read(accept))

    async def manifest(self, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        _must_be_now(caller)
        self._must_know_ages(repository, reference)
        if self.refuses(caller):
            raise reserved(self.remote.name, repository, reference)
        manifest = await self.remote.manifest(repository, reference, caller.accept.lines, caller.authorization)
        return PulledManifest(manifest, BYPASS)

    async def head_manifest(self, repository: str, reference: Reference, caller: Caller) -> PulledManifest:
        _must_be_now(caller)
        self._must_know_ages(repository, reference)
        manifest = await self.remote.head_manifest(repository, reference, caller.accept.lines, caller.authorization)
        return PulledManifest(manifest, BYPASS)

    def _must_know_ages(self, repository: str, reference: Reference) -> None:
        """Refuse everything where what is too young is to be refused.  Raises UpstreamUnavailable."""
        cooldown = self.rule(repository, reference.name if isinstance(reference, Tag) else None)
        if cooldown is not None and cooldown.on_new is OnNew.DENY:
            raise UpstreamUnavailable(
                f"this mirror cannot use its cache, so it cannot tell how old {repository}:{reference} is, and its "
                "cooldown refuses what is too young; its log says why"
            )

    async def blob(self, repository: str, digest: Digest, asked: Range | None, caller: Caller) -> PulledBlob:
        async def ask(wanted: Range | None) -> BlobResponse:
            return await self.remote.blob(repository, digest, wanted, caller.authorization)

        return await direct_blob(ask, digest, asked, self.resuming)

    async def elsewhere(self, repository: str, digest: Digest, caller: Caller) -> Link | None:
        return None

    async def blob_size(self, repository: str, digest: Digest, caller: Caller) -> tuple[int | None, CacheStatus]:
        return await self.remote.blob_size(repository, digest, caller.authorization), BYPASS

    async def tags(self, repository: str, query: str, caller: Caller) -> PulledListing:
        return PulledListing(await self.remote.tags(repository, query, caller.authorization), BYPASS)

    async def repositories(self, after: str, limit: int) -> list[str]:
        return []

    async def cached(self, repository: str, limit: int) -> list[CachedTag]:
        return []

    async def changes(self, repository: str, tag: str | None, limit: int) -> list[TagChange]:
        return []

    async def nameable(self, repositories: Sequence[str]) -> list[str]:
        # Where clients log in to the upstream, nothing is known of what others may read.
        return list(repositories) if isinstance(self.login, NoLogin) else []

    async def referrers(self, repository: str, digest: Digest, query: str, caller: Caller) -> PulledListing:
        return PulledListing(await self.remote.referrers(repository, digest, query, caller.authorization), BYPASS)


def _must_be_now(caller: Caller) -> None:
    """Nobody remembers what was.  Raises ManifestUnknown."""
    if caller.as_of is not None:
        raise ManifestUnknown("this mirror keeps nothing (it has no cache), so it cannot say what a tag was")


async def direct_blob(ask: Source, digest: Digest, asked: Range | None, resuming: Resuming) -> PulledBlob:
    """A blob straight from the upstream: verified when whole, cut to the range when the upstream can't."""
    answer = await ask(asked)
    span = answer.span
    if span is not None and asked is not None and span.stop - span.first == span.size:
        try:
            span = asked.within(span.size)
        except RangeInvalid:
            answer.response.abandon()
            raise
    body: IBody = resuming.body(digest, answer, span, ask)
    # Without a length a range has no correct answer, and the whole is one.
    if span is None or span.stop - span.first == span.size:
        body = VerifiedBody(body, digest, answer.response.source)
    return PulledBlob(span, body, BYPASS, answer.passed)

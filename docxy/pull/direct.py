"""A pull without a cache: every request is one to the upstream.

The law: nothing is kept; whole blobs are verified while they pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from zope.interface import implementer

from docxy.names import Digest, Reference
from docxy.pull.interfaces import IPull, PulledBlob, PulledListing, PulledManifest
from docxy.pull.login import ILogin
from docxy.pull.status import BYPASS, CacheStatus
from docxy.ranges import Range
from docxy.streaming import SizedBody, VerifiedBody
from docxy.upstream.body import IBody
from docxy.upstream.remote import Remote


@implementer(IPull)
@frozen
class DirectPull:
    """Relays one upstream."""

    unanswered = BYPASS

    remote: Remote
    login: ILogin

    async def ping(self, authorization: str | None) -> None:
        await self.login.ping(authorization)

    async def token(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, post: bool
    ) -> dict[str, object]:
        return await self.login.token(parameters, authorization, post)

    async def manifest(
        self, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> PulledManifest:
        return PulledManifest(await self.remote.manifest(repository, reference, accept, authorization), BYPASS)

    async def head_manifest(
        self, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> PulledManifest:
        return PulledManifest(await self.remote.head_manifest(repository, reference, accept, authorization), BYPASS)

    async def blob(self, repository: str, digest: Digest, asked: Range | None, authorization: str | None) -> PulledBlob:
        return await direct_blob(self.remote, repository, digest, asked, authorization, BYPASS)

    async def blob_size(
        self, repository: str, digest: Digest, authorization: str | None
    ) -> tuple[int | None, CacheStatus]:
        return await self.remote.blob_size(repository, digest, authorization), BYPASS

    async def tags(self, repository: str, query: str, authorization: str | None) -> PulledListing:
        return PulledListing(await self.remote.tags(repository, query, authorization), BYPASS)

    def repositories(self, after: str, limit: int) -> list[str]:
        return []

    async def referrers(self, repository: str, digest: Digest, query: str, authorization: str | None) -> PulledListing:
        return PulledListing(await self.remote.referrers(repository, digest, query, authorization), BYPASS)


async def direct_blob(
    remote: Remote,
    repository: str,
    digest: Digest,
    asked: Range | None,
    authorization: str | None,
    status: CacheStatus,
) -> PulledBlob:
    """A blob straight from the upstream: verified when whole, cut to the range when the upstream can't."""
    answer = await remote.blob(repository, digest, asked, authorization)
    response, span = answer.response, answer.span
    source = response.source
    body: IBody = response.body()
    try:
        if span is None:
            # Without a length a range has no correct answer, and the whole is one.
            return PulledBlob(None, VerifiedBody(body, digest, source), status, answer.passed)
        whole = span.stop - span.first == span.size
        if whole and asked is not None:
            span = asked.within(span.size)
        if span.stop - span.first == span.size:
            body = VerifiedBody(SizedBody(body, span.size, source=source), digest, source)
        else:
            skip = span.first if whole else 0
            body = SizedBody(body, span.stop - span.first, skip, source)
        return PulledBlob(span, body, status, answer.passed)
    except BaseException:
        body.close()
        raise

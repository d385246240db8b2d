"""One upstream registry, asked for what the pull side of the distribution-spec offers.

The law: what comes back is what was asked for.  A manifest is whole, within its limit and
hashed; a blob's response is one whose framing and range are known; everything else is a
RegistryError that names the upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve

from docxy.content import EMPTY_INDEX, LARGEST_MANIFEST, Listing, Manifest, Pairs, flaw, is_referrers_list, parse_object
from docxy.errors import (
    BadRequest,
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    UpstreamError,
)
from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Digest, Reference, Tag
from docxy.ranges import Range, Span, parse_content_range
from docxy.settings.model import Upstream
from docxy.upstream.blob_response import BlobResponse
from docxy.upstream.endpoints import Endpoint, Endpoints
from docxy.upstream.failover import Failover
from docxy.upstream.question import MISSING, NO_HEAD, NO_REFERRERS, Question
from docxy.upstream.response import Response
from docxy.upstream.whole_bodies import WholeBodies

MAX_LISTING = 32 * 1024 * 1024
"""Bytes; a page of a registry that ignores `n` holds hundreds of thousands of tags."""
_PASSED = ("RateLimit-Limit", "RateLimit-Remaining", "Docker-RateLimit-Source", "OCI-Filters-Applied", "Warning")
"""Headers of an upstream's response that are the client's business too."""

_ANY = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}, */*"
"""The Accept sent for a client that takes anything: to `*/*` alone registries send old types, or nothing."""


class Remote:
    """Speaks to one upstream."""

    def __init__(self, upstream: Upstream, endpoints: Endpoints, failover: Failover) -> None:
        self.name = upstream.name
        self._upstream = upstream
        self._endpoints = endpoints
        self._failover = failover
        self._bodies = WholeBodies()
        self._answers_head = False
        """Whether the upstream has ever answered a HEAD of a manifest as it should."""

    async def ping(self, authorization: str | None) -> None:
        """GET /v2/ in the client's name; raises Unauthorized with a challenge, UpstreamError…"""
        await self._failover.ping(authorization)

    async def manifest(
        self, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> Manifest:
        """GET a manifest: whole, at most LARGEST_MANIFEST bytes, and hashed.

        Raises ManifestUnknown, Unauthorized, TooManyRequests, UpstreamError.
        """
        question = self._manifest("GET", repository, reference, accept)

        async def take(response: Response, endpoint: Endpoint) -> Manifest:
            if response.status != 200:
                response.abandon()
                raise UpstreamError(f"{self._upstream.name} answered {response.status} for a manifest")
            return await self._verified(response, reference, question.asked)

        return await self._failover.ask(question, authorization, take)

    async def _verified(self, response: Response, reference: Reference, asked: str) -> Manifest:
        name = f"{self._upstream.name} ({response.source})"
        told = self._told_digest(response, reference)
        media_type = response.media_type
        body = await self._bodies.read(response, LARGEST_MANIFEST)
        digest = Digest.of(body, told.algorithm if told is not None else "sha256")
        if told is not None and digest != told:
            raise UpstreamError(f"{name} sent for {asked} bytes of the digest {digest}, not {told}")
        wrong = "has no Content-Type" if media_type is None else flaw(body, media_type)
        if media_type is None or wrong is not None:
            raise UpstreamError(f"{name}: what it sent for {asked} {wrong}")
        return Manifest(media_type, digest, len(body), body, _passed(response))

    async def head_manifest(
        self, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> Manifest:
        """What a HEAD says, or a GET where the HEAD says too little or is refused.  Raises like `manifest`."""
        question = self._manifest("HEAD", repository, reference, accept)

        async def take(response: Response, endpoint: Endpoint) -> Manifest | None:
            response.abandon()
            digest = self._told_digest(response, reference)
            media_type = response.media_type
            # A page to log in is a 200 too: what does not look like a manifest is one only when its bytes are.
            if media_type is None or not media_type.startswith("application/vnd."):
                return None
            if response.status != 200 or digest is None or response.length is None:
                return None
            return Manifest(media_type, digest, response.length, None, _passed(response))

        try:
            told = await self._failover.ask(question, authorization, take)
        except (ManifestUnknown, Denied) as error:
            # Some registries know no HEAD and answer 404, 403 or 405 to it, so a GET decides.  One that has
            # answered a HEAD before means what it says, and each GET of something missing costs a request.
            if self._answers_head or isinstance(error.__cause__, Denied):
                raise
            told = None
        if told is not None:
            self._answers_head = True
            return told
        return await self.manifest(repository, reference, accept, authorization)

    def _manifest(self, method: str, repository: str, reference: Reference, accept: Sequence[str]) -> Question:
        takes_anything = all(line.strip() == "*/*" for line in accept)
        headers = [("Accept", [_ANY] if takes_anything else accept)]
        absent = NO_HEAD if method == "HEAD" else MISSING
        return Question(method, repository, f"manifests/{reference}", ManifestUnknown, headers, absent)

    def _told_digest(self, response: Response, reference: Reference) -> Digest | None:
        """The digest the manifest must have: the one asked for, else the one the upstream tells."""
        if isinstance(reference, Digest):
            return reference
        told = response.header("Docker-Content-Digest")
        return None if told is None else Digest.maybe(told)

    async def blob(
        self, repository: str, digest: Digest, asked: Range | None, authorization: str | None
    ) -> BlobResponse:
        """GET a blob or one range of it; the upstream may send the whole instead.

        Raises BlobUnknown, RangeInvalid, Unauthorized, TooManyRequests, UpstreamError.
        """
        headers = [] if asked is None else [("Range", [str(asked)])]
        question = Question("GET", repository, f"blobs/{digest}", BlobUnknown, headers)

        async def take(response: Response, endpoint: Endpoint) -> BlobResponse:
            answer = await self._blob(response, endpoint, digest, asked)
            if answer.span is not None and answer.span.size == 0 and not digest.is_of_nothing:
                response.abandon()
                raise UpstreamError(f"{response.source} sent an empty body for {digest}")
            return answer

        return await self._failover.ask(question, authorization, take)

    async def _blob(self, response: Response, endpoint: Endpoint, digest: Digest, asked: Range | None) -> BlobResponse:
        def broke() -> None:
            self._endpoints.failed(endpoint)

        content_range = parse_content_range(response.header("Content-Range"))
        if response.status == 416:
            await response.drain()
            size = content_range if isinstance(content_range, int) else None
            told = (("Content-Range", f"bytes */{size}"),) if size is not None else ()
            raise RangeInvalid(f"the range {asked} is not within {digest}", headers=told)
        if response.status == 206:
            if asked is None or not isinstance(content_range, Span):
                response.abandon()
                raise UpstreamError(f"{response.source} sent a part of {digest} without a usable Content-Range")
            if not asked.means(content_range):
                response.abandon()
                raise UpstreamError(f"{response.source} sent {content_range} of {digest} for {asked}")
            return BlobResponse(response, content_range, _passed(response), broke, endpoint.url)
        length = response.length
        span = None if length is None else Span(0, length, length)
        return BlobResponse(response, span, _passed(response), broke, endpoint.url)

    async def blob_size(self, repository: str, digest: Digest, authorization: str | None) -> int | None:
        """How long a blob is, by a GET of its first byte: HEAD is refused by some (ECR Public).

        Raises like `blob`; None when the upstream does not say.
        """
        first = Range(0, 0)
        question = Question("GET", repository, f"blobs/{digest}", BlobUnknown, [("Range", [str(first)])])

        async def take(response: Response, endpoint: Endpoint) -> int | None:
            if response.media_type == "text/html":
                response.abandon()
                raise UpstreamError(f"{response.source} sent a web page for {digest}")
            if response.status == 206 and response.header("Content-Range") == "bytes 0-0/*":
                await response.drain()
                return None
            span = (await self._blob(response, endpoint, digest, first)).span
            response.abandon() if response.status == 200 else await response.drain()
            return None if span is None else span.size

        try:
            return await self._failover.ask(question, authorization, take)
        except RangeInvalid as error:
            # Nothing but an empty blob has no first byte.
            if dict(error.headers).get("Content-Range") == "bytes */0":
                return 0
            raise

    async def tags(self, repository: str, query: str, authorization: str | None) -> Listing:
        """A page of `tags/list`; `query` is the client's, opaque.  Raises NameUnknown, …"""
        question = Question("GET", repository, "tags/list", NameUnknown, [("Accept", ["application/json"])])
        listing = await self._listing(question, query, authorization, lambda page: "tags" in page or "name" in page)
        if listing is None:
            raise UpstreamError(f"{self._upstream.name} answered {question.asked} with something that is no list")
        return evolve(listing, media_type="application/json")

    async def referrers(self, repository: str, digest: Digest, query: str, authorization: str | None) -> Listing:
        """The index of what refers to a digest.  Raises Unauthorized, UpstreamError, …

        Where the API is missing, however the registry says so, it is the manifest under the fallback tag
        (distribution-spec, "Listing Referrers"), not filtered, as the absence of `OCI-Filters-Applied` says.
        Where that is missing too, docxy assumes an empty index: clients take a 404 for one digest to be
        about all of them.
        """
        question = Question(
            "GET", repository, f"referrers/{digest}", ManifestUnknown, [("Accept", [OCI_INDEX])], NO_REFERRERS
        )
        try:
            listing = await self._listing(
                question, query, authorization, lambda index: isinstance(index.get("manifests"), list)
            )
            if listing is not None:
                return evolve(listing, media_type=OCI_INDEX)
        except ManifestUnknown as missing:
            if isinstance(missing.__cause__, Denied):
                raise
        tag = Tag(f"{digest.algorithm}-{digest.hex}"[:128])
        try:
            index = await self.manifest(repository, tag, [OCI_INDEX], authorization)
        except (ManifestUnknown, BadRequest):
            return Listing(OCI_INDEX, EMPTY_INDEX, None, assumed=True)
        if index.body is None or not is_referrers_list(index, digest):
            return Listing(OCI_INDEX, EMPTY_INDEX, None)
        return Listing(OCI_INDEX, index.body, None, index.passed)

    async def _listing(
        self,
        question: Question,
        query: str,
        authorization: str | None,
        fits: Callable[[dict[str, object]], bool],
    ) -> Listing | None:
        """A page; None when what came is something else.  The JSON decides: registries send it as text/plain too."""

        async def take(response: Response, endpoint: Endpoint) -> Listing | None:
            body = await self._bodies.read(response, MAX_LISTING)
            page = parse_object(body) if response.status == 200 else None
            if page is None or not fits(page):
                return None
            link = ", ".join(response.header_values("Link")) or None
            return Listing("", body, link, _passed(response))

        asked = evolve(question, rest=f"{question.rest}?{query}" if query else question.rest)
        return await self._failover.ask(asked, authorization, take)


def _passed(response: Response) -> Pairs:
    return tuple((name, value) for name in _PASSED if (value := response.header(name)) is not None)

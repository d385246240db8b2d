"""One upstream registry, asked for what the pull side of the distribution-spec offers.

The law: what comes back is what was asked for.  A manifest is whole, within its limit and
hashed; a blob's response is one whose framing and range are known; everything else is a
RegistryError that names the upstream.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.web.http_headers import Headers

from docxy import __version__
from docxy.config import Upstream
from docxy.errors import (
    BadRequest,
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    UpstreamError,
    UpstreamUnavailable,
)
from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Digest, Reference, Tag
from docxy.ranges import Range, Span, parse_content_range
from docxy.upstream.authorize import IAuthorizer, Send
from docxy.upstream.breaker import Endpoint, Endpoints
from docxy.upstream.fetch import Fetcher, Response
from docxy.upstream.tokens import Access, Realms

MAX_MANIFEST = 8 * 1024 * 1024
"""Bytes; the distribution-spec asks for at least 4 MiB."""
MAX_LISTING = 8 * 1024 * 1024
_PASSED = ("RateLimit-Limit", "RateLimit-Remaining", "Docker-RateLimit-Source", "OCI-Filters-Applied", "Warning")
"""Headers of an upstream's response that are the client's business too."""

_ANY = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}, */*"
"""What a client takes that takes anything; registries give it old types, or nothing, unless told so."""

Pairs = tuple[tuple[str, str], ...]


@frozen
class Manifest:
    """A manifest or index, or what a HEAD tells of it."""

    media_type: str
    digest: Digest
    size: int
    body: bytes | None
    """The exact bytes; None after a HEAD."""
    passed: Pairs = ()
    """Headers to pass on."""


@frozen
class Listing:
    """A page of tags or of referrers."""

    media_type: str
    body: bytes
    link: str | None
    """The upstream's `Link`, as it came."""
    passed: Pairs = ()


@frozen
class BlobResponse:
    """A blob's bytes, on their way."""

    response: Response
    span: Span | None
    """What they are of the blob; None when the upstream did not say how long it is."""
    passed: Pairs = ()
    broke: Callable[[], None] = lambda: None
    """To be told when the body breaks off, so that another endpoint is asked for the rest."""


class Remote:
    """Speaks to one upstream."""

    def __init__(
        self, upstream: Upstream, fetcher: Fetcher, authorizer: IAuthorizer, endpoints: Endpoints, realms: Realms
    ) -> None:
        self._upstream = upstream
        self._fetcher = fetcher
        self._authorizer = authorizer
        self._endpoints = endpoints
        self._realms = realms

    async def _send(
        self,
        method: str,
        repository: str,
        rest: str,
        authorization: str | None,
        unknown: type[RegistryError],
        headers: Sequence[tuple[str, Sequence[str]]] = (),
    ) -> tuple[Response, Endpoint]:
        """A response that is 200, 206 or 416, of the first endpoint that answers; everything else raised."""
        asked = f"{repository}/{rest.partition('?')[0]}"
        scope, kind = f"repository:{repository}:pull", f"{method} {rest.partition('/')[0]}"
        failed: RegistryError | None = None
        for endpoint in self._endpoints.order():
            trusted = self._realms.may_know(self._upstream, endpoint.url)
            access = Access(endpoint.url, scope, kind, trusted)
            send = self._sender(method, f"{endpoint.url}/v2/{repository}/{rest}", headers)
            known = authorization if trusted else None
            try:
                response = await self._authorized(send, access, known, asked, unknown)
                if response.status not in (200, 206, 416):
                    raise await self._failure(response, asked, unknown)
            except (UpstreamError, TooManyRequests) as error:
                self._endpoints.failed(endpoint, error.retry_after)
                failed = error
            except RegistryError as error:
                self._endpoints.answered(endpoint)
                if not isinstance(error, Unauthorized) or known == authorization:
                    raise
                # Another endpoint that may not be told who the client is.
                failed = UpstreamError(f"{endpoint.url} asks for credentials that are for {self._upstream.url}")
            else:
                self._endpoints.answered(endpoint)
                return response, endpoint
        assert failed is not None
        raise failed

    async def _authorized(
        self, send: Send, access: Access, authorization: str | None, asked: str, unknown: type[RegistryError]
    ) -> Response:
        try:
            return await self._authorizer.send(send, access, authorization)
        except Denied as error:
            # Registries say the same of what is private and of what is not there.
            raise unknown(f"{asked} is not on {self._upstream.name}, or is private: {error.message}") from error

    def _sender(self, method: str, url: str, headers: Sequence[tuple[str, Sequence[str]]]) -> Send:
        async def send(credentials: str | None) -> Response:
            sent = Headers({"User-Agent": [f"docxy/{__version__}"]})
            for name, values in headers:
                sent.setRawHeaders(name, values)
            if credentials is not None:
                sent.setRawHeaders("Authorization", [credentials])
            return await self._fetcher.request(method, url, sent)

        return send

    async def _failure(self, response: Response, asked: str, unknown: type[RegistryError]) -> RegistryError:
        status, name = response.status, self._upstream.name
        told = await _told(response)
        retry = response.header("Retry-After")
        headers = (("Retry-After", retry),) if retry else ()
        if status == 404:
            return unknown(f"{asked} is not on {name}{told}")
        if status == 403:
            return Denied(f"{name} denies access to {asked}{told}")
        if status == 429:
            return TooManyRequests(f"{name} limits requests{told}", headers=headers or (("Retry-After", "60"),))
        if status == 503:
            return UpstreamUnavailable(f"{name} ({response.source}) is unavailable (503){told}", headers=headers)
        if status == 400:
            return BadRequest(f"{name} refused the request for {asked}{told}")
        return UpstreamError(f"{name} ({response.source}) answered {status} for {asked}{told}")

    async def ping(self, authorization: str | None) -> None:
        """GET /v2/ in the client's name; raises Unauthorized with a challenge, UpstreamError…"""

        access = Access(self._upstream.url, "", "GET ping")
        send = self._sender("GET", f"{self._upstream.url}/v2/", ())
        response = await self._authorizer.send(send, access, authorization)
        if response.status == 200:
            await response.drain()
            return
        raise await self._failure(response, "/v2/", NameUnknown)

    async def manifest(
        self, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> Manifest:
        """GET a manifest: whole, at most MAX_MANIFEST bytes, and hashed.

        Raises ManifestUnknown, Unauthorized, TooManyRequests, UpstreamError.
        """
        response = await self._manifest("GET", repository, reference, accept, authorization)
        told = self._told_digest(response, reference)
        media_type = _bare(response.header("Content-Type"))
        body = await response.read(MAX_MANIFEST)
        digest = Digest.of(body, told.algorithm if told is not None else "sha256")
        asked = f"{repository}/manifests/{reference}"
        if told is not None and digest != told:
            raise UpstreamError(f"{self._upstream.name} sent for {asked} bytes of the digest {digest}, not {told}")
        if media_type is None or not _is_manifest(body, media_type):
            raise UpstreamError(f"{self._upstream.name} sent for {asked} something that is not a {media_type} manifest")
        return Manifest(media_type, digest, len(body), body, _passed(response))

    async def head_manifest(
        self, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> Manifest:
        """What a HEAD tells, or a GET where the HEAD tells too little.  Raises like `manifest`."""
        response = await self._manifest("HEAD", repository, reference, accept, authorization)
        response.abandon()
        digest = self._told_digest(response, reference)
        media_type = _bare(response.header("Content-Type"))
        if digest is None or media_type is None or response.length is None:
            return await self.manifest(repository, reference, accept, authorization)
        return Manifest(media_type, digest, response.length, None, _passed(response))

    async def _manifest(
        self, method: str, repository: str, reference: Reference, accept: Sequence[str], authorization: str | None
    ) -> Response:
        takes_anything = all(line.strip() == "*/*" for line in accept)
        headers = [("Accept", [_ANY] if takes_anything else accept)]
        response, _ = await self._send(
            method, repository, f"manifests/{reference}", authorization, ManifestUnknown, headers
        )
        if response.status != 200:
            response.abandon()
            raise UpstreamError(f"{self._upstream.name} answered {response.status} for a manifest")
        return response

    def _told_digest(self, response: Response, reference: Reference) -> Digest | None:
        """The digest the manifest must have: the one asked for, else the one the upstream tells."""
        if isinstance(reference, Digest):
            return reference
        told = response.header("Docker-Content-Digest")
        if told is None:
            return None
        try:
            return Digest.parse(told)
        except RegistryError:
            return None

    async def blob(
        self, repository: str, digest: Digest, asked: Range | None, authorization: str | None
    ) -> BlobResponse:
        """GET a blob or one range of it; the upstream may send the whole instead.

        Raises BlobUnknown, RangeInvalid, Unauthorized, TooManyRequests, UpstreamError.
        """
        headers = [] if asked is None else [("Range", [str(asked)])]
        response, endpoint = await self._send("GET", repository, f"blobs/{digest}", authorization, BlobUnknown, headers)

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
            if not _is_what_was_asked(content_range, asked):
                response.abandon()
                raise UpstreamError(f"{response.source} sent {content_range} of {digest} for {asked}")
            return BlobResponse(response, content_range, _passed(response), broke)
        length = response.length
        span = None if length is None else Span(0, length, length)
        return BlobResponse(response, span, _passed(response), broke)

    async def blob_size(self, repository: str, digest: Digest, authorization: str | None) -> int | None:
        """How long a blob is, by a GET of its first byte: HEAD is refused by some (ECR Public).

        Raises like `blob`; None when the upstream does not say.
        """
        try:
            answer = await self.blob(repository, digest, Range(0, 0), authorization)
        except RangeInvalid as error:
            # Nothing but an empty blob has no first byte.
            if dict(error.headers).get("Content-Range") == "bytes */0":
                return 0
            raise
        answer.response.abandon() if answer.response.status == 200 else await answer.response.drain()
        return None if answer.span is None else answer.span.size

    async def tags(self, repository: str, query: str, authorization: str | None) -> Listing:
        """A page of `tags/list`; `query` is the client's, checked.  Raises NameUnknown, …"""
        return await self._listing(repository, "tags/list", query, authorization, NameUnknown, "application/json")

    async def referrers(self, repository: str, digest: Digest, query: str, authorization: str | None) -> Listing:
        """The index of what refers to a digest.  Raises ManifestUnknown, …

        Where the API is missing it is the manifest under the fallback tag (distribution-spec, "Listing
        Referrers"), not filtered, as the absence of `OCI-Filters-Applied` says.
        """
        try:
            return await self._listing(
                repository, f"referrers/{digest}", query, authorization, ManifestUnknown, OCI_INDEX
            )
        except ManifestUnknown as missing:
            tag = Tag(f"{digest.algorithm}-{digest.hex}"[:128])
            try:
                index = await self.manifest(repository, tag, [OCI_INDEX], authorization)
            except ManifestUnknown:
                raise missing from None
        if index.media_type != OCI_INDEX or index.body is None:
            raise UpstreamError(f"{self._upstream.name} has something under {repository}:{tag} that is not an index")
        return Listing(OCI_INDEX, index.body, None, index.passed)

    async def _listing(
        self,
        repository: str,
        rest: str,
        query: str,
        authorization: str | None,
        unknown: type[RegistryError],
        media_type: str,
    ) -> Listing:
        path = f"{rest}?{query}" if query else rest
        response, _ = await self._send("GET", repository, path, authorization, unknown, [("Accept", [media_type])])
        body = await response.read(MAX_LISTING)
        if response.status != 200 or _bare(response.header("Content-Type")) != media_type or not _is_object(body):
            raise UpstreamError(f"{self._upstream.name} answered {rest} of {repository} with something else")
        return Listing(media_type, body, response.header("Link"), _passed(response))


def _is_what_was_asked(sent: Span, asked: Range) -> bool:
    try:
        return sent == asked.within(sent.size)
    except RangeInvalid:
        return False


def _bare(content_type: str | None) -> str | None:
    """A media type without parameters."""
    bare = (content_type or "").partition(";")[0].strip().lower()
    return bare or None


def _passed(response: Response) -> Pairs:
    return tuple((name, value) for name in _PASSED if (value := response.header(name)) is not None)


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _is_manifest(body: bytes, media_type: str) -> bool:
    """Whether it is a manifest or index of this media type, as far as every kind of them tells."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(parsed, dict) or parsed.get("schemaVersion") not in (1, 2):
        return False
    # OCI image-spec: where a manifest names its own type, the header must agree.
    return parsed.get("mediaType", media_type) == media_type and media_type.startswith("application/")


async def _told(response: Response) -> str:
    """What the upstream's error JSON says, as the end of a sentence; empty when it says nothing readable."""
    try:
        errors = json.loads(await response.read(64 * 1024))["errors"]
        message = str(errors[0].get("message") or errors[0]["code"])
    except (RegistryError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        response.abandon()
        return ""
    return f": {''.join(c for c in message[:200] if c.isprintable())}"

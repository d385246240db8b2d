"""`/v2/`: the pull side of the OCI distribution-spec v1.1, and refusals for the rest of it.

The law: HTTP is dealt with here (methods, conditions, ranges, headers), what is asked for
is decided elsewhere.  Content addressed by digest has that digest as its ETag, so
conditions and ranges of manifests are answered here, for every upstream alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request
from twisted.web.resource import Resource

from docxy.config import Upstream
from docxy.errors import Denied, NotFound, PaginationInvalid, RegistryError, Unsupported
from docxy.gate.interfaces import IGate
from docxy.names import Digest, parse_reference
from docxy.pull.interfaces import IPull, PulledListing, PulledManifest
from docxy.pull.status import CacheStatus, telling
from docxy.ranges import Range, parse_range
from docxy.routing import Kind, Router, Target, permitted
from docxy.streaming import BytesBody
from docxy.web import channel
from docxy.web.repeats import LONGEST
from docxy.web.respond import reply, respond, start
from docxy.web.sending import send

MAX_PAGE = 10_000
"""`n` of a listing, at most."""
DEFAULT_PAGE = 100
"""Names in a `_catalog` page, where the client does not say."""

_Headers = list[tuple[str, str]]


@frozen
class Asked:
    """A request, as far as all endpoints need it."""

    request: Request
    path: str
    query: Sequence[tuple[str, str]]
    authorization: str | None
    head: bool

    @classmethod
    def of(cls, request: Request, relay: bool) -> Asked:
        """`relay`: whether the client's Authorization is for the upstream."""
        raw_path, _, raw_query = request.uri.partition(b"?")
        return cls(
            request=request,
            path=raw_path.decode("ascii", "replace"),
            query=parse_qsl(raw_query.decode("ascii", "replace"), keep_blank_values=True),
            authorization=request.getHeader("Authorization") if relay else None,
            head=request.method == b"HEAD",
        )

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), None)

    def accept(self) -> list[str]:
        """Every Accept line, as it came."""
        return list(self.request.requestHeaders.getRawHeaders("Accept", []))


class V2(Resource):
    """Answers every path that has `/v2` in its place; it parses the path itself.

    `postpath` is already unquoted, so there a segment could hold a slash.
    """

    isLeaf = True

    def __init__(
        self,
        router: Router,
        gate: IGate,
        pulls: Mapping[str, IPull],
        clock: IReactorTime,
        patience: float,
        catalog: bool,
    ) -> None:
        """`pulls`: by the upstream's name; `patience`: seconds a client may take nothing of a blob.

        `catalog`: whether what is cached is listed.
        """
        Resource.__init__(self)
        self._router = router
        self._gate = gate
        self._pulls = pulls
        self._clock = clock
        self._patience = patience
        self._catalog = catalog

    def render(self, request: Request) -> int:
        return respond(request, self._answer(Asked.of(request, relay=not self._gate.asks)))

    async def _answer(self, asked: Asked) -> None:
        request = asked.request
        if request.method not in (b"GET", b"HEAD"):
            # No body of a write is of interest, nor is the connection it fills.
            raise Unsupported.method(request.method.decode("ascii", "replace"))
        ns = asked.parameter("ns")
        target = self._router.route(asked.path, ns, request.getHeader("Host"))
        if isinstance(request, channel.Request):
            request.about = (target.upstream.name, target.kind.value)
        await self._gate.admit(request, target.upstream.name, target.repository or None)
        if target.repository and not permitted(target.upstream, target.repository):
            raise Denied(f"{target.upstream.name}/{target.repository} is not to be had here")
        pull = self._pulls[target.upstream.name]
        headers: _Headers = [("OCI-Namespace", target.upstream.name)] if ns and target.named else []
        try:
            await self._serve(asked, target, pull, headers)
        except RegistryError as error:
            if request.startedWriting:
                raise
            # What is wrong with the request itself was found here, not in a cache or behind one.
            told = error.status in (400, 416) or any(name == "Cache-Status" for name, _ in error.headers)
            status = () if told or target.kind is Kind.PING else telling(pull.unanswered)
            error.headers = (*error.headers, *status, *headers)
            raise

    async def _serve(self, asked: Asked, target: Target, pull: IPull, headers: _Headers) -> None:
        if target.kind is Kind.PING:
            await pull.ping(asked.authorization)
            _may_repeat(asked.request, LONGEST)
            reply(asked.request, 200, [*headers, ("Content-Type", "application/json")], b"{}")
        elif target.kind is Kind.MANIFESTS:
            await self._manifest(asked, target, pull, headers)
        elif target.kind is Kind.BLOBS:
            await self._blob(asked, target, pull, headers)
        elif target.kind is Kind.TAGS:
            n, last = _page(asked)
            query = urlencode({**({} if n is None else {"n": n}), **({"last": last} if last else {})})
            self._listing(asked, await pull.tags(target.repository, query, asked.authorization), headers)
        elif target.kind is Kind.REFERRERS:
            digest = Digest.parse(target.reference)
            query = urlencode([(name, value) for name, value in asked.query if name == "artifactType"])
            self._listing(asked, await pull.referrers(target.repository, digest, query, asked.authorization), headers)
        elif self._catalog:
            await self._repositories(asked, target, headers)
        else:
            raise NotFound("what is cached is not listed here")

    async def _manifest(self, asked: Asked, target: Target, pull: IPull, headers: _Headers) -> None:
        reference = parse_reference(target.reference)
        ask = pull.head_manifest if asked.head else pull.manifest
        pulled = await ask(target.repository, reference, asked.accept(), asked.authorization)
        manifest = pulled.manifest
        _may_repeat(asked.request, _settled(pulled.status))
        headers = [
            *headers,
            ("Content-Type", manifest.media_type),
            ("Docker-Content-Digest", str(manifest.digest)),
            ("ETag", f'"{manifest.digest}"'),
            ("Cache-Status", str(pulled.status)),
            *_age(pulled),
            *manifest.passed,
        ]
        if _not_modified(asked.request, manifest.digest):
            reply(asked.request, 304, headers, b"")
            return
        if asked.head:
            start(asked.request, 200, [*headers, ("Accept-Ranges", "bytes")], manifest.size)
            asked.request.finish()
            return
        assert manifest.body is not None
        span = _range(asked.request, manifest.digest)
        if span is None:
            reply(asked.request, 200, [*headers, ("Accept-Ranges", "bytes")], manifest.body)
        else:
            within = span.within(manifest.size)
            headers.append(("Content-Range", str(within)))
            reply(asked.request, 206, headers, manifest.body[within.first : within.stop])

    async def _blob(self, asked: Asked, target: Target, pull: IPull, headers: _Headers) -> None:
        digest = Digest.parse(target.reference)
        headers = [
            *headers,
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", str(digest)),
            ("ETag", f'"{digest}"'),
            ("Accept-Ranges", "bytes"),
        ]
        request = asked.request
        if asked.head or _not_modified(request, digest):
            # For a condition too: that the client has the bytes does not show that it may.
            size, status = await pull.blob_size(target.repository, digest, asked.authorization)
            _may_repeat(request, _settled(status))
            headers.append(("Cache-Status", str(status)))
            if _not_modified(request, digest):
                reply(request, 304, headers, b"")
                return
            start(request, 200, headers, size)
            request.finish()
            return
        span = _range(request, digest)
        pulled = await pull.blob(target.repository, digest, span, asked.authorization)
        headers = [*headers, ("Cache-Status", str(pulled.status)), *pulled.passed]
        if span is not None and pulled.span is not None:
            headers.append(("Content-Range", str(pulled.span)))
        status_code = 200 if span is None or pulled.span is None else 206
        if isinstance(pulled.body, BytesBody):
            _may_repeat(request, _settled(pulled.status))
            reply(request, status_code, headers, pulled.body.data)
            return
        start(request, status_code, headers, None if pulled.span is None else pulled.span.stop - pulled.span.first)
        await send(request, pulled.body, self._clock, self._patience)

    async def _repositories(self, asked: Asked, target: Target, headers: _Headers) -> None:
        """`_catalog`: names as this client would pull them, those of other upstreams with their prefix."""
        n, last = _page(asked)
        count = DEFAULT_PAGE if n is None else n
        names: list[str] = []
        for upstream in [target.upstream] if target.named else self._router.upstreams:
            prefix = "" if target.named or upstream == self._router.default else f"{upstream.name}/"
            if prefix and last > prefix and not last.startswith(prefix):
                continue
            after = last.removeprefix(prefix) if last.startswith(prefix) else ""
            found = await self._pullable(asked.request, upstream, after, count + 1)
            names += [f"{prefix}{name}" for name in found]
        page = sorted(names)[:count]
        headers = [*headers, ("Content-Type", "application/json")]
        if page and len(names) > count:
            query = urlencode({"n": count, "last": page[-1], **({"ns": ns} if (ns := asked.parameter("ns")) else {})})
            headers.append(("Link", f'<{asked.path}?{query}>; rel="next"'))
        reply(asked.request, 200, headers, json.dumps({"repositories": page}).encode("ascii"))

    async def _pullable(self, request: Request, upstream: Upstream, after: str, count: int) -> list[str]:
        """The first `count` cached repositories behind a name that this client may pull."""
        found: list[str] = []
        while len(found) < count:
            known = self._pulls[upstream.name].repositories(after, MAX_PAGE)
            allowed = await self._gate.pullable(request, upstream.name, known)
            found += [name for name in allowed if permitted(upstream, name)]
            if len(known) < MAX_PAGE:
                break
            after = known[-1]
        return found[:count]

    def _listing(self, asked: Asked, pulled: PulledListing, headers: _Headers) -> None:
        listing = pulled.listing
        headers = [
            *headers,
            ("Content-Type", listing.media_type),
            ("Cache-Status", str(pulled.status)),
            *listing.passed,
        ]
        link = _link(asked, listing.link)
        if link is not None:
            headers.append(("Link", link))
        reply(asked.request, 200, headers, listing.body)


def _settled(status: CacheStatus) -> float:
    """Seconds for which an answer stays as it is."""
    if not status.hit:
        return 0.0
    return LONGEST if status.ttl is None else max(0.0, float(status.ttl))


def _may_repeat(request: Request, seconds: float) -> None:
    """Let the answer be given again, unless who asks has a name."""
    if isinstance(request, channel.Request) and not request.requestHeaders.hasHeader("Authorization"):
        request.repeat_for = seconds


def _age(pulled: PulledManifest) -> _Headers:
    return [] if pulled.age is None else [("Age", str(pulled.age))]


def _not_modified(request: Request, digest: Digest) -> bool:
    """Whether If-None-Match names this digest (RFC 9110 section 13.1.2, weak comparison)."""
    condition = request.getHeader("If-None-Match")
    if condition is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in condition.split(",")}
    return "*" in tags or f'"{digest}"' in tags


def _range(request: Request, digest: Digest) -> Range | None:
    """The range asked for, unless If-Range names something else than this digest."""
    condition = request.getHeader("If-Range")
    if condition is not None and condition.strip() != f'"{digest}"':
        return None
    return parse_range(request.getHeader("Range"))


def _page(asked: Asked) -> tuple[int | None, str]:
    """`n` and `last` of a listing; raises PaginationInvalid."""
    n = asked.parameter("n")
    if n is not None and not (n.isascii() and n.isdigit()):
        raise PaginationInvalid(f"n={n[:40]!a} is not a number")
    return None if n is None else min(int(n[:10]), MAX_PAGE), asked.parameter("last") or ""


def _link(asked: Asked, link: str | None) -> str | None:
    """The upstream's `Link: <…>; rel="next"` as one of ours: the client's own path, the upstream's query.

    Relative, so that neither scheme nor host can be wrong.
    """
    if link is None or not link.startswith("<") or 'rel="next"' not in link.replace("rel=next", 'rel="next"'):
        return None
    query = parse_qsl(urlsplit(link[1:].partition(">")[0]).query, keep_blank_values=True)
    kept = [(name, value) for name, value in query if name != "ns"]
    ns = asked.parameter("ns")
    return f'<{asked.path}?{urlencode(kept + ([("ns", ns)] if ns else []))}>; rel="next"'

"""`/v2/`: the pull side of the OCI distribution-spec v1.1, and refusals for the rest of it.

The law: *route, let in, lead to the endpoint.*  HTTP is dealt with here and in the endpoints (methods,
conditions, ranges, headers); what the answer is, `docxy.pull` decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qsl

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from docxy.access.interfaces import IGate
from docxy.errors import NotFound, RegistryError, Unsupported
from docxy.observe.tracing import ITracer
from docxy.pull.cache_status import telling
from docxy.pull.interfaces import IPull
from docxy.routing import EndpointKind, Router, not_permitted, permitted
from docxy.web.asked import Asked, Location
from docxy.web.blobs import serve_blob
from docxy.web.large_answers import LargeAnswers
from docxy.web.listings import Repositories, serve_referrers, serve_tags
from docxy.web.manifests import Indexes, serve_manifest
from docxy.web.request import Request
from docxy.web.respond import respond
from docxy.web.send import Sender

_KNOWN = 4096
"""Locations that are remembered."""
_LONG = 512
"""Bytes of a URI that is remembered, at most."""


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
        client_timeout: float,
        catalog: bool,
        tracer: ITracer,
    ) -> None:
        """`pulls`: by the upstream's name; `client_timeout`: seconds a client may take nothing of a body.

        `catalog`: whether what is cached is listed.
        """
        Resource.__init__(self)
        self._tracer = tracer
        self._router = router
        self._gate = gate
        self._pulls = pulls
        self._sender = Sender(clock, client_timeout, LargeAnswers())
        self._indexes = Indexes()
        self._repositories = Repositories(router, gate, pulls) if catalog else None
        self._known = lru_cache(_KNOWN)(self._locate)

    def forget(self) -> None:
        """Ask the router anew where each URI leads: it knows other lists now."""
        self._known.cache_clear()

    def render(self, request: Request) -> int:
        request.span = self._tracer.answering(request.method, request.fields)
        with request.span.within():
            return respond(request, self._answer(request))

    async def _answer(self, request: Request) -> None:
        if request.method != b"GET" and request.method != b"HEAD":
            # No body of a write is of interest, nor is the connection it fills.
            raise Unsupported.method(request.method.decode("ascii", "replace"))
        locate = self._known if len(request.uri) <= _LONG else self._locate
        at = locate(request.uri, request.getHeader("Host"))
        target = at.target
        request.target = target
        request.about = (target.upstream.name, target.kind.value)
        request.checked = None
        try:
            await self._gate.admit(request, target.upstream.name, target.repository or None)
        finally:
            request.checked = request.site.reactor.seconds() - request.started
        if not at.is_permitted:
            raise not_permitted(target.upstream, target.repository)
        pull = self._pulls[target.upstream.name]
        authorization = None if self._gate.asks else request.getHeader("Authorization")
        try:
            await self._serve(Asked(request, at, pull, authorization))
        except RegistryError as error:
            if request.startedWriting:
                raise
            # What is wrong with the request itself was found here, not in a cache or behind one.
            told = error.status in (400, 416) or any(name == "Cache-Status" for name, _ in error.headers)
            status = () if told or target.kind is EndpointKind.PING else telling(pull.unanswered)
            error.headers = (*error.headers, *status, *at.headers)
            raise

    def _locate(self, uri: bytes, host: str | None) -> Location:
        """Where a URI leads.  Raises NameUnknown, NameInvalid, NotFound."""
        path, _, raw_query = uri.decode("ascii", "replace").partition("?")
        query = tuple(parse_qsl(raw_query, keep_blank_values=True))
        ns = next((value for key, value in query if key == "ns"), None)
        target = self._router.route(path, ns, host)
        headers = [("OCI-Namespace", target.upstream.name)] if ns and target.named else []
        allowed = not target.repository or permitted(target.upstream, target.repository)
        return Location(path, raw_query, query, target, headers, allowed)

    async def _serve(self, asked: Asked) -> None:
        kind, sender = asked.at.target.kind, self._sender
        if kind is EndpointKind.MANIFESTS:
            await serve_manifest(asked, sender, self._indexes)
        elif kind is EndpointKind.BLOBS:
            await serve_blob(asked, sender)
        elif kind is EndpointKind.PING:
            await asked.pull.ping(asked.authorization)
            asked.request.answer(200, asked.headers(("Content-Type", "application/json")), b"{}")
        elif kind is EndpointKind.TAGS:
            await serve_tags(asked, sender)
        elif kind is EndpointKind.REFERRERS:
            await serve_referrers(asked, sender)
        elif self._repositories is not None:
            await self._repositories.serve(asked, sender)
        else:
            raise NotFound("this mirror does not list what it has cached")

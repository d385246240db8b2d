"""`/auth/token`: token requests of clients (the distribution token specification, GET and POST).

The law: what a client sends here is passed on as it is to the one realm the upstream
named, or not at all; no value of it is logged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from twisted.web.resource import Resource

from docxy.access.interfaces import IGate
from docxy.errors import BadRequest, NotFound, RegistryError
from docxy.pull.interfaces import IPull
from docxy.routing import Router
from docxy.settings.model import Upstream
from docxy.web.channel import MAX_BODY
from docxy.web.request import API_VERSION, Request
from docxy.web.respond import respond


class FormTooLarge(RegistryError):
    """The form of a token request has no length, or one beyond `MAX_BODY`."""

    status = 413
    code = "SIZE_INVALID"


class Token(Resource):
    """Leads a token request to the upstream that its scope names."""

    isLeaf = True

    def __init__(self, router: Router, gate: IGate, pulls: Mapping[str, IPull]) -> None:
        Resource.__init__(self)
        self._gate = gate
        self._router = router
        self._pulls = pulls

    def render(self, request: Request) -> int:
        return respond(request, self._answer(request))

    async def _answer(self, request: Request) -> None:
        post = request.method == b"POST"
        if request.method not in (b"GET", b"HEAD", b"POST"):
            raise request.unsupported("GET, HEAD, POST")
        parameters = _form(request) if post else _query(request)
        answer = await self._gate.token(request, parameters, post)
        if answer is None:
            upstream, scoped = self._scoped(parameters, self._asked_for(request))
            answer = await self._pulls[upstream.name].token(scoped, request.getHeader("Authorization"), post)
        headers = [API_VERSION, ("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        request.answer(200, headers, json.dumps(answer).encode("ascii"))

    def _asked_for(self, request: Request) -> Upstream | None:
        """The upstream whose challenge led here (`/auth/token/<upstream>`); None for the default's."""
        name = request.path.removeprefix(b"/auth/token").strip(b"/").decode("ascii", "replace")
        upstream = self._router.by_name(name)
        if name and upstream is None:
            raise NotFound(f"no upstream {name[:80]!a} is configured here")
        return upstream

    def _scoped(
        self, parameters: list[tuple[str, str]], asked_for: Upstream | None
    ) -> tuple[Upstream, list[tuple[str, str]]]:
        """The upstream meant, and the parameters with scopes as it knows them.

        Scopes of another upstream than the first one's are left out, as are malformed ones: a
        reduced grant is no error.
        """
        upstream = asked_for
        out: list[tuple[str, str]] = []
        for name, value in parameters:
            if name != "scope":
                out.append((name, value))
                continue
            # One parameter may hold several scopes, separated by spaces (OAuth2).
            scopes = []
            for scope in value.split():
                resource, _, rest = scope.partition(":")
                repository, _, actions = rest.rpartition(":")
                if resource != "repository":
                    scopes.append(scope)
                    continue
                try:
                    named, known = self._router.scoped(repository, asked_for)
                except RegistryError:
                    continue
                upstream = upstream or named
                if named == upstream:
                    scopes.append(f"repository:{known}:{actions}")
            if scopes:
                out.append((name, " ".join(scopes)))
        return upstream or self._router.default, out


def _query(request: Request) -> list[tuple[str, str]]:
    return _pairs(request.uri.partition(b"?")[2])


def _form(request: Request) -> list[tuple[str, str]]:
    content_type = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise BadRequest("a token request is posted as application/x-www-form-urlencoded")
    if int(request.getHeader("Content-Length") or MAX_BODY + 1) > MAX_BODY:
        # The server reads none of it, nor of a body that does not say its length.
        raise FormTooLarge(f"a token request says its length, which is at most {MAX_BODY} bytes")
    return _pairs(b"" if request.content is None else request.content.read(MAX_BODY))


def _pairs(encoded: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(encoded.decode("ascii"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise BadRequest("the parameters of this token request cannot be read") from None

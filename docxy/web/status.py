"""The status page and its JSON: `/`, `/status`, `/status.json`, `/pulls.json`, `/events`.

The laws: *nobody sees the name of a repository that they could not pull*: an anonymous viewer sees what anybody
may pull, a viewer who logged in what the rules permit.  Where the operator chose `private`, only viewers who logged
in see who pulled.  Nothing here changes anything.
"""

from __future__ import annotations

# The standard library's, loaded by the first use of a resource: by then we may be a user who may not read it.
import importlib.readers  # noqa: F401 (see above)
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource

from docxy.access.interfaces import IGate
from docxy.errors import NotFound, Unauthorized
from docxy.observe import journal
from docxy.observe.model import VERSION
from docxy.observe.view import IView, Unseen
from docxy.observe.visible import Repository, repositories, visible
from docxy.pull.interfaces import IPull
from docxy.settings.model import StatusMode
from docxy.web.answers import LOGIN, Leaf, Unavailable, answer_json, count, nothing, parameter
from docxy.web.events import Events
from docxy.web.pages.page import CONTENT_SECURITY_POLICY, Pages
from docxy.web.pages.words import chosen
from docxy.web.request import Request

_HTML = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Vary", "Accept-Language, Authorization"),
)
_FILES = (("style.css", "text/css; charset=utf-8"), ("live.js", "text/javascript; charset=utf-8"))

_MOST_TAGS = 200
"""Cached tags that the page of an image shows."""
_MOST_CHANGES = 100
"""Changes of tags that it shows."""


@frozen
class Status:
    """What a process shows of the read model to those who reach its port."""

    view: IView
    gate: IGate
    pulls: Mapping[str, IPull]
    """By the upstream's name."""
    mode: StatusMode
    pages: Pages
    clock: IReactorTime

    def children(self) -> dict[bytes, IResource]:
        """What goes under the root; nothing where the page is off, or nobody could log in to see it."""
        if self.mode is StatusMode.OFF or (self.mode is StatusMode.PRIVATE and not self.gate.asks):
            return {}
        status = Branch()
        status.putChild(b"", Leaf(self._page))
        status.putChild(b"live", Leaf(self._live))
        status.putChild(b"image", Leaf(self._image))
        for name, kind in _FILES:
            status.putChild(name.encode("ascii"), _File(name, kind))
        return {
            b"": Leaf(self._page),
            b"status": status,
            b"status.json": Leaf(self._json),
            b"pulls.json": Leaf(self._pulls_json),
            b"events": Events(self.snapshot, self.view.subscribe, self._viewer, self.clock),
        }

    async def snapshot(self, request: Request) -> dict[str, Any]:
        """What this request's viewer may see.  Raises Unauthorized, TooManyRequests, Unavailable."""
        try:
            whole = await self.view.snapshot()
        except Unseen as error:
            raise Unavailable(str(error)) from None
        allowed = await self._allowed(request, repositories(whole))
        return visible(whole, allowed, self._sees_clients(request))

    async def _allowed(self, request: Request, named: set[Repository]) -> set[Repository]:
        """Those of some repositories that the viewer may know of."""
        found: set[Repository] = set()
        # Those of now: while it waits, registries that only clients name come and go.
        for upstream, pull in [*self.pulls.items()]:
            names = sorted(repository for name, repository in named if name == upstream)
            try:
                names = await self.gate.pullable(request, upstream, names)
            except Unauthorized as error:
                error.headers = LOGIN
                raise
            found |= {(upstream, repository) for repository in await pull.nameable(names)}
        # An empty header is no login, nor is a token that the rules give to anybody.
        if self.mode is StatusMode.PRIVATE and request.account is None:
            raise Unauthorized("log in to see this page", headers=LOGIN)
        return found

    def _viewer(self, request: Request) -> str:
        """The same for requests whose viewers see the same: what nobody asks for says nothing of them."""
        return (request.getHeader("Authorization") or "") if self.gate.asks else ""

    def _sees_clients(self, request: Request) -> bool:
        # In `private` mode `_allowed` lets nobody in without an account.
        return self.mode is StatusMode.PRIVATE

    async def _page(self, request: Request) -> None:
        language, query = _language(request)
        html = self.pages.status(_with_pulls(await self.snapshot(request)), language, query)
        _answer_html(request, 200, language, html)

    async def _live(self, request: Request) -> None:
        language, query = _language(request)
        html = self.pages.live(_with_pulls(await self.snapshot(request)), language, query)
        _answer_html(request, 200, language, html)

    async def _image(self, request: Request) -> None:
        named = self._named(parameter(request, "name") or "")
        language, query = _language(request)
        snapshot = await self.snapshot(request)
        allowed = await self._allowed(request, {named})
        told = await self._told(request, allowed, named) if allowed else []
        pulls = [journal.from_json(pull) for pull in told]
        cached = await self.pulls[named[0]].cached(named[1], _MOST_TAGS) if allowed else []
        changes = await self.pulls[named[0]].changes(named[1], None, _MOST_CHANGES) if allowed else []
        html = self.pages.image({**snapshot, "pulls": []}, "/".join(named), pulls, cached, changes, language, query)
        _answer_html(request, 200 if pulls or cached else 404, language, html)

    async def _json(self, request: Request) -> None:
        answer_json(request, await self.snapshot(request))

    async def _pulls_json(self, request: Request) -> None:
        name = parameter(request, "repository")
        named = None if name is None else self._named(name)
        answer_json(request, {"version": VERSION, "pulls": await self._told(request, None, named)})

    async def _told(
        self, request: Request, allowed: set[Repository] | None, named: Repository | None
    ) -> list[dict[str, Any]]:
        """Pulls that the viewer may see, the newest first; `allowed`: None where that is still to be asked."""
        try:
            pulls = await self.view.pulls(count(request), named)
        except Unseen as error:
            raise Unavailable(str(error)) from None
        snapshot = {"docxy": {}, "upstreams": [], "fills": [], "pulls": pulls, "repositories": [], "errors": []}
        if allowed is None:
            allowed = await self._allowed(request, repositories(snapshot))
        found: list[dict[str, Any]] = visible(snapshot, allowed, self._sees_clients(request))["pulls"]
        return found

    def _named(self, name: str) -> Repository:
        """An upstream and a repository from `ghcr.io/owner/image`.  Raises NotFound."""
        for upstream in self.pulls:
            if name.startswith(f"{upstream}/"):
                return upstream, name[len(upstream) + 1 :]
        raise NotFound("name an image with its registry, as docker.io/library/alpine")


class Branch(Resource):
    """A part of the tree; with or without a slash at its end its own page is the same."""

    def __init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: Request) -> Any:
        return self.children[b""].render(request)

    def getChild(self, path: bytes, request: Request) -> IResource:
        return Leaf(nothing)


class _File(Leaf):
    """A file that comes with docxy."""

    def __init__(self, name: str, kind: str) -> None:
        Leaf.__init__(self, self._send)
        self._body = (files("docxy.web.pages") / "static" / name).read_bytes()
        self._headers = (
            ("Content-Type", kind),
            ("Cache-Control", "max-age=3600"),
            ("X-Content-Type-Options", "nosniff"),
        )

    async def _send(self, request: Request) -> None:
        request.answer(200, self._headers, self._body)


def _answer_html(request: Request, status: int, language: str, html: str) -> None:
    request.answer(status, (*_HTML, ("Content-Language", language)), html.encode("utf-8"))


def _with_pulls(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    return {**snapshot, "pulls": [journal.from_json(pull) for pull in snapshot["pulls"]]}


def _language(request: Request) -> tuple[str, str]:
    """The page's language, and the query that keeps a choice in its links."""
    asked = parameter(request, "lang")
    language = chosen(asked, request.getHeader("Accept-Language") or "")
    return language, f"?lang={language}" if asked == language else ""

"""The admin socket: the read model for the operator's own tools, on a Unix socket that only docxy's user may open.

The law: who may open the socket may see everything; nothing here is ever served on a port.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource

from docxy.errors import BadRequest
from docxy.observe.model import VERSION
from docxy.observe.view import IView
from docxy.web.answers import Leaf, answer_json, count, nothing, parameter
from docxy.web.events import Events
from docxy.web.request import Request
from docxy.web.site import LoggedSite


class Admin(Resource):
    """`/status.json`, `/pulls.json`, `/quota.json`, `/events`, and `/acts/NAME`: see `docxy.web.acts`."""

    def __init__(self, view: IView, acts: IResource, clock: IReactorTime) -> None:
        Resource.__init__(self)
        self._view = view
        self.putChild(b"status.json", Leaf(self._status))
        self.putChild(b"pulls.json", Leaf(self._pulls))
        self.putChild(b"quota.json", Leaf(self._quota))
        self.putChild(b"acts", acts)
        self._events = Events(self._snapshot, view.subscribe, lambda _: "operator", clock)
        self.putChild(b"events", self._events)

    def retire(self) -> None:
        """Another docxy knows what happens from now on: who follows it here is to ask again, and gets that one."""
        self._events.end()

    def getChild(self, path: bytes, request: Request) -> IResource:
        return Leaf(nothing)

    async def _snapshot(self, request: Request) -> dict[str, Any]:
        return await self._view.snapshot()

    async def _status(self, request: Request) -> None:
        answer_json(request, await self._view.snapshot())

    async def _pulls(self, request: Request) -> None:
        named = parameter(request, "repository")
        repository = None
        if named is not None:
            upstream, slash, name = named.partition("/")
            if not slash:
                raise BadRequest("name a repository with its registry, as docker.io/library/alpine")
            repository = (upstream, name)
        pulls = await self._view.pulls(count(request), repository)
        answer_json(request, {"version": VERSION, "pulls": pulls})

    async def _quota(self, request: Request) -> None:
        snapshot = await self._view.snapshot()
        answer_json(request, {"version": VERSION, "now": snapshot["docxy"]["now"], "upstreams": snapshot["upstreams"]})


class AdminSite(LoggedSite):
    """The admin socket's, which takes the arguments of acts."""

    def wants_form(self, method: bytes, path: bytes) -> bool:
        return method == b"POST" and path.startswith(b"/acts/")

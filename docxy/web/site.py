"""HTTP servers: the registry's, and those of the ports beside it.

The law: each request has one line in the access log, whether or not all of its answer went out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from twisted.internet.interfaces import IAddress
from twisted.web import server
from twisted.web.http import Request as HTTPRequest
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource, Resource

from docxy.access.interfaces import IGate
from docxy.addresses import peer
from docxy.errors import NotFound
from docxy.observe.access_log import Lines
from docxy.observe.metrics import IMeter, answered, unanswered
from docxy.observe.recorder import IRecorder
from docxy.routing import AS_OF, Router
from docxy.web.channel import IDLE, Channel
from docxy.web.connections import Connections
from docxy.web.exchange import exchange_of, is_hit, is_told, late_charge
from docxy.web.health import PATHS, Health
from docxy.web.request import Request
from docxy.web.spans import end_span
from docxy.web.token import Token
from docxy.web.v2 import V2


class LoggedSite(server.Site):
    """Speaks HTTP/1.1 only, over TLS too, even if h2 is installed; writes a line for each request."""

    noisy = False
    displayTracebacks = False
    protocol = Channel  # type: ignore[assignment]  # twisted's stub knows only its own channel

    def __init__(
        self,
        root: IResource,
        gate: IGate,
        lines: Lines,
        meter: IMeter,
        connections: Connections,
        seconds: Callable[[], float],
    ) -> None:
        """`gate`: knows the clients' addresses; `lines`: the access log.

        `connections`: of this port, or of several; `seconds`: the time since the epoch.
        """
        server.Site.__init__(self, root, timeout=IDLE)
        self.meter = meter
        self.gate = gate
        self.lines = lines
        self.channels: set[Channel] = set()
        self.emptied: Callable[[], object] = lambda: None
        self._connections = connections
        self._seconds = seconds
        self._second, self._date = -1, ""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel = Channel(addr)
        channel.factory = channel.site = self
        return channel

    def opened(self, channel: Channel) -> bool:
        """Whether a new connection may stay; `closed` is called for each."""
        self.channels.add(channel)
        return self._connections.opened(peer(channel.peer))

    def closed(self, channel: Channel) -> None:
        """A connection is gone."""
        if channel in self.channels:
            self.channels.discard(channel)
            if not self.channels:
                self.emptied()
            self._connections.closed(peer(channel.peer))

    def wants_form(self, method: bytes, path: bytes) -> bool:
        """See `docxy.web.channel`."""
        return False

    def date(self) -> str:
        """The time, as `Date` has it; made once a second."""
        second = int(self._seconds())
        if second != self._second:
            self._second = second
            self._date = datetimeToString(second).decode("ascii")
        return self._date

    def log(self, request: HTTPRequest) -> None:
        assert isinstance(request, Request)
        self._write(request)
        self._count(request, "")

    def lost(self, request: HTTPRequest) -> None:
        """The connection of a request is gone before all of it was answered."""
        assert isinstance(request, Request)
        self._write(request)
        self._count(request, "" if request.is_endless else unanswered(request.error))

    def _count(self, request: Request, ended: str) -> None:
        """In the metrics; `ended`: see `AnswerLabels`."""
        seconds = first_byte = None
        if not request.is_endless:
            seconds = max(0.0, self.reactor.seconds() - request.started)
            if request.headed is not None and request.about is not None and request.about[1] == "blobs":
                first_byte = max(0.0, request.headed - request.started)
        self.meter.answered(answered(request, ended), request.sentLength, seconds, first_byte)

    def charged_late(self, request: Request, account: str | None) -> None:
        """A counted request went to an upstream for one that is over; `account`: see `Request.charge`."""

    def _write(self, request: Request) -> None:
        """Its line in the access log."""
        took = self.reactor.seconds() - request.started if request.started else 0.0
        self.lines.answered(request, self.gate.address(request), self._seconds(), took)


class RegistrySite(LoggedSite):
    """The registry's own, which takes the forms of token requests, and tells the read model what it answered."""

    def __init__(
        self,
        root: IResource,
        gate: IGate,
        lines: Lines,
        meter: IMeter,
        connections: Connections,
        recorder: IRecorder | None,
        seconds: Callable[[], float],
    ) -> None:
        """`recorder`: gets each pull that was answered; None: nobody remembers them."""
        LoggedSite.__init__(self, root, gate, lines, meter, connections, seconds)
        self._recorder = recorder

    def log(self, request: HTTPRequest) -> None:
        LoggedSite.log(self, request)
        self._record(request)

    def lost(self, request: HTTPRequest) -> None:
        LoggedSite.lost(self, request)
        self._record(request)

    def _record(self, request: HTTPRequest) -> None:
        if not isinstance(request, Request):
            return
        if request.span.recording:
            end_span(request)
        if self._recorder is None or not is_told(request):
            return
        if self._recorder.is_flooded and is_hit(request):
            self._recorder.drop(request.method == b"HEAD", request.sentLength)
        else:
            exchange = exchange_of(request, self.gate.address(request), self.reactor.seconds, self._seconds())
            self._recorder.record(exchange)

    def charged_late(self, request: Request, account: str | None) -> None:
        if self._recorder is not None and request.target is not None:
            self._recorder.record(late_charge(request, account, self._seconds()))

    def wants_form(self, method: bytes, path: bytes) -> bool:
        return method == b"POST" and path.startswith(b"/auth/token")


class RegistryRoot(Resource):
    """`/health` and its like, `/auth/token`, `/v2` and `/<upstream>/v2`."""

    isLeaf = True

    def __init__(self, router: Router, v2: V2, token: Token, status: Mapping[bytes, IResource], health: Health) -> None:
        """`status`: what the status page has under the root, by its first segment."""
        Resource.__init__(self)
        self._status = status
        self._router = router
        self._v2 = v2
        self._token = token
        self._health = health

    def render(self, request: Request) -> int:
        path = request.path
        if path.startswith(b"/v2/") or path == b"/v2":
            return self._v2.render(request)
        first, _, rest = path[1:].partition(b"/")
        if first in PATHS and rest.partition(b"/")[0] != b"v2":
            return self._health.render(request)
        if first == b"auth" and rest.partition(b"/")[0] == b"token":
            return self._token.render(request)
        if first == AS_OF.encode("ascii"):
            return self._v2.render(request)
        if self._router.is_prefix(first.decode("ascii", "replace")) and rest.partition(b"/")[0] == b"v2":
            return self._v2.render(request)
        page = self._status.get(first)
        if page is not None:
            return _rendered(page, rest, request)
        request.refuse(NotFound("nothing is here; a registry's paths start with /v2/"))
        return server.NOT_DONE_YET


def _rendered(page: IResource, rest: bytes, request: Request) -> int:
    """A page, or what is below it; `rest`: of the path, behind the page's name."""
    request.prepath, request.postpath = [], rest.split(b"/") if rest else []
    while request.postpath and not page.isLeaf:
        segment = request.postpath.pop(0)
        page = page.getChildWithDefault(segment, request)
    if request.postpath:
        request.refuse(NotFound("nothing is here; see /status"))
        return server.NOT_DONE_YET
    return cast(int, page.render(request))

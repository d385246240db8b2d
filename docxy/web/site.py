"""The resource tree: Health, Token, V2."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web import server
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, Resource

from docxy.accesslog import DaemonLog, Lines, request_line
from docxy.errors import NotFound
from docxy.gate.interfaces import IGate
from docxy.gate.open import OpenGate
from docxy.metrics import IMeter, NoMeter, answered
from docxy.routing import Router
from docxy.web.channel import Channel, Request
from docxy.web.health import Health
from docxy.web.repeats import Repeats
from docxy.web.respond import reply_error
from docxy.web.token import Token
from docxy.web.v2 import V2

IDLE = 60.0
"""Seconds a connection may take for its request, or wait for the next."""


class LoggedSite(server.Site):
    """Writes a line for each request."""

    noisy = False
    displayTracebacks = False

    def __init__(
        self,
        root: IResource,
        gate: IGate | None = None,
        lines: Lines | None = None,
        factory: type[server.Request] = server.Request,
        meter: IMeter | None = None,
    ) -> None:
        """`gate`: knows the clients' addresses; `lines`: where the access log goes."""
        server.Site.__init__(self, root, requestFactory=factory, timeout=IDLE)
        self.meter: IMeter = NoMeter() if meter is None else meter
        self.gate = OpenGate() if gate is None else gate
        self.lines: Lines = DaemonLog() if lines is None else lines

    def log(self, request: HTTPRequest) -> None:
        self.lines.write(f"{self.gate.address(request)}{request_line(request)}")
        self.meter.answered(answered(request), request.sentLength)


class RegistrySite(LoggedSite):
    """Speaks HTTP/1.1, over TLS too, whatever is installed beside it."""

    protocol = Channel  # type: ignore[assignment]  # twisted's stub knows only its own channel

    def __init__(
        self,
        root: IResource,
        gate: IGate | None = None,
        lines: Lines | None = None,
        seconds: Callable[[], float] | None = None,
        meter: IMeter | None = None,
    ) -> None:
        LoggedSite.__init__(self, root, gate, lines, Request, meter)
        self.repeats = Repeats(self.reactor.seconds if seconds is None else seconds)

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def repeat(self, head: bytes, answer: bytes, request: Request) -> None:
        """Keep an answer for those who ask the same, if it does not matter who they are."""
        if self.gate.alike:
            line, what = request_line(request), answered(request)
            self.repeats.keep(head, answer, line, what, request.sentLength, request.repeat_for)


class Root(Resource):
    """`/health`, `/auth/token`, `/v2` and `/<upstream>/v2`."""

    def __init__(self, router: Router, v2: V2, token: Token) -> None:
        Resource.__init__(self)
        self._router = router
        self._v2 = v2
        auth = Resource()
        auth.putChild(b"token", token)
        self.putChild(b"health", Health())
        self.putChild(b"v2", v2)
        self.putChild(b"auth", auth)

    def getChild(self, path: bytes, request: server.Request) -> IResource:
        segment = path.decode("ascii", "replace")
        if self._router.is_prefix(segment) and (request.postpath or [])[:1] == [b"v2"]:
            return self._v2
        return Nothing()


class Nothing(Resource):
    """Everything that is no endpoint."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: HTTPRequest) -> int:
        reply_error(request, NotFound("nothing is here; a registry's paths start with /v2/"))
        return server.NOT_DONE_YET


def make_site(
    router: Router, gate: IGate, v2: V2, token: Token, lines: Lines, seconds: Callable[[], float], meter: IMeter
) -> server.Site:
    """The registry's HTTP server; `seconds`: the time since the epoch."""
    return RegistrySite(Root(router, v2, token), gate, lines, seconds, meter)

"""The resource tree: Health, Token, V2; and the HTTP server's own limits.

The law: no line that is logged holds a query or a header of a client's request.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, cast

from twisted.internet.interfaces import ITCPTransport
from twisted.web import server
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, Resource

from docxy.errors import BadRequest, NotFound
from docxy.gate.interfaces import IGate
from docxy.routing import Router
from docxy.web.health import Health
from docxy.web.respond import reply_error
from docxy.web.token import MAX_FORM, Token
from docxy.web.v2 import V2

IDLE = 60.0
"""Seconds a connection may take for its request, or wait for the next."""


class _Discarded(BytesIO):
    """The body of a request that is too large for any that is answered."""

    def write(self, data: Any, /) -> int:
        return len(data)


class Request(server.Request):
    """A request whose headers are text, and of whose body no more than a token request's form is kept."""

    defaultContentType = None

    def gotLength(self, length: int | None) -> None:
        # Twisted would spool the body of any POST to disk, whatever its size.
        self.content = BytesIO() if length is not None and length <= MAX_FORM else _Discarded()

    def process(self) -> None:
        if all(_is_text(value) for _, values in self.requestHeaders.getAllRawHeaders() for value in values):
            server.Request.process(self)
        else:
            reply_error(self, BadRequest("the request has a header whose bytes are not UTF-8"))


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class Channel(HTTPChannel):
    """HTTP/1.1 and nothing else."""

    def dataReceived(self, data: bytes) -> None:
        # podman and skopeo try https first: a TLS hello on a plain port has no line's end, and
        # waiting for one would cost each of their first requests ten seconds.
        if data[:1] == b"\x16" and not self.requests:
            cast(ITCPTransport, self.transport).abortConnection()
            return
        HTTPChannel.dataReceived(self, data)


def access_line(timestamp: str, request: HTTPRequest, address: Callable[[HTTPRequest], str] | None = None) -> str:
    """One request as the log has it: without query, headers or anything else a client could hide a secret in.

    `address`: tells the client's, where a proxy may stand between.
    """
    path = request.uri.partition(b"?")[0][:512].decode("ascii", "backslashreplace")
    printable = "".join(c if c.isprintable() and c not in '"\\' else f"\\x{ord(c):02x}" for c in path)
    method = request.method[:16].decode("ascii", "backslashreplace")
    client = getattr(request.getClientAddress(), "host", "-") if address is None else address(request)
    return f'{client} "{ascii(method)[1:-1]} {printable}" {request.code} {request.sentLength}'


class RegistrySite(server.Site):
    """Speaks HTTP/1.1, over TLS too, whatever is installed beside it."""

    protocol = Channel  # type: ignore[assignment]  # twisted's stub knows only its own channel
    displayTracebacks = False

    def __init__(self, root: IResource, line: Callable[[str, HTTPRequest], str] = access_line) -> None:
        """`line`: makes the log's line for a request."""
        server.Site.__init__(self, root, requestFactory=Request, timeout=IDLE, logFormatter=line)

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


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


def make_site(router: Router, gate: IGate, v2: V2, token: Token) -> server.Site:
    """The registry's HTTP server."""
    return RegistrySite(Root(router, v2, token), partial(access_line, address=gate.address))

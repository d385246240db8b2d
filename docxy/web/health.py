"""`/health`: whether the daemon answers, whatever the state of its upstreams.

The law: it asks nobody and waits for nothing.
"""

from __future__ import annotations

from twisted.web.resource import Resource
from twisted.web.server import Request

from docxy.errors import NotFound, RegistryError, Unsupported

_BODY = b'{"status": "ok"}\n'


class Health(Resource):
    """200 at once for GET and HEAD."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: Request) -> bytes:
        if any(request.postpath or ()):
            return _error(request, NotFound("nothing is below /health"))
        if request.method not in (b"GET", b"HEAD"):
            return _error(request, Unsupported.method(request.method[:16].decode("ascii", "replace")))
        request.setHeader(b"Cache-Control", b"no-store")
        return _json(request, _BODY)


def _error(request: Request, error: RegistryError) -> bytes:
    request.setResponseCode(error.status)
    for name, value in error.headers:
        request.setHeader(name, value)
    return _json(request, error.body())


def _json(request: Request, body: bytes) -> bytes:
    """The body to render: for HEAD its length and type only."""
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Content-Length", str(len(body)).encode("ascii"))
    return b"" if request.method == b"HEAD" else body

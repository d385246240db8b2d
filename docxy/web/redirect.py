"""The plain HTTP port beside HTTPS: everything is redirected to the public URL.

The law: the target is the public URL and then the request's own path and query, encoded;
nothing else of the request (Host, an absolute URI's host) reaches it.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from docxy.errors import BadRequest
from docxy.web.channel import MAX_URI
from docxy.web.request import Request

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_SAFE = "/?%:@!$&'()*+,;=~[]"


def location(public_url: str, uri: bytes) -> str | None:
    """Where a request goes; None when its URI is none that can be redirected.

    `public_url` has no trailing slash; `uri` is the request line's, in origin or absolute form.
    """
    if len(uri) > MAX_URI:
        return None
    absolute = _ABSOLUTE.match(uri)
    if absolute is not None:
        uri = uri[absolute.end() :]
        if not uri.startswith(b"/"):
            uri = b"/" + uri
    if not uri.startswith(b"/"):
        return None
    return public_url + quote(uri.partition(b"#")[0], safe=_SAFE)


class HTTPSRedirect(Resource):
    """301 for GET and HEAD; 308, which keeps method and body, for the rest."""

    isLeaf = True

    def __init__(self, public_url: str) -> None:
        Resource.__init__(self)
        self._public_url = public_url

    def render(self, request: Request) -> int:
        target = location(self._public_url, request.uri)
        if target is None:
            request.refuse(BadRequest("this URI cannot be redirected"))
        else:
            request.answer(301 if request.method in (b"GET", b"HEAD") else 308, [("Location", target)], b"")
        return NOT_DONE_YET

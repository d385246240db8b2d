"""`python bare.py PORT`: a bare twisted.web Site with one resource: what Twisted alone takes for a request."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

reactor: Any = _reactor


class Answer(Resource):
    """`{}` to everything."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"{}"


class Silent(Site):
    """Without an access log."""

    def log(self, request: object) -> None:
        return


if __name__ == "__main__":
    reactor.listenTCP(int(sys.argv[1]), Silent(Answer()), interface="127.0.0.1")
    reactor.run()

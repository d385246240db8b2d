"""`/health`, `/ready` and `/startup`: whether this process lives, can serve, has started.

The law: they ask nobody and wait for nothing: `/health` says that the reactor turns, the others repeat
what the process saw last (`docxy.observe.condition`).  Anybody may ask, so no answer has a path or a
registry's name in it.  A worker answers for itself alone: what it lacks, the others lack too, as all look at one
cache; a worker that is gone takes no connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from docxy.errors import NotFound
from docxy.observe.condition import Condition
from docxy.web.request import Request

PATHS = (b"health", b"ready", b"startup")
_HEADERS = (("Cache-Control", "no-store"), ("Content-Type", "application/json"))
_LATER = (*_HEADERS, ("Retry-After", "5"))


class Health(Resource):
    """200 or 503 at once for GET and HEAD."""

    isLeaf = True

    def __init__(self, condition: Condition) -> None:
        Resource.__init__(self)
        self._condition = condition

    def render(self, request: Request) -> int:
        asked = request.path.strip(b"/")
        if asked not in PATHS:
            request.refuse(NotFound(f"nothing is below /{asked.partition(b'/')[0].decode('ascii', 'replace')}"))
        elif request.method not in (b"GET", b"HEAD"):
            request.refuse(request.unsupported())
        elif asked == b"health":
            _answer(request, "ok", "", {})
        elif asked == b"ready":
            _answer(request, "ready", "not ready", self._condition.missing())
        else:
            missing = self._condition.missing()
            _answer(request, "started", "starting", {name: why for name, why in missing.items() if name == "startup"})
        return NOT_DONE_YET


def _answer(request: Request, good: str, bad: str, missing: Mapping[str, str]) -> None:
    if missing:
        request.answer(503, _LATER, _body({"status": bad, "missing": missing}))
    else:
        request.answer(200, _HEADERS, _body({"status": good}))


def _body(told: object) -> bytes:
    return f"{json.dumps(told)}\n".encode("ascii")

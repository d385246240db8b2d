"""`/acts/NAME` on the admin socket: what the steward does, as lines of JSON while it does it.

The laws: what changes anything is asked by POST with a JSON object; what only reads, by GET with a query, too.  An
act that cannot begin is an error answer, one that fails later ends with a line that says why: an answer without such
a line or a `done` was cut short.  A client that goes away stops the act.  The number of acts at once has a bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from docxy.errors import BadRequest, NotFound, RegistryError
from docxy.steward.acts import ACTS
from docxy.steward.lines import Act, Arguments, Line, Lines
from docxy.steward.processes import Processes
from docxy.steward.steward import Steward
from docxy.web.answers import Unavailable, dumped, parameters
from docxy.web.client_stream import ClientGone, ClientStream, abort
from docxy.web.request import Request
from docxy.web.respond import respond

MOST_ACTS = 16
"""Acts at once."""
STALLED = 600.0
"""Seconds after which a client that takes nothing is dropped: somebody may have stopped a pager."""
KEEPALIVE = 15.0
"""Seconds between two empty lines, by which the client knows that docxy is still at it."""
_HEADERS = (("Content-Type", "application/x-ndjson"), ("Cache-Control", "no-store"))

_log = Logger()


class Acts(Resource):
    """One child for each act."""

    def __init__(self, steward: Callable[[], Steward], processes: Processes, clock: IReactorTime) -> None:
        """`steward`: called for each act that is about the cache; raises RegistryError where there is none."""
        Resource.__init__(self)
        self._processes = processes
        self._steward = steward
        self._clock = clock
        self._running: set[Deferred[None]] = set()
        self._ended: list[Deferred[None]] = []

    def getChild(self, path: bytes, request: Request) -> IResource:
        act = ACTS.get(path.decode("ascii", "replace"))
        return _Leaf(lambda request: self._begin(request, act))

    def ended(self) -> Deferred[None]:
        """Fires when no act runs."""
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        self._look()
        return ended

    def _look(self) -> None:
        if not self._running:
            waiting, self._ended = self._ended, []
            for each in waiting:
                each.callback(None)

    async def stop(self) -> None:
        """End the acts that run."""
        running = list(self._running)
        for act in running:
            act.cancel()
        await DeferredList(running, consumeErrors=True)

    async def _begin(self, request: Request, act: Act | None) -> None:
        if act is None:
            raise NotFound(f"there is no such act; there are {', '.join(sorted(ACTS))}")
        arguments = _arguments(request, act)
        if len(self._running) >= MOST_ACTS:
            raise Unavailable("docxy is at too many commands already: try again in a moment")
        running = Deferred.fromCoroutine(
            self._run(request, act.run(self._steward() if act.cache else self._processes, arguments))
        )
        self._running.add(running)
        try:
            await running
        except CancelledError:  # the client is gone, or docxy stops
            abort(request)
        finally:
            self._running.discard(running)
            self._look()

    async def _run(self, request: Request, lines: Lines) -> None:
        try:
            # Not `anext` with a default: Python 3.11's fails when what it waits for is not there at once.
            try:
                first = await lines.__anext__()
            except StopAsyncIteration:
                request.answer(200, _HEADERS, b"")
                return
            request.is_endless = True
            request.start(200, _HEADERS, None)
            stream = ClientStream(request, self._clock, STALLED)
            alive = LoopingCall(request.write, b"\n")
            alive.clock = self._clock
            alive.start(KEEPALIVE, now=False)
            try:
                with suppress(ClientGone):
                    await _send(stream, first, lines)
                    alive.stop()
                    stream.close()
                    request.finish()
            finally:
                if alive.running:
                    alive.stop()
                stream.close()
        finally:
            await lines.aclose()


async def _send(stream: ClientStream, first: Line, lines: Lines) -> None:
    try:
        await stream.write(dumped(first))
        async for line in lines:
            await stream.write(dumped(line))
    except RegistryError as error:
        await stream.write(dumped({"failed": error.message}))
    except (ClientGone, CancelledError):
        raise
    except Exception:
        _log.failure("a command failed")
        await stream.write(dumped({"failed": "docxy failed at this; its log says more"}))


def _arguments(request: Request, act: Act) -> Arguments:
    """Raises BadRequest, Unsupported."""
    if request.method == b"GET" and not act.changes:
        return Arguments(parameters(request))
    if request.method != b"POST":
        raise request.unsupported("POST" if act.changes else "GET, POST")
    body = b"" if request.content is None else request.content.read()
    try:
        given: Any = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise BadRequest("the body is not a JSON object")
    return Arguments(given)


class _Leaf(Resource):
    """One act."""

    isLeaf = True

    def __init__(self, answer: Callable[[Request], Any]) -> None:
        Resource.__init__(self)
        self._answer = answer

    def render(self, request: Request) -> int:
        return respond(request, self._answer(request))

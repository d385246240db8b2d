"""Server-sent events: a snapshot at once, and another one, at most one a second, when something changed.

The laws: the number of streams has a bound; what several viewers see alike is made once for all of them; a
client that takes nothing is dropped; a stop of docxy does not wait for a stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from docxy.single_flight import SingleFlight
from docxy.web.answers import Leaf, Unavailable, dumped
from docxy.web.client_stream import ClientGone, ClientStream
from docxy.web.request import Request

MOST_STREAMS = 200
"""Streams of one process at once."""
STALLED = 60.0
"""Seconds after which a client that takes nothing is dropped."""
KEEPALIVE = 20.0
"""Seconds after which a stream without news says that it is alive."""

_HEADERS = (
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store"),
    # nginx would hold events back.
    ("X-Accel-Buffering", "no"),
)


class Events(Leaf):
    """One stream for each request."""

    def __init__(
        self,
        snapshot: Callable[[Request], Awaitable[object]],
        subscribe: Callable[[Callable[[], object]], Callable[[], None]],
        viewer: Callable[[Request], str],
        clock: IReactorTime,
    ) -> None:
        """`snapshot`: what a request's viewer may see; `viewer`: the same for requests that see the same.

        `subscribe`: see `docxy.observe.view.IView`.
        """
        Leaf.__init__(self, self._open)
        self._snapshot = snapshot
        self._subscribe = subscribe
        self._viewer = viewer
        self._clock = clock
        self._streams = 0
        self._waiting: dict[_News, None] = {}
        self._unsubscribe: Callable[[], None] = lambda: None
        self._events: dict[str, bytes] = {}
        """What was made since the last change, by viewer."""
        self._making: SingleFlight[tuple[str, int], bytes] = SingleFlight()
        self._changes = 0
        self._is_over = False

    def end(self) -> None:
        """End all streams: what else happens here is not news any more."""
        self._is_over = True
        self._changed()

    async def _open(self, request: Request) -> None:
        if self._streams >= MOST_STREAMS:
            raise Unavailable("too many event streams are open; ask /status.json instead")
        # It tells whether the viewer may see anything, before the answer has a status.
        first = b"data: " + dumped(await self._snapshot(request)) + b"\n"
        if request.method == b"HEAD":
            request.answer(200, _HEADERS, b"")
            return
        self._streams += 1
        request.is_endless = True
        request.start(200, _HEADERS, None)
        stream = ClientStream(request, self._clock, STALLED)
        try:
            await self._send(request, stream, first)
        except ClientGone:
            return
        finally:
            self._streams -= 1
            stream.close()

    async def _send(self, request: Request, stream: ClientStream, event: bytes) -> None:
        """Until the client goes away, or may not see the page any more."""
        news = self._listen()
        try:
            while True:
                await stream.write(event)
                while not await news.within(KEEPALIVE, self._clock):
                    await stream.write(b": alive\n\n")
                if self._is_over:
                    stream.abort()
                    raise ClientGone
                event = await self._event(request)
        finally:
            self._leave(news)

    def _listen(self) -> _News:
        if not self._waiting:
            self._unsubscribe = self._subscribe(self._changed)
        news = _News()
        self._waiting[news] = None
        return news

    def _leave(self, news: _News) -> None:
        del self._waiting[news]
        if not self._waiting:
            self._unsubscribe()
            self._events.clear()

    def _changed(self) -> None:
        self._changes += 1
        self._events.clear()
        for news in list(self._waiting):
            news.came()

    async def _event(self, request: Request) -> bytes:
        """What this request's viewer sees now."""
        viewer = self._viewer(request)
        made = self._events.get(viewer)
        if made is None:
            changes = self._changes
            made = await self._making.do((viewer, changes), lambda: self._made(request))
            if changes == self._changes and self._waiting:
                self._events[viewer] = made
        return made

    async def _made(self, request: Request) -> bytes:
        return b"data: " + dumped(await self._snapshot(request)) + b"\n"


class _News:
    """Whether something changed since the last look."""

    def __init__(self) -> None:
        self._there = False
        self._waiting: Deferred[None] | None = None

    def came(self) -> None:
        self._there = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def within(self, seconds: float, clock: IReactorTime) -> bool:
        """Whether news is there, or came before the time was over."""
        if not self._there:
            self._waiting = Deferred()
            try:
                await self._waiting.addTimeout(seconds, clock)
            except TimeoutError:
                self._waiting = None
                return False
        self._there = False
        return True

"""The connections of a site, and how they come to an end.

The law: at the stop, requests that are being answered may go on for the grace, and all that they
still need runs until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol

from twisted.application.service import IService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from docxy.daemon.listeners import IServing

IDLE_GRACE = 5.0
"""Seconds for which a connection without a request stays open when another docxy has taken over: a client
that has just connected is about to send one."""
CLOSE_GRACE = 2.0
"""Seconds a connection that is closed with nothing left to send may take to close."""
STOPPED = "docxy stopped before all of it was sent"


class IWatchedSite(Protocol):
    """A site that knows its connections."""

    emptied: Callable[[], object]
    """Called when the last connection is gone."""

    @property
    def channels(self) -> Set[IWatchedChannel]:
        """The connections that there are."""

    def doStart(self) -> None:
        """A port begins to serve it."""

    def doStop(self) -> None:
        """A port serves it no more."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol of a connection."""


class IWatchedRequest(Protocol):
    """What is being answered."""

    error: str
    """Why it is not, or not all of it."""
    is_endless: bool
    """Whether the answer has no end of its own."""


class IWatchedChannel(Protocol):
    """One connection of a site."""

    transport: Any
    request: Any
    """What is being answered on it, an `IWatchedRequest`; None: nothing."""
    persistent: bool
    """Whether the connection goes on after the answer."""


@implementer(IProtocolNegotiationFactory)
class Watched(Factory[Any]):
    """A site whose connections can be ended well."""

    noisy = False

    def __init__(self, site: IWatchedSite, clock: IReactorTime) -> None:
        self._site = site
        self._clock = clock

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only, whether or not h2 is installed."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        self._site.doStart()

    def stopFactory(self) -> None:
        self._site.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._site.buildProtocol(addr)

    @property
    def in_progress(self) -> int:
        """Requests that are being answered."""
        return sum(channel.request is not None for channel in self._site.channels)

    @property
    def connected(self) -> int:
        """Connections."""
        return len(self._site.channels)

    def drain(self, grace: float, idle: float = 0.0) -> Deferred[None]:
        """Close each connection once nothing is being answered on it, at the latest after `grace` seconds.

        `idle`: seconds for which connections on which nothing is being answered stay open.
        Fires when all are closed.  May be called again, with less patience.
        """
        if not self._site.channels:
            return succeed(None)
        done: Deferred[None] = Deferred()
        for channel in self._site.channels:
            # The channel closes the connection after this answer.
            channel.persistent = False
        ends = [
            # Over TLS a close waits for the client's, which an idle client may never send.
            self._clock.callLater(min(idle + CLOSE_GRACE, grace), lambda: self._abort(self._idle())),
            self._clock.callLater(grace, self.abort),
        ]
        if idle:
            ends.append(self._clock.callLater(min(idle, grace), self._close_idle))
        else:
            self._close_idle()
        before = self._site.emptied

        def emptied() -> None:
            for end in ends:
                if end.active():
                    end.cancel()
            before()
            if not done.called:
                done.callback(None)

        self._site.emptied = emptied
        if not self._site.channels:
            emptied()
        return done

    def abort(self) -> None:
        """Close all connections now; that answers break off is then not the client's doing."""
        for channel in self._site.channels:
            request: IWatchedRequest | None = channel.request
            if request is not None and not request.is_endless:
                request.error = request.error or STOPPED
        self._abort(list(self._site.channels))

    def _idle(self) -> list[IWatchedChannel]:
        """Connections on which nothing is being answered, or something that has no end."""
        return [channel for channel in self._site.channels if channel.request is None or channel.request.is_endless]

    def _close_idle(self) -> None:
        for channel in self._idle():
            channel.transport.loseConnection()

    def _abort(self, channels: list[IWatchedChannel]) -> None:
        for channel in channels:
            channel.transport.abortConnection()


@implementer(IServing)
class Here:
    """Sites of this process, and the service they depend on, which runs until they have been drained."""

    _log = Logger()

    def __init__(self, watched: list[Watched], depends: IService, upkeep: Sequence[IService] = ()) -> None:
        """`upkeep`: of `depends`, what is another docxy's when that has taken over."""
        self._watched = watched
        self._depends = depends
        self._upkeep = upkeep

    def abort(self) -> None:
        for watched in self._watched:
            watched.abort()

    async def retire(self, grace: float) -> None:
        await DeferredList([maybeDeferred(each.disownServiceParent) for each in self._upkeep])
        self._upkeep = ()
        await DeferredList([watched.drain(grace, min(IDLE_GRACE, grace)) for watched in self._watched])

    async def stop(self, grace: float) -> None:
        running = sum(watched.in_progress for watched in self._watched)
        if running:
            self._log.info("stopping: {running} requests have {grace:g} s to finish", running=running, grace=grace)
        await DeferredList([watched.drain(grace) for watched in self._watched])
        await maybeDeferred(self._depends.stopService)

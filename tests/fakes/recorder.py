"""What the fake upstream saw and sent, and a way to wait for it.

The law: a waiter is told in a later turn of the reactor, never in the middle of a write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from tests.fakes.wire import Channel, Received


@define(eq=False, slots=False)
class Recorder:
    """The recording half of `Upstream`."""

    reactor: Any
    """IReactorTCP, IReactorTime; IReactorSSL with a context factory."""
    requests: list[Received] = field(factory=list, init=False)
    """Every request, in the order of arrival."""
    connections: int = field(default=0, init=False)
    """How many were ever opened, on all ports."""
    _channels: set[Channel] = field(factory=set, init=False)
    _waiting: list[tuple[Callable[[], bool], Deferred[None]]] = field(factory=list, init=False)
    _check: Any = field(default=None, init=False)

    def opened(self, channel: Channel) -> int:
        self._channels.add(channel)
        self.connections += 1
        self._changed()
        return self.connections

    def closed(self, channel: Channel) -> None:
        self._channels.discard(channel)
        self._changed()

    def select(self, kind: str | None = None, method: str | None = None) -> list[Received]:
        """The requests of a kind and method; None is any."""
        return [each for each in self.requests if kind in (None, each.kind) and method in (None, each.method)]

    def count(self, kind: str | None = None, method: str | None = None) -> int:
        return len(self.select(kind, method))

    @property
    def blob_bytes_sent(self) -> int:
        """Bytes of blobs given to the sockets, by the registry and the CDN; redirects and errors not counted."""
        return sum(
            each.sent
            for each in self.requests
            if each.status in (200, 206) and (each.kind == "blob" or (each.kind == "cdn" and "/blob/" in each.path))
        )

    @property
    def open_connections(self) -> int:
        return len(self._channels)

    def until(self, predicate: Callable[[], bool]) -> Deferred[None]:
        """Fires when the predicate holds; asked again whenever something happened here.  May be cancelled."""
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting.append((predicate, waiting))
        self._changed()
        return waiting

    def received(self, kind: str | None = None, method: str | None = None, count: int = 1) -> Deferred[None]:
        """Fires when so many such requests have come in all."""
        return self.until(lambda: self.count(kind, method) >= count)

    def finished(self, kind: str | None = None, method: str | None = None, count: int = 1) -> Deferred[None]:
        """Fires when so many such requests are over: answered, cut, or left by the client."""
        return self.until(lambda: sum(each.done for each in self.select(kind, method)) >= count)

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiting = [each for each in self._waiting if each[1] is not waiting]

    def _changed(self) -> None:
        # In a later turn of the reactor: a test must not run in the middle of a write.
        if self._waiting and self._check is None:
            self._check = self.reactor.callLater(0, self._check_waiting)

    def _check_waiting(self) -> None:
        self._check = None
        ready = [each for each in self._waiting if each[0]()]
        self._waiting = [each for each in self._waiting if each not in ready]
        for _, waiting in ready:
            waiting.callback(None)

    def _forget_all(self) -> None:
        self._waiting = []
        if self._check is not None:
            self._check.cancel()
            self._check = None

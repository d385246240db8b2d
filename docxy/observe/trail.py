"""What happened at an upstream on behalf of one request, noted where it happens.

The laws: *a note costs nothing and fails at nothing*: where nobody collects, it goes nowhere.  What is noted in
a coroutine, and in everything that it awaits or starts, goes to the trail that was chosen last: a request's, or
that of the fetch which several requests share.  So what waits for a connection need not know who asks.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from attrs import define, field
from zope.interface import Attribute, Interface, implementer

if TYPE_CHECKING:
    from collections.abc import Iterator


class ITrail(Interface):
    """Collects notes."""

    request_id: str = Attribute("Of the request that it is of; empty: of none.")

    def wait(what: str, seconds: float) -> None:
        """Something was waited for; `what`: one of `docxy.observe.exchange.WAITS`."""

    def charge(account: str | None) -> None:
        """A counted request went to the upstream; `account`: docxy's own, '' for none; None: the client's own."""

    def failed_over() -> None:
        """One endpoint of an upstream failed, and the next one was asked."""


_trail: ContextVar[ITrail | None] = ContextVar("trail", default=None)


@contextmanager
def collecting(trail: ITrail) -> Iterator[None]:
    """Notes of what is begun within go to this trail.

    Await within it only in a coroutine that has a Deferred of its own: a context variable is reset where it was set.
    """
    token = _trail.set(trail)
    try:
        yield
    finally:
        _trail.reset(token)


def waited(what: str, seconds: float) -> None:
    """See `ITrail.wait`."""
    trail = _trail.get()
    if trail is not None:
        trail.wait(what, seconds)


def charged(account: str | None) -> None:
    """See `ITrail.charge`."""
    trail = _trail.get()
    if trail is not None:
        trail.charge(account)


def failed_over() -> None:
    """See `ITrail.failed_over`."""
    trail = _trail.get()
    if trail is not None:
        trail.failed_over()


def begun_by() -> str:
    """The id of the request for which something begins now; empty: for none."""
    trail = _trail.get()
    return "" if trail is None else trail.request_id


@implementer(ITrail)
class Shared:
    """What one question waited for that several requests share: who asked it first pays, all of them waited."""

    def __init__(self) -> None:
        self._first = _trail.get()
        self.request_id = begun_by()
        self.connecting = 0.0
        """Seconds that it waited for a free connection."""

    def wait(self, what: str, seconds: float) -> None:
        if what == "connection":
            self.connecting += seconds
        if self._first is not None:
            self._first.wait(what, seconds)

    def charge(self, account: str | None) -> None:
        if self._first is not None:
            self._first.charge(account)

    def failed_over(self) -> None:
        if self._first is not None:
            self._first.failed_over()


@implementer(ITrail)
@define(eq=False)
class Fetched:
    """How the fetch of one blob went, for all who follow it; it changes while the fetch runs."""

    request_id: str = ""
    """Of the request that began it."""
    about: tuple[str, str] = ("", "")
    """The upstream's name and the repository."""
    received: int = 0
    """Bytes that came from the upstream."""
    slowed: float = 0.0
    """Seconds that docxy's own limit of the rate took."""
    archived: bool = False
    """Whether it began with the archive."""
    _connections: int = 1
    _resumed: int = 0
    _failovers: int = 0
    _connecting: float = 0.0
    _later: Fetched | None = field(default=None, init=False)
    """The fetch that went on for the clients of this one."""

    def wait(self, what: str, seconds: float) -> None:
        if what == "connection":
            self._connecting += seconds
        if what == "rate":
            self.slowed += seconds

    def charge(self, account: str | None) -> None:
        """No registry counts blobs."""

    def failed_over(self) -> None:
        self._failovers += 1

    def resume(self) -> None:
        """The upstream broke off, and the fetch goes on."""
        self._resumed += 1

    def used(self, connections: int) -> None:
        """It uses this many connections."""
        self._connections = max(self._connections, connections)

    def goes_on(self, later: Fetched | None) -> None:
        """It was given up, and its clients follow another one."""
        if self._later is None and later is not self:
            self._later = later

    @property
    def connecting(self) -> float:
        """Seconds that it waited for a free connection before its first byte."""
        return self._connecting

    @property
    def connections(self) -> int:
        """Connections at once, at most."""
        return max(each._connections for each in self._all())

    @property
    def resumed(self) -> int:
        """Times that the upstream broke off."""
        return sum(each._resumed for each in self._all())

    @property
    def failovers(self) -> int:
        """Times that another endpoint was asked."""
        return sum(each._failovers for each in self._all())

    def _all(self) -> Iterator[Fetched]:
        each: Fetched | None = self
        while each is not None:
            yield each
            each = each._later

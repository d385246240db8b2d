"""How long a client may take nothing.

The law: what counts is what leaves the kernel's send queue, not what can be handed to it.  That
queue holds megabytes, and takes more only when a third of it is free: a slow client that takes
of it all the time must not look like one that is gone.
"""

from __future__ import annotations

import fcntl
import sys
import termios
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol

from docxy.web.request import Request


def socket_of(request: Request) -> Connection | None:
    """The socket's transport under a request, below TLS too; None where there is none."""
    transport = None if request.channel is None else request.channel.transport
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport = transport.transport
    return transport if isinstance(transport, Connection) else None


def unsent(request: Request) -> int:
    """Bytes in the kernel that the client has not taken; 0 where that cannot be told (tcp(7), SIOCOUTQ)."""
    socket = socket_of(request)
    if socket is None:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


@define(eq=False)
class StallTimer:
    """Calls `drop` when, between `start` and `stop`, the client takes nothing for `seconds`, at most twice as long."""

    _waiting: Callable[[], int]
    """How many bytes wait in the kernel."""
    _clock: IReactorTime
    _seconds: float
    _drop: Callable[[], None]
    _before: int = field(init=False, default=0)
    _moved: bool = field(init=False, default=False)
    _timer: IDelayedCall | None = field(init=False, default=None)

    _log = Logger()

    def start(self) -> None:
        """Something waits for the client."""
        if self._timer is None:
            self._moved = False
            self._before = self._waiting()
            self._timer = self._clock.callLater(self._seconds, self._look)

    def moved(self) -> None:
        """The kernel took something."""
        self._moved = True

    def stop(self) -> None:
        """Nothing waits any more.  May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._moved or self._waiting() < self._before:
            self.start()
            return
        self._log.info("dropped a client that took nothing for {seconds:g} s", seconds=self._seconds)
        self._drop()

"""Listening Unix sockets that another process opened.

The law: *a socket that is passed on keeps its file and its mode*: the file goes with the process that has the
socket last, not with each that had it.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import Any

from attrs import define
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock
from zope.interface import implementer


class UnixPort(unix.Port):
    """Accepts on a socket that listens already."""

    # A shutdown would reach all processes that have the socket.
    _shouldShutdown = False
    is_owner = False
    """Whether the socket's file is this process's to remove."""

    def __init__(self, descriptor: int, factory: IProtocolFactory, reactor: Any) -> None:
        listening = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)
        listening.setblocking(False)
        path = os.fsencode(listening.getsockname())
        unix.Port.__init__(self, path, factory, mode=stat.S_IMODE(os.stat(path).st_mode), reactor=reactor)
        self._preexistingSocket: Any = listening

    def own(self) -> None:
        """From now on the file is this process's, and so is the lock that keeps other docxys from it."""
        self.is_owner = True
        path = os.fsencode(self._bindPath)
        name, fresh = path + b".lock", path + b".lock.%d" % os.getpid()
        if os.path.islink(name):
            with suppress(OSError):
                os.unlink(fresh)
            os.symlink(str(os.getpid()), fresh)
            os.replace(fresh, name)
            self.lockFile = FilesystemLock(name)
            self.lockFile.locked = True

    def connectionLost(self, reason: Failure) -> None:
        if self.is_owner:
            unix.Port.connectionLost(self, reason)
        else:
            tcp.Port.connectionLost(self, reason)


@implementer(IStreamServerEndpoint)
@define
class UnixEndpoint:
    """For a `Listener`."""

    descriptor: int
    reactor: Any

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        try:
            port = UnixPort(self.descriptor, factory, self.reactor)
            port.startListening()  # type: ignore[no-untyped-call]  # not annotated
        except Exception:
            return fail()
        os.close(self.descriptor)
        return succeed(port)


def adopt(descriptor: int, family: int, reactor: Any) -> IStreamServerEndpoint:
    """An endpoint that accepts on a socket of another process."""
    if family == socket.AF_UNIX:
        return UnixEndpoint(descriptor, reactor)
    return AdoptedStreamServerEndpoint(reactor, descriptor, family)


def leave(port: Any) -> None:
    """Accept no more on a port that another process has too: neither its socket nor its file is touched.

    Closing it the usual way would shut the socket down for all of them.  It is closed when this process ends.
    """
    port.stopReading()
    if isinstance(port, unix.Port):
        port.lockFile = None

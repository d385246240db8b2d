"""What a worker and its supervisor say to each other (AMP, over a socket pair)."""

from __future__ import annotations

from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.amp import AMP, BinaryBoxProtocol, Command, Integer, Unicode
from twisted.python.failure import Failure


class Quiet(AMP):
    """AMP without a line in the log for each connection that is made and lost."""

    def makeConnection(self, transport: ITransport) -> None:
        BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        BinaryBoxProtocol.connectionLost(self, reason)
        self.transport = None


class Ready(Command):
    """Worker to supervisor: it serves, and may be sent signals."""

    requiresAnswer = False


class Acquire(Command):
    """Worker to supervisor: answered when one of `limit` slots under this key is free for it."""

    arguments = [(b"key", Unicode()), (b"limit", Integer())]


class Release(Command):
    """Worker to supervisor: it needs the slot no longer."""

    arguments = [(b"key", Unicode()), (b"limit", Integer())]
    requiresAnswer = False


class Tell(Command):
    """Either way: something for all others; see `docxy.gossip`."""

    arguments = [(b"topic", Unicode()), (b"facts", Unicode())]
    requiresAnswer = False

"""What a worker and its supervisor say to each other (AMP, over a socket pair)."""

from __future__ import annotations

from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.amp import AMP, BinaryBoxProtocol, Boolean, Command, Float, Integer, String, Unicode
from twisted.python.failure import Failure

from docxy.questions import Unanswered

HEARTBEAT = 5.0
"""Seconds."""


class QuietAMP(AMP):
    """AMP without a line in the log for each connection that is made and lost."""

    def makeConnection(self, transport: ITransport) -> None:
        BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        BinaryBoxProtocol.connectionLost(self, reason)
        self.transport = None


class Ready(Command):
    """Worker to supervisor: it serves, and may be told to reload."""

    requiresAnswer = False


class Alive(Command):
    """Worker to supervisor: its reactor turns; sent every `HEARTBEAT` seconds."""

    requiresAnswer = False


class Reload(Command):
    """Supervisor to worker: do what SIGHUP asks for; answered when that is done."""


class Retire(Command):
    """Supervisor to worker: another docxy has taken over; end what is being answered within `grace`, then end."""

    arguments = [(b"grace", Float())]
    requiresAnswer = False


class Acquire(Command):
    """Worker to supervisor: answered when one of `limit` slots under this key is free for it."""

    arguments = [(b"key", Unicode()), (b"limit", Integer())]


class Release(Command):
    """Worker to supervisor: it needs the slot no longer."""

    arguments = [(b"key", Unicode()), (b"limit", Integer())]
    requiresAnswer = False


class Tell(Command):
    """Either way: something for all others; see `docxy.broadcast`."""

    arguments = [(b"topic", Unicode()), (b"facts", Unicode())]
    requiresAnswer = False


class NewSettings(Command):
    """Supervisor to worker: a piece of other settings, pickled; see `docxy.daemon.workers.settings`."""

    arguments = [(b"piece", String()), (b"is_last", Boolean())]
    requiresAnswer = False


class Record(Command):
    """Worker to supervisor: exchanges for the read model, as JSON; see `docxy.observe.recorder`."""

    arguments = [(b"exchanges", String()), (b"dropped", Integer()), (b"hits", Integer()), (b"sent", Integer())]
    requiresAnswer = False


class Sampled(Command):
    """Worker to supervisor: what it is at, as JSON; see `docxy.observe.model`."""

    arguments = [(b"state", String())]
    requiresAnswer = False


class Happened(Command):
    """Worker to supervisor: something happened to a tag, as JSON; see `docxy.observe.alerts`."""

    arguments = [(b"event", String())]
    requiresAnswer = False


class Read(Command):
    """Worker to supervisor: a piece of what the read model knows.

    `question`: JSON; `answer`: 0 for a new answer, then the number that came with the first piece.
    """

    arguments = [(b"question", Unicode()), (b"answer", Integer()), (b"offset", Integer())]
    response = [(b"answer", Integer()), (b"data", String()), (b"size", Integer())]
    errors = {KeyError: b"GONE"}


class Ask(Command):
    """Supervisor to worker: a question of the steward's; see `docxy.questions`."""

    arguments = [(b"name", Unicode()), (b"facts", Unicode())]
    response = [(b"answer", Unicode())]
    errors = {Unanswered: b"UNANSWERED"}

"""The new docxy's side: what it is given by the one that runs, and how it takes over.

The laws: *until the old one says go, nothing of it changes*; a new one that hears nothing any more ends; what it is
given comes through a socket that nobody else reads, for the certificate's key is among it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import asdict, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from docxy.settings.model import ConfigError

VARIABLE = "DOCXY_TAKEOVER"
"""In the environment: the descriptor of the socket to the docxy that runs."""
PATIENCE = 30.0
"""Seconds for what is given, which the old one sends at once."""
LONGEST = 1 << 20
"""Bytes of a line."""

_log = Logger()


@frozen
class Passed:
    """A listening socket."""

    description: str
    """The endpoint for which it was opened, or the path of the admin socket."""
    descriptor: int
    family: int


@frozen
class Given:
    """What the old docxy gives."""

    pid: int
    listeners: tuple[Passed, ...] = ()
    admin: Passed | None = None
    pidfile: int | None = None
    pem: tuple[str, str] | None = field(default=None, repr=False)
    """Certificate and key, which the user that docxy became may not be allowed to read."""

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, line: bytes) -> Given:
        """Raises ValueError, LookupError, TypeError."""
        found = json.loads(line)
        admin, pem = found["admin"], found["pem"]
        return cls(
            found["pid"],
            tuple(Passed(**each) for each in found["listeners"]),
            None if admin is None else Passed(**admin),
            found["pidfile"],
            None if pem is None else (pem[0], pem[1]),
        )

    def descriptors(self) -> list[int]:
        """All of them."""
        found = [each.descriptor for each in self.listeners]
        found += [] if self.admin is None else [self.admin.descriptor]
        return found + ([] if self.pidfile is None else [self.pidfile])


class Takeover:
    """This process is to take over from another docxy."""

    def __init__(self, channel: socket.socket, given: Given) -> None:
        self._channel = channel
        self.given = given

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Takeover | None:
        """As the old docxy arranged it; None: there is none.  Waits for what it gives.  Raises ConfigError."""
        number = environ.get(VARIABLE)
        if not number:
            return None
        os.environ.pop(VARIABLE, None)  # it is for this process alone
        try:
            channel = socket.socket(fileno=int(number))
            channel.settimeout(PATIENCE)
            given = Given.load(_line(channel))
            for descriptor in [channel.fileno(), *given.descriptors()]:
                os.set_inheritable(descriptor, False)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{VARIABLE}: docxy sets it for the docxy that takes over: {error}") from None
        return cls(channel, given)

    def passed(self, description: str) -> Passed | None:
        """The socket of an endpoint, unless the old docxy had none of this description."""
        return next((each for each in self.given.listeners if each.description == description), None)

    def failed(self, why: str) -> None:
        """Tell the old docxy why this one does not start."""
        try:
            self._channel.sendall(json.dumps({"failed": why}).encode() + b"\r\n")
        except OSError:
            _log.warn("the docxy that runs could not be told why this one does not start")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tells the old docxy what ended the start here."""
        try:
            yield
        except (SystemExit, Exception) as error:
            self.failed(str(error))
            raise

    def begin(self, serves: Deferred[Any], took: Callable[[], object], reactor: Any) -> None:
        """Take over once the reactor runs.  `serves`: fires when clients are answered; `took`: called at the go."""
        reactor.callWhenRunning(self._begin, serves, took, reactor)

    def _begin(self, serves: Deferred[Any], took: Callable[[], object], reactor: Any) -> None:
        link = _LinkToOld(took, reactor)
        factory: Factory[Any] = Factory.forProtocol(lambda: link)
        factory.noisy = False
        self._channel.setblocking(False)
        reactor.adoptStreamConnection(self._channel.fileno(), socket.AF_UNIX, factory)
        self._channel.close()
        serves.addCallback(lambda _: link.ready())


class _LinkToOld(LineOnlyReceiver):
    """The connection to the old docxy."""

    def __init__(self, took: Callable[[], object], reactor: Any) -> None:
        self._took = took
        self._reactor = reactor
        self._may_go = False

    def ready(self) -> None:
        """This process serves."""
        if self.transport is not None:
            self.transport.write(json.dumps({"ready": os.getpid()}).encode() + b"\r\n")

    def lineReceived(self, line: bytes) -> None:
        if line == b"go" and not self._may_go:
            self._may_go = True
            self._took()
            if self.transport is not None:
                self.transport.write(b'{"took": true}\r\n')

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._may_go:
            return
        _log.error("the docxy that runs goes on without this one, which ends")
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            return


def _line(channel: socket.socket) -> bytes:
    found = bytearray()
    while not found.endswith(b"\r\n"):
        piece = channel.recv(65536)
        if not piece or len(found) > LONGEST:
            raise ValueError("nothing was given")
        found += piece
    return bytes(found)

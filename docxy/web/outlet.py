"""The writing half of a connection.

The law: *bytes leave in the order in which they were written, and no more of them wait than a client was slow to
take*.  Bytes go straight to the socket while nothing waits before them; what it does not take waits in the transport,
and until that is out, a producer is paused and nothing more is begun.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IConsumer, IPullProducer
from twisted.internet.tcp import Connection
from twisted.web.http import HTTPChannel
from zope.interface import implementer

_MORE: int = getattr(socket, "MSG_MORE", 0)


class Outlet(HTTPChannel):
    """What answers are written to; a channel is one that reads, too."""

    transport: Any

    def __init__(self) -> None:
        HTTPChannel.__init__(self)
        self._blocked = False
        """Whether the client does not take what is written."""
        self._closing = False
        """Whether no answer follows."""
        self._direct: Any = None
        """The socket, while nothing waits in the transport's buffer and bytes may go straight to it."""
        self._producer: Any = None

    def stuck(self) -> None:
        """The client does not take what was written."""
        raise NotImplementedError

    def taken(self) -> None:
        """The client took it."""
        raise NotImplementedError

    def open_outlet(self) -> None:
        """The connection is there."""
        self._go_direct()
        if IConsumer.providedBy(self.transport):
            self.transport.registerProducer(self, True)

    def _go_direct(self) -> None:
        if isinstance(self.transport, Connection) and not getattr(self.transport, "TLS", False):
            self._direct = self.transport.getHandle()

    def close_outlet(self) -> None:
        """No answer follows; what was written leaves all the same."""
        self._closing = True
        if IConsumer.providedBy(self.transport):
            self.transport.unregisterProducer()

    def lose_outlet(self) -> None:
        """The connection is gone."""
        self._closing = True
        self._direct = None

    @property
    def is_clear(self) -> bool:
        """Whether the socket may be written to directly."""
        return self._direct is not None

    def write_head(self, data: bytes) -> None:
        """Send what the socket's next bytes follow at once."""
        self.write(data, _MORE)

    def write(self, data: bytes, flags: int = 0) -> None:
        """Send, at once where nothing waits before it."""
        direct = self._direct
        if direct is not None and self.transport.connected and not self.transport.disconnecting:
            try:
                sent = direct.send(data, flags)
            except OSError:
                # A full buffer is no error; any other one the transport meets again, and ends the connection.
                sent = 0
            if sent == len(data):
                return
            # From now on bytes take the transport's way, until it has none left.
            self._direct = None
            self.transport.unregisterProducer()
            self.transport.registerProducer(_Drained(self), False)
            self.transport.write(data[sent:])
            self.pauseProducing()
        else:
            self.transport.write(data)

    def writeSequence(self, data: Sequence[bytes]) -> None:
        self.write(b"".join(data))

    def drained(self) -> None:
        """Nothing waits in the transport any more, and no other producer is registered with it."""
        if self._closing:
            return
        self._go_direct()
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """`producer`: pushes the body of the answer; see `IConsumer`."""
        if self._producer is not None or not streaming:
            raise RuntimeError("one push producer at a time")
        self._producer = producer
        if self._blocked:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def stopProducing(self) -> None:
        """The connection is gone."""
        if self._producer is not None:
            self._producer.stopProducing()

    def pauseProducing(self) -> None:
        """The client does not take what was written."""
        self._blocked = True
        if self._producer is not None:
            self._producer.pauseProducing()
        self.stuck()

    def resumeProducing(self) -> None:
        """The client took it."""
        if self._blocked:
            self._blocked = False
            if self._producer is not None:
                self._producer.resumeProducing()
            self.taken()


@implementer(IPullProducer)
class _Drained:
    """A pull producer: the transport asks it for bytes when it has none left."""

    def __init__(self, channel: Outlet) -> None:
        self._channel = channel
        self._registered = False

    def resumeProducing(self) -> None:
        # A transport asks as soon as this is registered, too.
        if self._registered:
            self._channel.transport.unregisterProducer()
            self._channel.drained()
        self._registered = True

    def stopProducing(self) -> None:
        self._channel.stopProducing()

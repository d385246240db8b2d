"""A worker: serves at the doors that its supervisor opened, until it is told to stop or is alone.

The law: all it knows came from its supervisor; without a supervisor it ends.
"""

from __future__ import annotations

import encodings.idna
import encodings.punycode  # noqa: F401 (as in docxy.tap)
import os
import signal
import socket
import sys
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import FileLogObserver, LogEvent, eventAsText, globalLogBeginner
from twisted.protocols.amp import AMP
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy import tls
from docxy.allocator import keep_memory
from docxy.config import ConfigError
from docxy.daemon import serve
from docxy.doors import Door, Doors, Front
from docxy.gossip import Gossip
from docxy.metrics import IMeter, NoMeter
from docxy.shared import ISlots, Shared
from docxy.workers.messages import Acquire, Quiet, Ready, Release, Tell
from docxy.workers.start import CHANNEL, Start


class Channel(Quiet):
    """The worker's end of the channel to its supervisor."""

    def __init__(self, reactor: Any) -> None:
        AMP.__init__(self)
        self._reactor = reactor
        self.gossip = Gossip(self._tell)

    def _tell(self, topic: str, facts: str) -> None:
        AMP.callRemote(self, Tell, topic=topic, facts=facts)

    @Tell.responder
    def told(self, topic: str, facts: str) -> dict[str, object]:
        self.gossip.received(topic, facts)
        return {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        Quiet.connectionLost(self, reason)
        if self._reactor.running:
            self._reactor.stop()


@implementer(ISlots)
class SharedSlots:
    """Slots that the supervisor keeps for all workers."""

    def __init__(self, channel: AMP, limit: int) -> None:
        self._channel = channel
        self._limit = limit

    def acquire(self, key: str) -> Deferred[Any]:
        # Cancelled, it leaves the question open: the slot is given back when it comes.
        waiting: Deferred[Any] = Deferred()

        def acquired(_: object) -> None:
            if waiting.called:
                self.release(key)
            else:
                waiting.callback(None)

        def failed(reason: Failure) -> None:
            if not waiting.called:
                waiting.errback(reason)

        self._channel.callRemote(Acquire, key=key, limit=self._limit).addCallbacks(acquired, failed)
        return waiting

    def release(self, key: str) -> None:
        self._channel.callRemote(Release, key=key, limit=self._limit)


def newest_pair(cert: str, key: str, pem: tuple[bytes, bytes]) -> tls.KeyPair:
    """What the files hold now, where this user may read them; else what the supervisor read at its start."""
    try:
        return tls.load(cert, key)
    except ConfigError:
        return tls.make_pair(cert, key, pem)


def begin_logging(timestamps: bool) -> None:
    """Log to standard output."""

    def line(event: LogEvent) -> str:
        return f"{eventAsText(event, includeTimestamp=timestamps)}\n"

    globalLogBeginner.beginLoggingTo([FileLogObserver(sys.stdout, line)])


def _meter(counts: bool) -> IMeter:
    if not counts:
        return NoMeter()
    # Only here: it is large.
    from prometheus_client import CollectorRegistry

    from docxy.prometheus import Meter

    return Meter(CollectorRegistry())


def main() -> None:
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    # Until there is something that listens to it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    start = Start.load(sys.stdin.buffer)
    config = start.config
    begin_logging(start.timestamps)
    keep_memory()
    context = None
    if start.pem is not None and config.cert is not None and config.key is not None:
        pair = newest_pair(config.cert, config.key, start.pem)
        context = tls.ReloadingContext(config.cert, config.key, pair)
    channel = Channel(reactor)
    factory: Factory[Any] = Factory.forProtocol(lambda: channel)
    factory.noisy = False
    reactor.adoptStreamConnection(CHANNEL, socket.AF_UNIX, factory)
    os.close(CHANNEL)
    doors = Doors(
        *(
            Door(door.description, AdoptedStreamServerEndpoint(reactor, descriptor, door.family))
            for descriptor, door in enumerate(start.doors, CHANNEL + 1)
        )
    )
    shared = Shared(
        start.number == 1,
        start.secret,
        channel.gossip,
        partial(SharedSlots, channel),
        _meter(config.metrics is not None),
    )
    assert config.public_url is not None
    front = Front(
        doors.all(),
        partial(serve, config, config.public_url, doors, context, shared, reactor),
        config.timeouts.shutdown,
    )
    front.startService()
    reactor.addSystemEventTrigger("before", "shutdown", front.stopService)
    reactor.callWhenRunning(channel.callRemote, Ready)
    reactor.run()


if __name__ == "__main__":
    main()

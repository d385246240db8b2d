"""A worker: serves at the listeners that its supervisor opened, until that stops it or is gone.

The law: all it knows came from its supervisor; without a supervisor it ends.
"""

from __future__ import annotations

import encodings.idna
import encodings.punycode  # noqa: F401 (as in docxy.tap)
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger, globalLogBeginner
from twisted.protocols.amp import AMP
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.broadcast import Broadcast
from docxy.daemon import certificates
from docxy.daemon.allocator import keep_memory
from docxy.daemon.clock import wait_monotonically
from docxy.daemon.listeners import Front, Listener, Listeners
from docxy.daemon.signals import StopSignals
from docxy.daemon.timers import every
from docxy.daemon.workers.messages import (
    HEARTBEAT,
    Acquire,
    Alive,
    Ask,
    NewSettings,
    QuietAMP,
    Ready,
    Release,
    Reload,
    Retire,
    Tell,
)
from docxy.daemon.workers.observing import NEWS, RemoteView, Teller
from docxy.daemon.workers.settings import SettingsPieces
from docxy.daemon.workers.start import CHANNEL, Start
from docxy.launch import serve
from docxy.observe.daemon_log import DaemonObserver
from docxy.observe.metrics import IMeter, NoMeter
from docxy.observe.prometheus import Meter, count_as
from docxy.observe.view import News, Reading
from docxy.orders.in_force import InForce
from docxy.orders.policies import Policies
from docxy.questions import Questions, Unanswered
from docxy.settings.model import Config, ConfigError
from docxy.siblings import ISlots, Siblings

_log = Logger()


class SupervisorLink(QuietAMP):
    """The worker's end of the channel to its supervisor."""

    def __init__(
        self,
        lost: Callable[[], object],
        retire: Callable[[float], object],
        put: Callable[[Config], object],
        reactor: Any,
    ) -> None:
        """`lost`: called when there is no supervisor any more; `retire`: when another docxy has taken over.

        `put`: puts other settings in force here.
        """
        AMP.__init__(self)
        self._lost = lost
        self._retire = retire
        self._settings = SettingsPieces(put)
        self._reactor = reactor
        self.broadcast = Broadcast(self._tell)
        self.questions = Questions()

    def _tell(self, topic: str, facts: str) -> None:
        AMP.callRemote(self, Tell, topic=topic, facts=facts)

    def beat(self) -> None:
        """Tell the supervisor that this process goes on."""
        if self.transport is not None:
            AMP.callRemote(self, Alive)

    @Tell.responder
    def told(self, topic: str, facts: str) -> dict[str, object]:
        self.broadcast.received(topic, facts)
        return {}

    @Reload.responder
    def reload(self) -> Deferred[dict[str, object]]:
        done: Deferred[dict[str, object]] = Deferred()
        # The reactor calls these in order: what listens to SIGHUP first, then the answer.
        signal.raise_signal(signal.SIGHUP)
        self._reactor.callFromThread(done.callback, {})
        return done

    @Retire.responder
    def retire(self, grace: float) -> dict[str, object]:
        self._retire(grace)
        return {}

    @NewSettings.responder
    def new_settings(self, piece: bytes, is_last: bool) -> dict[str, object]:
        self._settings.take(piece, is_last)
        return {}

    @Ask.responder
    def ask(self, name: str, facts: str) -> Deferred[dict[str, object]]:
        return Deferred.fromCoroutine(self._ask(name, facts))

    async def _ask(self, name: str, facts: str) -> dict[str, object]:
        try:
            return {"answer": await self.questions.asked(name, facts)}
        except Unanswered:
            raise
        except Exception as error:  # AMP would end the connection, and with it this process
            raise Unanswered(f"{name} failed: {error}"[:1000]) from error

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        QuietAMP.connectionLost(self, reason)
        self._lost()


@implementer(ISlots)
class RemoteSlots:
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


def newest_pair(cert: str, key: str, pem: tuple[bytes, bytes] | None) -> certificates.KeyPair | None:
    """What the files hold now, where this user may read them; else what the supervisor read at its start.

    None: there was none then either.
    """
    try:
        return certificates.load(cert, key)
    except ConfigError:
        return None if pem is None else certificates.make_pair(cert, key, pem)


def retire(front: Front, signals: StopSignals, grace: float) -> None:
    """Accept no more, and end when nothing is being answered."""

    async def end() -> None:
        try:
            await front.retire(grace)
        finally:
            signals.stop()

    Deferred.fromCoroutine(end()).addErrback(lambda failure: _log.failure("this worker ends at once", failure))


def main() -> None:
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    wait_monotonically(reactor)
    # Until there is something that listens to it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    start = Start.load(sys.stdin.buffer)
    config = start.config
    observer = DaemonObserver(sys.stdout, config.log_format, config.log_level, start.timestamps)
    globalLogBeginner.beginLoggingTo([observer])
    keep_memory()
    pair = None
    if config.cert is not None and config.key is not None:
        pair = newest_pair(config.cert, config.key, start.pem)
    in_force = InForce(config, Policies(config.policy))
    link = SupervisorLink(lambda: signals.stop(), lambda grace: retire(front, signals, grace), in_force.put, reactor)
    factory: Factory[Any] = Factory.forProtocol(lambda: link)
    factory.noisy = False
    reactor.adoptStreamConnection(CHANNEL, socket.AF_UNIX, factory)
    os.close(CHANNEL)
    listeners = Listeners(
        *(
            Listener(listener.description, AdoptedStreamServerEndpoint(reactor, descriptor, listener.family))
            for descriptor, listener in enumerate(start.listeners, CHANNEL + 1)
        )
    )
    news = News(reactor)
    link.broadcast.topic(NEWS, news.publish)
    siblings = Siblings(
        start.number == 1,
        start.secret,
        link.broadcast,
        partial(RemoteSlots, link),
        link.questions,
    )
    reading = Reading(Teller(link), RemoteView(link, news, reactor))
    meter: IMeter = NoMeter()
    if config.metrics is not None:
        count_as(start.number)
        meter = Meter(CollectorRegistry())
    front = Front(
        listeners.all(),
        partial(serve, config, pair, listeners, meter, siblings, reading, in_force, reactor),
        config.timeouts.shutdown,
    )
    signals = StopSignals(front.abort, False, reactor)
    services = MultiService()
    for service in (signals, front, every(HEARTBEAT, reactor, link.beat, "the heartbeat")):
        services.addService(service)
    services.startService()
    reactor.addSystemEventTrigger("before", "shutdown", services.stopService)
    reactor.callWhenRunning(link.callRemote, Ready)
    reactor.run()


if __name__ == "__main__":
    main()

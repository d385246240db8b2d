"""The supervisor's end of the channel to one worker.

The law: what a worker holds is given back when it is gone.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols.amp import AMP
from twisted.python.failure import Failure

from docxy.daemon.workers.messages import (
    Acquire,
    Alive,
    Happened,
    QuietAMP,
    Read,
    Ready,
    Record,
    Release,
    Reload,
    Retire,
    Sampled,
    Tell,
)
from docxy.daemon.workers.observing import Desk
from docxy.observe.recorder import Dropped
from docxy.siblings import LocalSlots


class ILead(Protocol):
    """Who leads the workers."""

    desk: Desk

    def ready(self, link: WorkerLink) -> None:
        """A worker serves, and may be told to reload."""

    def slots(self, limit: int) -> LocalSlots:
        """What workers share of connections, `limit` under each key."""

    def pass_on(self, speaker: WorkerLink, topic: str, facts: str) -> None:
        """What one worker told, to all others."""


class WorkerLink(QuietAMP):
    """The supervisor's end of the channel to one worker."""

    def __init__(self, lead: ILead, number: int) -> None:
        AMP.__init__(self)
        self._lead = lead
        self._number = number
        self._held: list[tuple[int, str]] = []
        self._waiting: set[Deferred[Any]] = set()
        self.is_ready = False
        self.silent = 0
        """Heartbeats since it was last heard of."""

    @Alive.responder
    def alive(self) -> dict[str, object]:
        self.silent = 0
        return {}

    @Ready.responder
    def ready(self) -> dict[str, object]:
        self.is_ready = True
        self._lead.ready(self)
        return {}

    @Acquire.responder
    def acquire(self, key: str, limit: int) -> Deferred[dict[str, object]]:
        answer: Deferred[dict[str, object]] = Deferred()
        waiting = self._lead.slots(limit).acquire(key)
        self._waiting.add(waiting)

        def acquired(_: object) -> None:
            self._waiting.discard(waiting)
            self._held.append((limit, key))
            answer.callback({})

        waiting.addCallbacks(acquired, lambda _: None)
        return answer

    @Release.responder
    def release(self, key: str, limit: int) -> dict[str, object]:
        if (limit, key) in self._held:
            self._held.remove((limit, key))
            self._lead.slots(limit).release(key)
        return {}

    @Record.responder
    def record(self, exchanges: bytes, dropped: int, hits: int, sent: int) -> dict[str, object]:
        self._lead.desk.record(exchanges, Dropped(dropped, hits, sent))
        return {}

    @Sampled.responder
    def sampled(self, state: bytes) -> dict[str, object]:
        self._lead.desk.sampled(self._number, state)
        return {}

    @Happened.responder
    def happened(self, event: bytes) -> dict[str, object]:
        self._lead.desk.happened(event)
        return {}

    @Read.responder
    def read(self, question: str, answer: int, offset: int) -> Deferred[dict[str, object]]:
        return self._lead.desk.read(question, answer, offset)

    @Tell.responder
    def tell(self, topic: str, facts: str) -> dict[str, object]:
        self._lead.pass_on(self, topic, facts)
        return {}

    def told(self, topic: str, facts: str) -> None:
        """Another worker told this."""
        AMP.callRemote(self, Tell, topic=topic, facts=facts)

    def reload(self) -> Deferred[Any]:
        """Fires when the worker has done what SIGHUP asks for; fails when it ends first."""
        reloaded: Deferred[Any] = AMP.callRemote(self, Reload)
        return reloaded

    def retire(self, grace: float) -> None:
        """Another docxy has taken over: the worker ends when it answers nothing, after `grace` seconds at most."""
        AMP.callRemote(self, Retire, grace=grace)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        QuietAMP.connectionLost(self, reason)
        self.is_ready = False
        for waiting in [*self._waiting]:
            waiting.cancel()
        for limit, key in self._held:
            self._lead.slots(limit).release(key)
        self._held = []

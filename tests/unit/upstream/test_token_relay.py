"""The upstream's challenge: asked for, kept, remembered; and token requests that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from publicsuffixlist import PublicSuffixList
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from zope.interface import implementer

from docxy.broadcast import Broadcast
from docxy.errors import UpstreamError
from docxy.observe.metrics import NoMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import NoTracer
from docxy.settings.model import Timeouts, Upstream
from docxy.upstream.challenge import Challenge, parse
from docxy.upstream.fetch import Fetcher
from docxy.upstream.realms import Realms
from docxy.upstream.retry import Retry
from docxy.upstream.token_relay import FRESH, IChallengeMemory, TokenRelay
from docxy.upstream.tokens import TokenService
from tests.unit.upstream.scripted import Answer, Asked, Scripted, ScriptedAgent

REALMS = Realms(cache(PublicSuffixList))
HUB = Upstream("docker.io", "https://registry-1.docker.io")
REALM = "https://auth.docker.io/token"


@implementer(IChallengeMemory)
class Memory:
    """Remembers challenges for a test."""

    def __init__(self, *values: str) -> None:
        self.values: Sequence[str] = values

    def recall(self) -> Sequence[str]:
        return self.values

    def remember(self, values: Sequence[str]) -> None:
        self.values = values


ASKS = f'Bearer realm="{REALM}",service="s"'
OTHER = f'Bearer realm="{REALM}2",service="s"'


class RelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.ping: Answer = Scripted(401, {"WWW-Authenticate": ASKS})
        self.pings: list[Answer] = []
        """Answered before it."""
        self.agent = ScriptedAgent(self.answer)
        self.memory = Memory()
        self.others: list[Broadcast] = []
        self.relay = self.make()

    def make(self) -> TokenRelay:
        """A relay in a process of its own, whose siblings are those made before and after it."""
        broadcast = Broadcast(lambda topic, facts: self.tell(broadcast, topic, facts))
        self.others.append(broadcast)
        fetcher = Fetcher(
            self.agent, self.clock, Timeouts(), "docker.io", NoMeter(), Notes(self.clock.seconds), NoTracer(), ()
        )
        retry = Retry(self.clock.seconds, 25.0)
        service = TokenService(HUB, fetcher, REALMS, retry)
        return TokenRelay(HUB, fetcher, service, self.clock, self.memory, broadcast, retry)

    def tell(self, speaker: Broadcast, topic: str, facts: str) -> None:
        for other in self.others:
            if other is not speaker:
                other.received(topic, facts)

    def answer(self, asked: Asked) -> Answer:
        if asked.url.endswith("/v2/") and self.pings:
            return self.pings.pop(0)
        return self.ping if asked.url.endswith("/v2/") else Scripted(body=b'{"token": "t"}')

    def challenge(self) -> Deferred[list[Challenge]]:
        return Deferred.fromCoroutine(self.relay.challenge())

    def ask(self, *parameters: tuple[str, str], **options: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.relay.ask(parameters, None, post=False, **options))

    def test_asked_once(self) -> None:
        """The upstream's challenge is asked for once in a while, by all who need it at once."""
        self.ping = None
        waiting = [self.challenge() for _ in range(3)]
        self.assertEqual(len(self.agent.asked), 1)
        self.clock.advance(25)
        for each in waiting:
            self.failureResultOf(each, UpstreamError)
        self.ping = Scripted(401, {"WWW-Authenticate": ASKS})
        self.assertEqual(self.successResultOf(self.challenge()), parse([ASKS]))
        self.clock.advance(FRESH - 1)
        self.successResultOf(self.challenge())
        self.assertEqual(len(self.agent.asked), 2)

    def test_refreshed_behind(self) -> None:
        """What was known serves while the upstream is asked again, or is down; what is new serves then."""
        self.successResultOf(self.challenge())
        self.clock.advance(FRESH)
        self.ping = None
        self.assertEqual(self.successResultOf(self.challenge()), parse([ASKS]))
        self.clock.advance(25)
        self.ping = Scripted(401, {"WWW-Authenticate": OTHER})
        self.successResultOf(self.challenge())
        self.assertEqual(self.successResultOf(self.challenge()), parse([OTHER]))

    def test_remembered(self) -> None:
        """The challenge is remembered, and serves after a restart with the upstream down."""
        self.successResultOf(self.challenge())
        self.assertEqual(parse(self.memory.values), parse([ASKS]))
        self.relay = self.make()
        self.ping = None
        self.assertEqual(self.successResultOf(self.challenge()), parse([ASKS]))
        self.clock.advance(25)

    def test_siblings(self) -> None:
        """What one process learned serves in one that has not asked yet, when the upstream is down by then."""
        self.memory.recall = lambda: ()  # type: ignore[method-assign]  # began before anything was remembered
        other = self.make()
        self.successResultOf(self.challenge())
        self.relay, self.ping = other, None
        self.assertEqual(self.successResultOf(self.challenge()), parse([ASKS]))
        self.clock.advance(25)

    def test_seen_on_a_repository(self) -> None:
        """Where only repositories challenge (registry.k8s.io, GAR), that challenge is used for tokens."""
        self.ping = Scripted(200)
        self.assertEqual(self.successResultOf(self.ask())["token"], "")
        self.relay.saw(parse([ASKS]))
        self.assertEqual(self.successResultOf(self.ask())["token"], "t")
        self.relay.saw(parse([OTHER]))
        self.successResultOf(self.ask())
        self.assertTrue(self.agent.asked[-1].url.startswith(REALM + "?"))

    def test_failing_ping(self) -> None:
        """A ping that fails is told, and tried again the next time."""
        for status in (500, 404, 429):
            self.ping = Scripted(status)
            self.failureResultOf(self.challenge(), UpstreamError)
        self.ping = Scripted(401, {"WWW-Authenticate": ASKS})
        self.successResultOf(self.challenge())

    def test_ping_again(self) -> None:
        """A ping that stumbles is sent once more."""
        for stumbles in (Scripted(500), Scripted(502), ResponseNeverReceived([Failure(ConnectionLost())])):
            self.memory.values = []
            self.relay, self.pings = self.make(), [stumbles]
            self.assertEqual(self.successResultOf(self.challenge()), parse([ASKS]))
        self.memory.values = []
        self.relay, self.pings = self.make(), [Scripted(500), Scripted(500)]
        self.failureResultOf(self.challenge(), UpstreamError)

    def test_parameters(self) -> None:
        """The service is the challenge's where the client names none, and the client's otherwise."""
        self.successResultOf(self.ask(("scope", "x"), ("scope", "y"), ("realm", "https://evil.test"), ("n", "1")))
        self.assertEqual(self.agent.asked[-1].url, f"{REALM}?service=s&scope=x&scope=y")
        self.successResultOf(self.ask(("service", "mine")))
        self.assertEqual(self.agent.asked[-1].url, f"{REALM}?service=mine")

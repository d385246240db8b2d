"""What processes tell each other."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.protocols.amp import MAX_VALUE_LENGTH
from twisted.trial.unittest import SynchronousTestCase

from docxy.access.throttle import FREE, Throttle
from docxy.broadcast import LONGEST, Broadcast
from docxy.daemon.workers.messages import Tell


class BroadcastTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.broadcast = Broadcast(lambda topic, facts: self.sent.append((topic, facts)))

    def test_too_long(self) -> None:
        """A message that no channel takes is left out, whoever chose its length."""
        tell = self.broadcast.topic("odd", lambda _: None)
        tell("x" * LONGEST)
        self.assertEqual(self.sent, [])
        tell("x" * (LONGEST - 10))
        (sent,) = self.sent
        self.assertLess(len(sent[1]), MAX_VALUE_LENGTH)
        Tell.makeArguments({"topic": sent[0], "facts": sent[1]}, None)

    def test_long_user(self) -> None:
        """A failed login under a name of 12 kB counts in all processes, and what they hear of it is short."""
        there = Broadcast(lambda topic, facts: None)
        throttle = Throttle(Clock(), there)
        here = Throttle(Clock(), self.broadcast)
        name = "\u20ac" * 12_000
        for _ in range(FREE):
            here.failed("192.0.2.1", name)
        for topic, facts in self.sent:
            there.received(topic, facts)
        self.assertEqual(len(self.sent), FREE)
        self.assertLess(max(len(facts) for _, facts in self.sent), 100)
        self.assertEqual(throttle.pause("192.0.2.1", name), here.pause("192.0.2.1", name))
        self.assertGreater(throttle.pause("192.0.2.1", name), 0)

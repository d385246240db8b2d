"""Endpoints that fail are left alone, for how long, and come back."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.upstream.breaker import FIRST_REST, LONGEST_ASKED, LONGEST_REST, Endpoints

URLS = ("https://a.example", "https://b.example", "https://c.example")


class Dice(Random):
    """Falls as it is told: 0.0 is the lower end, 1.0 the upper."""

    def __init__(self, face: float) -> None:
        super().__init__()
        self.face = face

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.face


class Order(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.dice = Dice(1.0)
        self.endpoints = Endpoints(URLS, self.clock.seconds, self.dice)
        self.first, self.second, self.third = self.endpoints.order()

    def urls(self) -> list[str]:
        return [endpoint.url for endpoint in self.endpoints.order()]

    def test_preference(self) -> None:
        """All are tried, in the operator's order."""
        self.assertEqual(self.urls(), list(URLS))

    def test_rests(self) -> None:
        """One that failed is left out until its time is over, then it is in its old place again."""
        self.endpoints.failed(self.first)
        self.assertEqual(self.urls(), list(URLS[1:]))
        self.clock.advance(FIRST_REST - 0.01)
        self.assertEqual(self.urls(), list(URLS[1:]))
        self.clock.advance(0.01)
        self.assertEqual(self.urls(), list(URLS))

    def test_grows(self) -> None:
        """The rest doubles with each failure in a row, up to a cap, however many there are."""
        rests = []
        for _ in range(2000):
            self.endpoints.failed(self.first)
            rests.append(self.first.rests_until - self.clock.seconds())
        self.assertEqual(rests[:6], [2.0, 4.0, 8.0, 16.0, 32.0, 60.0])
        self.assertEqual(set(rests[5:]), {LONGEST_REST})

    def test_jitter(self) -> None:
        """Two processes that saw the same failure do not come back at once: the dice halve the rest at most."""
        self.dice.face = 0.0
        self.endpoints.failed(self.first)
        self.assertEqual(self.first.rests_until, FIRST_REST / 2)
        two = [Endpoints(URLS, self.clock.seconds, Random(seed)) for seed in (1, 2)]
        rests = []
        for endpoints in two:
            endpoint = endpoints.order()[0]
            endpoints.failed(endpoint)
            rests.append(endpoint.rests_until)
        self.assertNotEqual(*rests)

    def test_answered(self) -> None:
        """One that answers is back at once, and its next failure is its first."""
        for _ in range(5):
            self.endpoints.failed(self.first)
        self.endpoints.answered(self.first)
        self.assertEqual(self.urls(), list(URLS))
        self.endpoints.failed(self.first)
        self.assertEqual(self.first.rests_until, FIRST_REST)

    def test_retry_after(self) -> None:
        """One that asks for longer gets it, up to a cap; asking for less does not shorten the rest."""
        self.endpoints.failed(self.first, 30.0)
        self.assertEqual(self.first.rests_until, 30.0)
        self.endpoints.failed(self.second, 0.0)
        self.assertEqual(self.second.rests_until, FIRST_REST)
        for beyond in (1e9, float("inf")):
            self.endpoints.failed(self.third, beyond)
            self.assertEqual(self.third.rests_until, LONGEST_ASKED)

    def test_all_rest(self) -> None:
        """When all rest, the one that is back first is tried alone: an upstream is never given up."""
        self.endpoints.failed(self.first, 30.0)
        self.endpoints.failed(self.second, 20.0)
        self.endpoints.failed(self.third, 40.0)
        self.assertEqual(self.urls(), [URLS[1]])

    def test_single(self) -> None:
        """An only endpoint is tried every time."""
        alone = Endpoints(URLS[:1], self.clock.seconds, self.dice)
        (endpoint,) = alone.order()
        alone.failed(endpoint, 900.0)
        self.assertEqual(alone.order(), [endpoint])

"""Endpoints that fail are left alone, for how long, and come back."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.upstream.endpoints import FIRST_BACKOFF, LONGEST_BACKOFF, LONGEST_RETRY_AFTER, Endpoints

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

    def test_spare(self) -> None:
        """One more for the same request is one that was not tried and has not asked to be left alone, if it failed."""
        self.endpoints.failed(self.second, 5.0)
        self.endpoints.failed(self.third)
        self.assertEqual(self.endpoints.spare([self.first]), [self.third])
        self.assertEqual(self.endpoints.spare([self.first, self.third]), [])
        self.clock.advance(5)
        self.assertEqual(self.endpoints.spare([self.first, self.third]), [self.second])

    def test_preference(self) -> None:
        """All are tried, in the operator's order."""
        self.assertEqual(self.urls(), list(URLS))

    def test_rests(self) -> None:
        """One that failed is left out until its time is over, then it is in its old place again."""
        self.endpoints.failed(self.first)
        self.assertEqual(self.urls(), list(URLS[1:]))
        self.clock.advance(FIRST_BACKOFF - 0.01)
        self.assertEqual(self.urls(), list(URLS[1:]))
        self.clock.advance(0.01)
        self.assertEqual(self.urls(), list(URLS))

    def test_grows(self) -> None:
        """The rest doubles with each failure in a row, up to a cap, however many there are."""
        rests = []
        for _ in range(2000):
            self.endpoints.failed(self.first)
            rests.append(self.first.due - self.clock.seconds())
        self.assertEqual(rests[:6], [2.0, 4.0, 8.0, 16.0, 32.0, 60.0])
        self.assertEqual(set(rests[5:]), {LONGEST_BACKOFF})

    def test_jitter(self) -> None:
        """Two processes that saw the same failure do not come back at once: the dice halve the rest at most."""
        self.dice.face = 0.0
        self.endpoints.failed(self.first)
        self.assertEqual(self.first.due, FIRST_BACKOFF / 2)
        two = [Endpoints(URLS, self.clock.seconds, Random(seed)) for seed in (1, 2)]
        rests = []
        for endpoints in two:
            endpoint = endpoints.order()[0]
            endpoints.failed(endpoint)
            rests.append(endpoint.due)
        self.assertNotEqual(*rests)

    def test_answered(self) -> None:
        """One that answers is back at once, and its next failure is its first."""
        for _ in range(5):
            self.endpoints.failed(self.first)
        self.endpoints.answered(self.first)
        self.assertEqual(self.urls(), list(URLS))
        self.endpoints.failed(self.first)
        self.assertEqual(self.first.due, FIRST_BACKOFF)

    def test_retry_after(self) -> None:
        """One that asks for longer gets it, up to a cap; asking for less does not shorten the rest."""
        self.endpoints.failed(self.first, 30.0)
        self.assertEqual(self.first.due, 30.0)
        self.endpoints.failed(self.second, 0.0)
        self.assertEqual(self.second.due, FIRST_BACKOFF)
        for beyond in (1e9, float("inf")):
            self.endpoints.failed(self.third, beyond)
            self.assertEqual(self.third.due, LONGEST_RETRY_AFTER)

    def test_all_rest(self) -> None:
        """When all asked to be left alone, the one that is back first is tried: an upstream is never given up."""
        self.endpoints.failed(self.first, 30.0)
        self.endpoints.failed(self.second, 20.0)
        self.endpoints.failed(self.third, 40.0)
        self.assertEqual(self.urls(), [URLS[1]])

    def test_second_chance(self) -> None:
        """With one awake, the one that is due first is tried after it; unless it asked to be left alone."""
        self.endpoints.failed(self.first)
        self.endpoints.failed(self.first)
        self.endpoints.failed(self.second)
        self.assertEqual(self.urls(), [URLS[2], URLS[1]])
        self.endpoints.failed(self.third)
        self.assertEqual(self.urls(), [URLS[1], URLS[2]])
        self.endpoints.failed(self.second, 1.5)
        self.endpoints.failed(self.third, 30.0)
        self.assertEqual(self.urls(), [URLS[0]])

    def test_single(self) -> None:
        """An only endpoint is tried every time."""
        alone = Endpoints(URLS[:1], self.clock.seconds, self.dice)
        (endpoint,) = alone.order()
        alone.failed(endpoint, 900.0)
        self.assertEqual(alone.order(), [endpoint])

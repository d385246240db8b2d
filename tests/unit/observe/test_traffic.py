"""How much came from the cache, and who spent the pull limit."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe import ledger
from docxy.observe.ledger import Charge, QuotaLedger, Spender
from docxy.observe.traffic import Share, Traffic
from tests.unit.observe.test_journal import exchange, layer


class TrafficTests(SynchronousTestCase):
    """The three periods."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.traffic = Traffic(self.clock.seconds)

    def test_shares(self) -> None:
        """A hit saves its bytes; who joined a fetch, or had one begun ahead, is neither a hit nor saves any."""
        self.traffic.add(layer(0, cache="miss", sent=100), ahead=False)
        self.traffic.received(200)
        self.traffic.add(layer(0, cache="collapsed", sent=100), ahead=False)
        self.traffic.add(layer(0, sent=100), ahead=True)
        self.traffic.add(layer(0, sent=70), ahead=False)
        self.traffic.add(layer(0, sent=30, cache="stale"), ahead=False)
        share = self.traffic.hour()
        self.assertEqual(share, Share(answers=5, hits=2, joined=2, sent=400, saved=100, received=200))
        self.assertEqual((share.hit_rate, share.join_rate), (2 / 5, 2 / 5))

    def test_nothing(self) -> None:
        """Without an answer there is no rate; errors and HEAD do not count."""
        self.traffic.add(exchange(0, status=404), ahead=False)
        self.traffic.add(exchange(0, head=True), ahead=False)
        self.assertIsNone(self.traffic.week().hit_rate)

    def test_periods_end(self) -> None:
        """What is older than a period is not in it."""
        self.traffic.add(layer(0), ahead=False)
        counts = []
        for seconds in (0, 3601, 24 * 3600, 7 * 24 * 3600):
            self.clock.advance(seconds)
            counts.append([share.answers for share in (self.traffic.hour(), self.traffic.day(), self.traffic.week())])
        self.assertEqual(counts, [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]])

    def test_restored(self) -> None:
        """After a restart the periods go on; what is told is told once, and what came from before is not told again."""
        self.traffic.add(layer(0, sent=70), ahead=False)
        self.clock.advance(3601)
        self.traffic.add(layer(0, cache="collapsed", sent=30), ahead=False)
        self.traffic.received(50)
        told = self.traffic.unwritten()
        self.assertEqual([share.answers for share in told.values()], [1, 1])
        self.assertEqual(self.traffic.unwritten(), {})
        again = Traffic(self.clock.seconds)
        again.add(layer(0, sent=5), ahead=False)
        again.restore({**told, 0: Share(answers=1000)})
        self.assertEqual(again.hour(), Share(answers=2, hits=1, joined=1, sent=35, saved=5, received=50))
        self.assertEqual(again.week(), Share(answers=3, hits=2, joined=1, sent=105, saved=75, received=50))
        self.assertEqual([share.answers for share in again.unwritten().values()], [1])


class LedgerTests(SynchronousTestCase):
    """Docker Hub's window of six hours."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.ledger = QuotaLedger(self.clock.seconds)

    def charge(self, repository: str = "library/alpine", upstream: str = "docker.io") -> None:
        self.ledger.charge(Charge(self.clock.seconds(), upstream, "ci", repository, "devs"))

    def test_spenders(self) -> None:
        """Who spent most comes first; other upstreams do not count."""
        for _ in range(3):
            self.charge()
        self.charge("library/busybox")
        self.charge(upstream="ghcr.io")
        self.assertEqual(self.ledger.spent("docker.io"), 4)
        self.assertEqual(self.ledger.spenders("docker.io", 1), [Spender("ci", "library/alpine", "devs", 3)])

    def test_window(self) -> None:
        """A charge is over after six hours."""
        self.charge()
        self.clock.advance(ledger.WINDOW + 1)
        self.assertEqual(self.ledger.spent("docker.io"), 0)

    def test_forecast(self) -> None:
        """Ten pulls in ten minutes, sixty left: an hour."""
        for _ in range(10):
            self.charge()
            self.clock.advance(60)
        ends = self.ledger.ends_at("docker.io", 60)
        self.assertAlmostEqual((ends or 0) - self.clock.seconds(), 3600)

    def test_no_pace(self) -> None:
        """Where nothing is spent nothing ends."""
        self.assertIsNone(self.ledger.ends_at("docker.io", 60))

    def test_bound(self) -> None:
        """No more charges are kept than the bound."""
        self.patch(ledger, "MOST", 5)
        bounded = QuotaLedger(self.clock.seconds)
        for _ in range(9):
            bounded.charge(Charge(self.clock.seconds(), "docker.io", "", "a", ""))
        self.assertEqual(bounded.spent("docker.io"), 5)

    def test_restored(self) -> None:
        """After a restart what was spent before counts on, to the minute; it is not written down again."""
        for _ in range(3):
            self.charge()
        told = self.ledger.unwritten()
        self.assertEqual([*told.values()], [3])
        self.assertFalse(self.ledger.unwritten())
        self.clock.advance(600)
        again = QuotaLedger(self.clock.seconds)
        again.charge(Charge(self.clock.seconds(), "docker.io", "", "library/busybox", ""))
        again.restore(told)
        self.assertEqual(again.spent("docker.io"), 4)
        self.assertEqual(again.spenders("docker.io", 1), [Spender("ci", "library/alpine", "devs", 3)])
        self.assertEqual(again.unwritten().total(), 1)
        # Those from before end before.
        self.clock.advance(ledger.WINDOW - 600 + 60)
        self.assertEqual(again.spent("docker.io"), 1)

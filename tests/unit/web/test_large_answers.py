"""Large answers in memory: their bound, and who is dropped beyond it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from docxy.web.large_answers import PIECE, LargeAnswers, LargeBody


class LargeAnswersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dropped: list[str] = []
        self.large = LargeAnswers(1000)

    def body(self, name: str, data: bytes) -> LargeBody:
        return self.large.body(data, lambda: self.dropped.append(name))

    def test_shared(self) -> None:
        """However many clients are sent the same bytes, these count once, until the last client is gone."""
        data = bytes(900)
        bodies = [self.body(str(number), data) for number in range(1000)]
        self.assertEqual((self.large.size, self.dropped), (900, []))
        for body in bodies:
            self.assertEqual(self.large.size, 900)
            body.close()
            body.close()
        self.assertEqual((self.large.size, len(self.large._sent), len(self.large._shared)), (0, 0, 0))

    def test_slowest(self) -> None:
        """Beyond the bound the client that has taken nothing for longest is dropped; who reads stays."""
        bodies = {name: self.body(name, bytes(300)) for name in "abc"}
        bodies["a"].took(10)
        self.successResultOf(Deferred.fromCoroutine(bodies["b"].read()))
        self.assertEqual((self.large.size, self.dropped), (900, []))
        self.body("d", bytes(300))
        self.assertEqual((self.large.size, self.dropped), (900, ["c"]))
        bodies["c"].close()
        self.body("e", bytes(700))
        self.assertEqual((self.large.size, self.dropped), (1000, ["c", "a", "b"]))

    def test_many(self) -> None:
        """A thousand clients that take nothing, each of something else: no more is kept for them than the bound."""
        for number in range(1000):
            self.body(str(number), bytes(100))
            self.assertLessEqual(self.large.size, 1000)
        self.assertEqual(len(self.dropped), 990)

    def test_larger_than_all(self) -> None:
        """What is larger than the bound is sent all the same, alone."""
        self.body("a", bytes(300))
        self.body("b", bytes(5000))
        self.assertEqual((self.large.size, self.dropped), (5000, ["a"]))

    def test_pieces(self) -> None:
        """It is sent in pieces, so that a client that reads is seen to."""
        body = self.body("a", bytes(PIECE + 5))
        counts = []
        while (piece := body.here()) is not None:
            counts.append(piece.count)
            body.took(piece.count)
        self.assertEqual(counts, [PIECE, 5])

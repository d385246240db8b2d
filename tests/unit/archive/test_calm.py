"""An archive that fails, as pulls ask it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from docxy.archive.calm import ANSWER_WITHIN, CalmArchive
from docxy.archive.interfaces import Found
from docxy.names import Digest
from tests.fakes.archive import MemoryArchive

BLOB = b"blob"
DIGEST = Digest.of(BLOB)


class CalmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.archive = MemoryArchive(blobs={DIGEST: BLOB})
        self.calm = CalmArchive(self.archive, self.clock)

    def ask(self) -> Deferred[Found | None]:
        return Deferred.fromCoroutine(self.calm.open(DIGEST, 0))

    def test_bound(self) -> None:
        """Who asks waits no longer than the bound; a failure is a miss."""
        self.archive.silent = True
        asking = self.ask()
        self.clock.advance(ANSWER_WITHIN - 0.1)
        self.assertNoResult(asking)
        self.clock.advance(0.2)
        self.assertIsNone(self.successResultOf(asking))
        self.assertIn("did not answer within 3 s", str(self.calm.failure))

    def test_left_alone(self) -> None:
        """After a failure it is asked again later and later, by one at a time, and told of when it answers."""
        self.archive.failing = True
        with capturedLogs() as logs:
            asked = []
            for second in range(100):
                self.assertIsNone(self.successResultOf(self.ask()))
                if self.archive.asked:
                    asked.append(second)
                    self.archive.asked.clear()
                self.clock.advance(1.0)
            self.assertEqual(asked, [0, 5, 15, 35, 75])
            self.archive.failing = False
            self.clock.advance(300.0)
            self.archive.silent = True
            one = self.ask()
            self.assertIsNone(self.successResultOf(self.ask()))
            self.assertEqual(len(self.archive.asked), 1)
            self.archive.silent = False
            self.clock.advance(ANSWER_WITHIN)
            self.assertIsNone(self.successResultOf(one))
            self.clock.advance(300.0)
            self.assertIsNotNone(self.successResultOf(self.ask()))
        formats = [str(event.get("log_format")) for event in logs]
        self.assertEqual([each.partition(" ")[0] for each in formats], ["degraded:", "{name}"])
        self.assertEqual(self.calm.counts, {("read", "failed"): 6, ("read", "hit"): 1})

    def test_wrong(self) -> None:
        """What was wrong there is removed, and not asked for."""
        self.successResultOf(Deferred.fromCoroutine(self.calm.wrong(DIGEST)))
        self.assertEqual(self.archive.blobs, {})
        self.archive.asked.clear()
        self.assertIsNone(self.successResultOf(self.ask()))
        self.assertEqual(self.archive.asked, [])

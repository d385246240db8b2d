"""Where clients get blobs themselves, remembered for a while."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.archive import links
from docxy.archive.calm import CalmArchive
from docxy.archive.interfaces import LINK_FOR
from docxy.archive.links import ABSENT_FOR, BELIEVED_FOR, Links
from docxy.names import Digest
from tests.fakes.archive import MemoryArchive

BLOB = b"blob"
DIGEST, OTHER = Digest.of(BLOB), Digest.of(b"other")


class LinksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.archive = MemoryArchive(blobs={DIGEST: BLOB})
        self.links = Links(CalmArchive(self.archive, self.clock), self.clock)

    def get(self, digest: Digest) -> str | None:
        found = self.successResultOf(Deferred.fromCoroutine(self.links.get(digest)))
        return None if found is None else found.url

    def test_believed(self) -> None:
        """The archive is asked once in a while, and a URL that is given out is good for minutes more."""
        for expected in (1, 1, 2):
            self.assertIn(DIGEST.hex, self.get(DIGEST) or "")
            self.assertEqual(len(self.archive.asked), expected)
            self.clock.advance(BELIEVED_FOR / 2 + 1)
        self.assertGreaterEqual(LINK_FOR - BELIEVED_FOR, 240)

    def test_absent(self) -> None:
        """What is not there is not asked for again at once, and found when it is."""
        for _ in range(3):
            self.assertIsNone(self.get(OTHER))
        self.assertEqual(len(self.archive.asked), 1)
        self.archive.blobs[OTHER] = b"other"
        self.clock.advance(ABSENT_FOR + 1)
        self.assertIn(OTHER.hex, self.get(OTHER) or "")

    def test_given(self) -> None:
        """What clients were sent for is remembered until somebody was told, and no more than the bound."""
        self.patch(links, "MOST", 2)
        self.get(OTHER)
        self.assertEqual(self.links.given(9), [])
        digests = [Digest.of(bytes([number])) for number in range(4)]
        for digest in digests:
            self.archive.blobs[digest] = BLOB
            self.get(digest)
        self.assertEqual(self.links.given(1), digests[:1])
        self.assertEqual(self.links.given(9), digests[:2])
        self.links.told(digests[:1])
        self.assertEqual(self.links.given(9), digests[1:2])

    def test_stop(self) -> None:
        """A stop ends what is asked, and who waits for it."""
        self.archive.silent = True
        waiting = Deferred.fromCoroutine(self.links.get(DIGEST))
        self.assertNoResult(waiting)
        self.successResultOf(Deferred.fromCoroutine(self.links.stop()))
        self.failureResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

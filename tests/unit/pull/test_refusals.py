"""What is remembered of upstreams that refuse or fail: for how long, and how much of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.content import Manifest
from docxy.errors import TooManyRequests, UpstreamError
from docxy.names import OCI_INDEX, Digest
from docxy.pull import prefetch, refusals
from docxy.pull.accept import ANYTHING
from docxy.pull.caller import Caller
from docxy.pull.prefetch import Prefetch
from docxy.pull.refusals import LIMITED_FOR, LONGEST_PAUSE, PAUSE, Pauses, RecentRefusals


def limited(seconds: str) -> TooManyRequests:
    return TooManyRequests("slow down", headers=(("Retry-After", seconds),))


class Times(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def test_refusals(self) -> None:
        """A 429 is given again to the same client, with its Retry-After, for a moment at most."""
        kept: RecentRefusals[str] = RecentRefusals(self.clock.seconds)
        kept.note("long", limited("30"))
        kept.note("short", limited("2"))
        kept.check("other")
        self.assertEqual(self.assertRaises(TooManyRequests, kept.check, "long").headers, (("Retry-After", "30"),))
        self.clock.advance(2)
        kept.check("short")
        self.assertRaises(TooManyRequests, kept.check, "long")
        self.clock.advance(LIMITED_FOR - 2)
        kept.check("long")

    def test_pauses(self) -> None:
        """What failed is left alone for a while, as long as the upstream says, and not without end."""
        paused: Pauses[str] = Pauses(self.clock.seconds)
        paused.note("failed", UpstreamError("broken"))
        paused.note("limited", limited("60"))
        paused.note("long", limited("100000"))
        self.clock.advance(PAUSE)
        self.assertEqual([key in paused for key in ("failed", "limited", "long", "other")], [False, True, True, False])
        self.clock.advance(LONGEST_PAUSE - PAUSE)
        self.assertNotIn("long", paused)


class Bounds(SynchronousTestCase):
    def test_bounded(self) -> None:
        """However many clients are refused or questions fail, the last ones are kept and no more."""
        self.patch(refusals, "MAX_KEPT", 10)
        clock = Clock()
        kept: RecentRefusals[int] = RecentRefusals(clock.seconds)
        paused: Pauses[int] = Pauses(clock.seconds)
        for key in range(100):
            kept.note(key, limited("30"))
            paused.note(key, limited("30"))
        self.assertEqual((len(kept._kept), len(paused._kept)), (10, 10))
        kept.check(0)
        self.assertRaises(TooManyRequests, kept.check, 99)
        self.assertEqual((0 in paused, 99 in paused), (False, True))

    def test_prefetched(self) -> None:
        """However many manifests are pulled, the last ones are known to have been looked at, and no more."""
        self.patch(prefetch, "MAX_SEEN", 10)
        nothing: Any = None
        looked = Prefetch(nothing, Clock(), lambda manifest: False)
        for number in range(100):
            body = str(number).encode()
            index = Manifest(OCI_INDEX, Digest.of(body), len(body), body)
            looked.start("a", index, Caller(None, "", cached_only=False, accept=ANYTHING))
        self.assertEqual(len(looked._seen_to), 10)

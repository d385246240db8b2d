"""The model of what is right: which answers are marks, which are excused, and why."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.torture.faults import KINDS, Heals
from tests.torture.judge import Attempt, Outcome, Refusal, Situation, judge
from tests.torture.library import Thing
from tests.torture.stage import trace

BLOB = Thing("blobs", "team/app", "sha256:" + "1" * 64, 1000, None, bytes(1000))
MANIFEST = Thing("manifests", "team/app", "sha256:" + "2" * 64, 100, "application/x", bytes(100))
GOOD = Outcome("GET", BLOB, None, 50.0, 51.0, 200, {"content-length": "1000"}, 1000, True, True)
BROKEN = evolve(GOOD, received=500, whole=False, error="the connection ended")
BAD_GATEWAY = Outcome("GET", BLOB, None, 50.0, 51.0, 502, {}, 2, True, True)


def attempt(fault: str | None, ended: float = 50.5, endpoint: str = "a", key: str = "blob", **more: str) -> Attempt:
    """An upstream's answer, which took a tenth of a second."""
    return Attempt(key, endpoint, ended - 0.1, ended, fault, **more)


class WholeTests(SynchronousTestCase):
    """What looks whole."""

    def mark(self, outcome: Outcome, situation: Situation | None = None) -> str:
        return judge(outcome, situation or Situation()).mark

    def test_right(self) -> None:
        """The known bytes are right, and whatever the upstream did then matters to nobody."""
        self.assertEqual(self.mark(GOOD), "")
        self.assertEqual(judge(GOOD, Situation([attempt("flip")])).excuse, "")

    def test_wrong_bytes(self) -> None:
        """Wrong bytes, too few and too many are wrong, even where the upstream sent them."""
        for wrong in (
            evolve(GOOD, right=False),
            evolve(GOOD, received=999, headers={"content-length": "999"}),
            evolve(GOOD, received=0, headers={"content-length": "0"}),
            evolve(GOOD, received=999, headers={}),
        ):
            self.assertEqual(self.mark(wrong), "wrong", wrong)
            self.assertEqual(self.mark(wrong, Situation([attempt("empty"), attempt("flip")])), "wrong", wrong)

    def test_wrong_words(self) -> None:
        """A HEAD with another length, another digest and another media type are wrong."""
        head = evolve(GOOD, method="HEAD", received=0)
        self.assertEqual(self.mark(head), "")
        self.assertEqual(self.mark(evolve(head, headers={"content-length": "0"})), "wrong")
        self.assertEqual(self.mark(evolve(GOOD, headers={"docker-content-digest": "sha256:0"})), "wrong")
        manifest = Outcome("GET", MANIFEST, None, 50.0, 51.0, 200, {"content-type": "text/html"}, 100, True, True)
        self.assertEqual(self.mark(manifest), "wrong")

    def test_range(self) -> None:
        """A range must be the one that was asked for, cut at the end; of the size that the blob has."""
        due = {"content-range": "bytes 900-999/1000", "content-length": "100"}
        part = evolve(GOOD, asked=(900, 2000), status=206, headers=due, received=100)
        self.assertEqual(self.mark(part), "")
        self.assertEqual(self.mark(evolve(part, received=99)), "wrong")
        for told in ("bytes 900-1000/1001", "bytes 0-99/1000", "bytes 900-999/*"):
            self.assertEqual(self.mark(evolve(part, headers={"content-range": told})), "wrong", told)

    def test_unchecked_range(self) -> None:
        """Wrong bytes in a range are excused while the upstream corrupts that blob, and at no other time."""
        due = {"content-range": "bytes 900-999/1000"}
        part = evolve(GOOD, asked=(900, None), status=206, headers=due, received=100, right=False)
        self.assertEqual(self.mark(part), "wrong")
        self.assertIn("corrupted", judge(part, Situation([attempt("flip")])).excuse)
        self.assertEqual(self.mark(part, Situation([attempt("cut")])), "wrong")
        self.assertEqual(self.mark(part, Situation([attempt("long")])), "wrong")
        longer = evolve(part, headers={"content-range": "bytes 900-1200/1201"}, right=True)
        self.assertEqual(self.mark(longer), "wrong")
        self.assertIn("corrupted", judge(longer, Situation([attempt("long")])).excuse)
        self.assertEqual(self.mark(part, Situation([attempt("flip", ended=10.0)])), "wrong")

    def test_from_the_cache(self) -> None:
        """What is from the cache was verified: wrong bytes of it are wrong in a range, and in a part that broke off."""
        hit, flipped = {"cache-status": "docxy; hit; ttl=7"}, Situation([attempt("flip")])
        part = evolve(GOOD, asked=(900, None), status=206, received=100, right=False)
        part = evolve(part, headers={"content-range": "bytes 900-999/1000", **hit})
        self.assertEqual(self.mark(part, flipped), "wrong")
        cut = evolve(BROKEN, right=False, headers={"content-length": "1000"})
        for outcome in (cut, evolve(cut, left=True)):
            self.assertEqual(self.mark(outcome, flipped), "" if outcome.left else judge(BROKEN, flipped).mark)
            self.assertEqual(self.mark(evolve(outcome, headers={**outcome.headers, **hit}), flipped), "wrong")
        missed = evolve(part, headers={**part.headers, "cache-status": "docxy; fwd=miss; detail=hit-and-miss"})
        self.assertEqual(self.mark(missed, flipped), "")

    def test_word_of_the_upstream(self) -> None:
        """The length that a HEAD tells of an unknown manifest is the upstream's word; of a known one it is docxy's."""
        head = Outcome("HEAD", MANIFEST, None, 50.0, 51.0, 200, {"content-length": "7"}, 0, True, True)
        lied = Situation([attempt("short")])
        self.assertEqual(self.mark(head), "wrong")
        self.assertIn("lied", judge(head, lied).excuse)
        self.assertEqual(self.mark(head, evolve(lied, given=True)), "wrong")

    def test_moved_tag(self) -> None:
        """A tag that moves may be either manifest."""
        other = evolve(MANIFEST, digest="sha256:" + "3" * 64, size=101)
        headers = {"content-type": "application/x", "docker-content-digest": other.digest, "content-length": "101"}
        outcome = Outcome("GET", MANIFEST, None, 50.0, 51.0, 200, headers, 101, True, True)
        self.assertEqual(self.mark(outcome), "wrong")
        self.assertEqual(self.mark(outcome, Situation(others=[other])), "")


class TraceTests(SynchronousTestCase):
    """What is told beside a mark."""

    def test_trace(self) -> None:
        """The last requests that the upstream saw: their faults, and when they were as of the client's question."""
        attempts = [attempt(None, 30.0 + number) for number in range(20)] + [attempt("drop", 50.5, "b")]
        lines = trace(BROKEN, attempts).splitlines()
        self.assertEqual(len(lines), 13, "an empty one, and the last twelve")
        self.assertEqual(lines[-1], "    +0.40 … +0.50 s: GET blob at b: drop")
        self.assertEqual(lines[-2], "    -1.10 … -1.00 s: GET blob at a: good")


class FailureTests(SynchronousTestCase):
    """What failed."""

    def test_no_cause(self) -> None:
        """A failure while the upstream does nothing wrong, or nothing that HTTP forbids, is docxy's."""
        for outcome in (BROKEN, BAD_GATEWAY, evolve(BROKEN, status=None)):
            for attempts in ([], [attempt(None)], [attempt("chunked"), attempt("slow")]):
                self.assertEqual(judge(outcome, Situation(attempts)).mark, "unexplained")

    def test_one_fault(self) -> None:
        """One fault that a retry heals must not be seen; two in a row may be."""
        for fault, kind in KINDS.items():
            for endpoints in (1, 2):
                verdict = judge(BAD_GATEWAY, Situation([attempt(fault)], endpoints))
                if kind.harmless:
                    self.assertEqual(verdict.mark, "unexplained", fault)
                elif kind.heals is Heals.RETRY or (kind.heals is Heals.ELSEWHERE and endpoints == 2):
                    self.assertEqual(verdict.mark, "healable", fault)
                else:
                    self.assertIn(fault, verdict.excuse)
        twice = Situation([attempt("reset", 50.3), attempt("500", 50.6)])
        self.assertEqual(judge(BROKEN, twice).mark, "")

    def test_faults_before(self) -> None:
        """Faults of a fetch that the client joined count; those before a good answer, or long ago, do not."""
        joined = Situation([attempt("cut", 48.0), attempt("cut", 50.5)])
        self.assertEqual(judge(BROKEN, joined).mark, "")
        over = Situation([attempt("cut", 47.0), attempt(None, 48.0), attempt("cut", 50.5)])
        self.assertEqual(judge(BROKEN, over).mark, "healable")
        long_ago = Situation([attempt("cut", 20.0), attempt("cut", 50.5)])
        self.assertEqual(judge(BROKEN, long_ago).mark, "healable")

    def test_disturbed(self) -> None:
        """Who kills the daemon breaks connections; an answer that says what failed is not excused by it."""
        killed = Situation(disturbed="the daemon was killed")
        self.assertEqual(judge(BROKEN, killed).excuse, "the daemon was killed")
        self.assertEqual(judge(BAD_GATEWAY, killed).mark, "unexplained")
        self.assertEqual(judge(evolve(GOOD, right=False), killed).mark, "wrong")

    def test_never_excused(self) -> None:
        """A hang and a 500 are marks, whatever happened."""
        anything = Situation([attempt("500"), attempt("500")], disturbed="the daemon was killed", off=True)
        self.assertEqual(judge(evolve(BROKEN, timed_out=True), anything).mark, "hangs")
        self.assertEqual(judge(evolve(BAD_GATEWAY, status=500), anything).mark, "500s")

    def test_off(self) -> None:
        """While the upstream is off what is not cached fails; while it limits requests it is 429."""
        self.assertIn("down", judge(BAD_GATEWAY, Situation(off=True)).excuse)
        limited, refusals = evolve(BAD_GATEWAY, status=429), [Refusal("a", 49.0)]
        self.assertIn("limits", judge(limited, Situation(refusals=refusals)).excuse)
        self.assertEqual(judge(limited, Situation()).mark, "unexplained")
        self.assertEqual(judge(limited, Situation(refusals=[Refusal("a", 44.0)])).mark, "unexplained")
        self.assertEqual(judge(BAD_GATEWAY, Situation(refusals=refusals)).mark, "unexplained")

    def test_limited_everywhere(self) -> None:
        """A 429 where another endpoint had said none is excused only if that one failed too."""
        limited = evolve(BAD_GATEWAY, status=429)
        refused = Situation([attempt("429")], 2, refusals=[Refusal("a", 50.4)])
        self.assertEqual(judge(limited, refused).mark, "healable")
        both = evolve(refused, attempts=[attempt("429", 50.4), attempt("502", 50.5, "b")])
        self.assertIn("again", judge(limited, both).excuse)
        for endpoint in ("b", "cdn"):
            refusals = [*refused.refusals, Refusal(endpoint, 50.5)]
            self.assertIn("limits", judge(limited, evolve(refused, refusals=refusals)).excuse)

    def test_refused(self) -> None:
        """What is there is not unknown, denied or malformed, whatever the upstream failed."""
        twice = Situation([attempt("reset", 50.3), attempt("500", 50.6)])
        for status in (302, 400, 401, 403, 404, 416):
            self.assertEqual(judge(evolve(BAD_GATEWAY, status=status), twice).mark, "unexplained", status)
        behind = evolve(BAD_GATEWAY, status=416, asked=(900, None))
        self.assertEqual(judge(behind, twice).mark, "unexplained")
        self.assertEqual(judge(behind, Situation([attempt("short")])).mark, "", "its end had been told wrong")

    def test_two_servers(self) -> None:
        """What the token service failed excuses nothing of the registry, nor one question another."""
        token = "token team/app"
        once = Situation([attempt("500", 50.2, key=token), attempt("drop", 50.4)])
        self.assertEqual(judge(BAD_GATEWAY, once).mark, "healable")
        twice = evolve(once, attempts=[attempt("500", 50.1, key=token), *once.attempts])
        self.assertEqual(judge(BAD_GATEWAY, twice).mark, "")
        granted = evolve(twice, attempts=[*twice.attempts[:2], attempt(None, 50.3, key=token), attempt("drop")])
        self.assertEqual(judge(evolve(BAD_GATEWAY, started=50.35), granted).mark, "healable")
        self.assertEqual(judge(BAD_GATEWAY, Situation([attempt("503", key=token)])).mark, "healable")
        asked = Situation([attempt("500", 50.2, method="HEAD"), attempt("drop", 50.4)])
        self.assertEqual(judge(BAD_GATEWAY, asked).mark, "healable")

    def test_manifest(self) -> None:
        """A wrong manifest is seen before a byte of it goes out: the other endpoint heals it."""
        failed = evolve(BAD_GATEWAY, thing=MANIFEST)
        for fault in ("flip", "short", "long", "portal", "empty"):
            self.assertEqual(judge(failed, Situation([attempt(fault)])).mark, "", fault)
            self.assertEqual(judge(failed, Situation([attempt(fault)], endpoints=2)).mark, "healable", fault)

    def test_slow(self) -> None:
        """A machine that stands still breaks what time-outs break; it makes nothing wrong, and no 500."""
        slow = Situation(slow=True)
        self.assertEqual(judge(BAD_GATEWAY, slow).excuse, "the machine stood still")
        self.assertEqual(judge(BROKEN, slow).mark, "")
        self.assertEqual(judge(evolve(BAD_GATEWAY, status=500), slow).mark, "500s")
        self.assertEqual(judge(evolve(GOOD, right=False), slow).mark, "wrong")
        self.assertEqual(judge(evolve(BROKEN, timed_out=True), slow).mark, "hangs")

    def test_left_alone(self) -> None:
        """What only the other endpoint heals is excused while that one has asked to be left alone, and no longer."""
        for fault in ("nowhere", "silent", "503"):
            for at, endpoint, mark in (
                (49.0, "b", ""),
                (46.0, "b", "healable"),
                (50.6, "b", "healable"),
                (49.0, "a", "healable"),
                (49.0, "cdn", "healable"),
            ):
                situation = Situation([attempt(fault)], endpoints=2, refusals=[Refusal(endpoint, at)])
                self.assertEqual(judge(BAD_GATEWAY, situation).mark, mark, (fault, at, endpoint))
        retried = Situation([attempt("drop")], endpoints=2, refusals=[Refusal("b", 50.0)])
        self.assertEqual(judge(BAD_GATEWAY, retried).mark, "healable", "the same endpoint heals this")

"""Lines of jobs in threads, with jobs that end when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from docxy.storage.threads import Line


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.jobs: list[Deferred[Any]] = []
        self.begun: list[tuple[list[bytes], int]] = []
        self.done: list[str] = []
        self.failures: list[Failure] = []
        self.line = Line(self.in_thread, self.work, self.done.append, self.failures.append, 10)

    def in_thread(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        self.jobs.append(Deferred())
        outcome = work(*args, **kwargs)
        return self.jobs[-1].addCallback(lambda _: outcome)

    def work(self, pieces: Sequence[bytes], offset: int) -> str:
        self.begun.append((list(pieces), offset))
        return b"".join(pieces).decode()

    def test_one_at_a_time(self) -> None:
        """What comes during a job is one job after it, and each knows where its bytes begin."""
        self.line.push([b"ab"])
        self.line.push([b"c", b"d"])
        self.line.push([b"e"])
        self.assertEqual((self.begun, self.line.waiting, self.line.busy), ([([b"ab"], 10)], 5, True))
        self.jobs[0].callback(None)
        self.assertEqual((self.begun[1:], self.done), ([([b"c", b"d", b"e"], 12)], ["ab"]))
        self.assertEqual((self.line.position, self.line.waiting, self.line.busy), (12, 3, True))
        self.jobs[1].callback(None)
        self.assertEqual((self.done, len(self.jobs)), (["ab", "cde"], 2))
        self.assertEqual((self.line.position, self.line.waiting, self.line.busy), (15, 0, False))

    def test_failure(self) -> None:
        """A job that failed has not been through, and the next waits until it is asked for."""
        self.line.push([b"ab"])
        self.line.push([b"c"])
        self.jobs[0].errback(OSError("full"))
        self.assertEqual([str(failure.value) for failure in self.failures], ["full"])
        self.assertEqual((self.line.position, self.line.waiting, self.line.busy, len(self.jobs)), (10, 1, False, 1))

    def test_stop(self) -> None:
        """What is in a job goes through; the rest is forgotten."""
        self.line.push([b"ab"])
        self.line.push([b"c"])
        self.line.stop()
        self.assertEqual(self.line.waiting, 2)
        self.jobs[0].callback(None)
        self.assertEqual((self.line.position, self.line.waiting, self.line.busy), (12, 0, False))
        self.assertEqual((self.done, len(self.jobs)), (["ab"], 1))

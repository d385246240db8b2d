"""Threads of one kind of work; and lines of jobs in threads, with jobs that end when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from docxy.threads import Line, Threads, in_own_thread


class OwnThreadTests(TestCase):
    async def test_outcome(self) -> None:
        """What work returns and raises comes to the reactor's thread; it ran in another one, which holds up no end."""
        in_thread = in_own_thread(reactor, "own")
        here = threading.current_thread()
        there = await in_thread(threading.current_thread)
        self.assertIsNot(there, here)
        self.assertTrue(there.daemon)
        self.assertIs(threading.current_thread(), here)
        with self.assertRaises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0)
        self.assertIs(threading.current_thread(), here)


class ThreadTests(TestCase):
    async def test_elsewhere(self) -> None:
        """Work is done in another thread, whose end the service's stop waits for."""
        service = Threads(reactor, 2, "test")
        service.startService()
        where = await service.in_thread(threading.current_thread)
        self.assertNotEqual(where, threading.current_thread())
        service.stopService()
        self.assertFalse(where.is_alive())


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

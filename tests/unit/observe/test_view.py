"""The read model as the web sees it: what is in memory, and what is on the disk, as one."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from docxy.observe.history import EVERY, PullHistory
from docxy.observe.journal import GAP, Journal, Pull
from docxy.observe.model import ReadModel
from docxy.observe.recorder import Dropped
from docxy.observe.view import LocalView, News
from docxy.threads import Threads
from tests.unit.observe.test_journal import exchange
from tests.unit.observe.test_model import ABOUT

reactor: Any = _reactor
BUDGET = 1 << 40


def at_once(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """In the place of a thread."""
    return maybeDeferred(work, *args)


class PullsTests(SynchronousTestCase):
    """`/pulls.json`: the ring of three pulls, and the history of all that ended."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.history = PullHistory(self.mktemp(), BUDGET, at_once, self.clock)
        self.model = ReadModel(ABOUT, self.clock.seconds, self.finished, lambda: None, hold=0.0, names=True)
        self.model.journal = Journal(self.clock.seconds, self.finished, ring=3)
        self.view = LocalView(self.model, self.history, News(self.clock), self.clock.seconds)

    def finished(self, pull: Pull) -> None:
        self.history.keep(self.model.told(pull))

    def pull(self, name: str, upstream: str = "docker.io") -> None:
        """A client pulls this now."""
        asked = evolve(exchange(self.clock.seconds()), repository=name, upstream=upstream)
        self.model.take([asked], Dropped())

    def told(self, most: int, repository: tuple[str, str] | None = None) -> list[dict[str, Any]]:
        return self.successResultOf(Deferred.fromCoroutine(self.view.pulls(most, repository)))

    def names(self, most: int) -> list[str]:
        return [pull["repository"] for pull in self.told(most)]

    def test_joined(self) -> None:
        """The newest first, each once: those that run, those that ended and are in both, those on the disk alone."""
        for name in "abcde":
            self.pull(name)
            self.clock.advance(GAP / 2 + 1)
        self.pull("f")
        self.clock.advance(EVERY)
        self.assertEqual([pull.repository for pull in self.model.journal.pulls()], ["f", "e", "d"])
        kept = [pull["repository"] for pull in self.successResultOf(self.history.recent(100))]
        self.assertEqual(kept, ["d", "c", "b", "a"])
        for most in range(1, 8):
            self.assertEqual(self.names(most), list("fedcba")[:most])
        found = self.told(100)
        self.assertEqual(len({pull["id"] for pull in found}), 6)
        self.assertEqual([pull["running"] for pull in found], [True, True, False, False, False, False])
        started = [pull["started"] for pull in found]
        self.assertEqual(started, sorted(started, reverse=True))

    def test_repository(self) -> None:
        """Of one repository, from both; one of the same name at another registry is another one."""
        for upstream in ("docker.io", "ghcr.io", "docker.io"):
            self.pull("a/b", upstream)
            for name in "cd":
                self.pull(name)
            self.clock.advance(2 * GAP)
        self.pull("a/b")
        self.clock.advance(EVERY)
        found = self.told(100, ("docker.io", "a/b"))
        self.assertEqual([pull["upstream"] for pull in found], ["docker.io"] * 3)
        self.assertEqual(len({pull["id"] for pull in found}), 3)
        self.assertEqual(len(self.told(2, ("docker.io", "a/b"))), 2)
        self.assertEqual(self.told(100, ("docker.io", "a/b/c")), [])


class ThreadTests(TestCase):
    """The history as docxy has it, in a thread of its own."""

    async def test_off_the_reactor(self) -> None:
        """Nothing of it that touches the file runs in the reactor's thread: not reading, writing, opening, closing."""
        done: list[tuple[str, bool]] = []
        for name in ("_connected", "_read", "_write", "_close"):
            self.patch(PullHistory, name, self.noting(name, done))
        threads = Threads(reactor, 1, "history")
        threads.startService()
        self.addCleanup(threads.stopService)
        clock = Clock()
        clock.advance(1_800_000_000)
        history = PullHistory(self.mktemp(), BUDGET, threads.in_thread, clock)
        told: dict[str, Any] = {"id": "1", "upstream": "docker.io", "repository": "a", "started": clock.seconds()}
        history.keep(told)
        clock.advance(EVERY)
        self.assertEqual(await history.recent(1), [told])
        history.keep({**told, "id": "2"})
        await history.close()
        self.assertEqual({name for name, _ in done}, {"_connected", "_read", "_write", "_close"})
        self.assertEqual([name for name, in_reactor in done if in_reactor], [])

    def noting(self, name: str, done: list[tuple[str, bool]]) -> Callable[..., Any]:
        """The method, which notes whether it runs in this thread, the reactor's."""
        method, own = getattr(PullHistory, name), get_ident()

        def noted(*args: Any) -> Any:
            done.append((name, get_ident() == own))
            return method(*args)

        return noted

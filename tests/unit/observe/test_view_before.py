"""The view of a docxy that has just started: pulls from before, without waiting for the disk."""

from __future__ import annotations

from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe.exchange import Exchange
from docxy.observe.history import PullHistory
from docxy.observe.model import SHOWN_PULLS, ReadModel
from docxy.observe.recorder import Dropped
from docxy.observe.view import AGAIN, LocalView, News
from tests.unit.cli.canned import part, pull
from tests.unit.observe.test_model import ABOUT


@define
class Disk:
    """A history that answers when a test says so."""

    asked: list[tuple[int, Deferred[list[dict[str, Any]]]]] = field(factory=list)

    def recent(self, most: int, repository: object = None) -> Deferred[list[dict[str, Any]]]:
        answer: Deferred[list[dict[str, Any]]] = Deferred()
        self.asked.append((most, answer))
        return answer

    def answer(self, *pulls: dict[str, Any]) -> None:
        """The request that waits."""
        _, waiting = self.asked.pop()
        waiting.callback(list(pulls))


class BeforeTests(SynchronousTestCase):
    """After a restart."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.disk = Disk()
        self.news = News(self.clock)
        self.model = ReadModel(ABOUT, self.clock.seconds, lambda pull: None, lambda: None, hold=0.0, names=True)
        history = cast(PullHistory, self.disk)
        self.view = LocalView(self.model, history, self.news, self.clock.seconds)

    def ids(self) -> list[str]:
        return [each["id"] for each in self.successResultOf(self.view.snapshot())["pulls"]]

    def pulled(self, count: int) -> list[str]:
        """Ids of pulls of this docxy, the newest first."""
        for n in range(count):
            told = Exchange.from_json(part(at=self.clock.seconds(), repository=f"r{n}", client="10.0.0.9"))
            self.model.take([told], Dropped())
        return [each["id"] for each in self.model.snapshot()["pulls"]]

    def test_before(self) -> None:
        """A snapshot does not wait for the disk; when that has answered there is news, and the next one has it."""
        news: list[int] = []
        self.news.subscribe(lambda: news.append(1))
        self.assertEqual(self.ids(), [])
        self.assertEqual(self.disk.asked[0][0], SHOWN_PULLS)
        self.disk.answer(pull(id="b"), pull(id="a"))
        self.assertEqual(news, [1])
        self.assertEqual(self.ids(), ["b", "a"])

    def test_after_own(self) -> None:
        """Pulls since the start come first; one that the history has by now is there once; all have a bound."""
        own = self.pulled(SHOWN_PULLS - 2)
        self.ids()
        self.disk.answer(pull(id=own[3]), *(pull(id=each) for each in "abcd"))
        self.assertEqual(self.ids(), [*own, "a", "b"])

    def test_enough(self) -> None:
        """A docxy that has pulls enough of its own reads nothing."""
        self.pulled(SHOWN_PULLS + 5)
        self.assertEqual(len(self.ids()), SHOWN_PULLS)
        self.assertEqual(self.disk.asked, [])

    def test_again(self) -> None:
        """The disk is asked one thing at a time, and not again until a while later: an old docxy may still write."""
        self.ids()
        self.clock.advance(10 * AGAIN)
        self.ids()
        self.assertEqual(len(self.disk.asked), 1)
        self.disk.answer(pull(id="a"))
        self.ids()
        self.assertEqual(self.disk.asked, [])
        self.clock.advance(AGAIN)
        self.ids()
        self.disk.answer(pull(id="b"), pull(id="a"))
        self.assertEqual(self.ids(), ["b", "a"])

    def test_fails(self) -> None:
        """A history that fails, which answers that it has nothing, takes away nothing that was there."""
        self.ids()
        self.disk.answer(pull(id="a"))
        self.clock.advance(AGAIN)
        self.ids()
        self.disk.answer()
        self.assertEqual(self.ids(), ["a"])

    def test_other_version(self) -> None:
        """What another version wrote and this one cannot show is left out, on every way."""
        strange = [
            pull(id="x", parts=[part(newer=1)]),
            pull(id="y", parts=[part(waits={"newer": 1.0})]),
            {"id": "z"},
        ]
        self.ids()
        self.disk.answer(*strange, pull(id="a"))
        self.assertEqual(self.ids(), ["a"])
        found = Deferred.fromCoroutine(self.view.pulls(10, None))
        self.disk.answer(*strange, pull(id="a"))
        self.assertEqual([each["id"] for each in self.successResultOf(found)], ["a"])

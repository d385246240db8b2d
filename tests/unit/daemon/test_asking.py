"""Questions from the supervisor to its workers, over AMP on connections in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.workers.asking import PATIENCE, Workers
from docxy.daemon.workers.messages import QuietAMP
from docxy.questions import LARGEST, Unanswered
from docxy.worker import SupervisorLink


class Wire:
    """A transport: what is written to one end comes at the other when it is carried there."""

    other: Any
    disconnecting = False

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def carry(self) -> bool:
        """Whether there was anything."""
        written, self.written = self.written, []
        for data in written:
            self.other.dataReceived(data)
        return bool(written)

    def loseConnection(self) -> None:
        self.disconnecting = True


class AskingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.links = {number: QuietAMP() for number in (1, 2)}
        self.ends = {
            number: SupervisorLink(lambda: None, lambda grace: None, lambda policy: None, self.clock)
            for number in (1, 2)
        }
        self.wires: list[Wire] = []
        for number, link in self.links.items():
            there, back = Wire(), Wire()
            self.wires += [there, back]
            there.other, back.other = self.ends[number], link
            self.ends[number].makeConnection(back)  # type: ignore[arg-type]  # as much of one as AMP needs
            link.makeConnection(there)  # type: ignore[arg-type]  # as above
        self.workers = Workers(lambda: self.links, self.clock)

    def all(self, *question: Any) -> Deferred[dict[int, Any]]:
        return self.carried(Deferred.fromCoroutine(self.workers.ask_all(*question)))

    def one(self, *question: Any) -> Deferred[Any]:
        return self.carried(Deferred.fromCoroutine(self.workers.ask_one(*question)))

    def carried(self, asking: Deferred[Any]) -> Deferred[Any]:
        while any(wire.carry() for wire in self.wires):
            pass
        return asking

    def test_all(self) -> None:
        """Each worker is asked, and each answer is kept with its number."""
        for number, end in self.ends.items():

            async def answer(facts: list[str], number: int = number) -> Any:
                return [number, *facts]

            end.questions.answer("name", answer)
        self.assertEqual(self.successResultOf(self.all("name", ["a"])), {1: [1, "a"], 2: [2, "a"]})
        self.assertEqual(self.successResultOf(self.one("name", ["b"])), [1, "b"])

    def test_failing(self) -> None:
        """One that cannot answer, or whose answer raises, is told apart from those that did."""

        async def answer() -> Any:
            return True

        async def fail() -> Any:
            raise ValueError("no")

        self.ends[1].questions.answer("name", answer)
        found = self.successResultOf(self.all("name"))
        self.assertEqual(found[1], True)
        self.assertIsInstance(found[2], Unanswered)
        self.ends[2].questions.answer("name", fail)
        self.assertIn("no", str(self.successResultOf(self.all("name"))[2]))

    def test_ends(self) -> None:
        """A worker that ends while it is asked is left out; one that stands still is given up."""

        async def never() -> Any:
            await Deferred()

        for end in self.ends.values():
            end.questions.answer("name", never)
        asking = self.all("name")
        self.links[1].connectionLost(Failure(ConnectionDone()))
        self.assertNoResult(asking)
        self.clock.advance(PATIENCE)
        found = self.successResultOf(asking)
        self.assertEqual(list(found), [2])
        self.assertIsInstance(found[2], Unanswered)

    def test_too_long(self) -> None:
        """A question or an answer that no message can hold is refused, and the link stays."""

        async def answer(*facts: str) -> Any:
            return "x" * LARGEST

        self.ends[1].questions.answer("name", answer)
        for facts in ([], ["x" * LARGEST]):
            asking = self.one("name", *facts)
            self.assertIn("too long", str(self.failureResultOf(asking, Unanswered).value))
        self.assertIsNotNone(self.links[1].transport)

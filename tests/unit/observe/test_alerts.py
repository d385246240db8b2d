"""What is told of, and that it is told once."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.issuing.standing import CertificateStanding
from docxy.daemon.issuing.state import IssuingRecord
from docxy.observe.alerts import AGAIN, MOST, Alerts, Event, EventType
from docxy.observe.exchange import Exchange
from docxy.observe.model import About, ReadModel
from docxy.observe.state import Notes, told


class AlertsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.alerts = Alerts(self.clock.seconds)
        self.events: list[Event] = []
        self.alerts.subscribe(self.events.append)

    def told(self) -> list[str]:
        """What was told since the last look."""
        found, self.events[:] = [f"{event.type.value} {event.subject}" for event in self.events], []
        return found


class TagTests(AlertsCase):
    def moved(self, digest: str | None, tag: str = "t") -> None:
        kind = EventType.TAG_VANISHED if digest is None else EventType.TAG_MOVED
        self.alerts.happened(Event(kind, f"u/r:{tag}", 1000, {"digest": digest}))

    def test_once(self) -> None:
        """What several processes saw of a tag is told once; back and forth are two."""
        for digest in ("a", "a", "b", None, None, "b", "b", "a"):
            self.moved(digest)
        moved, vanished = "tag-moved u/r:t", "tag-vanished u/r:t"
        self.assertEqual(self.told(), [moved, moved, vanished, moved, moved])

    def test_bounded(self) -> None:
        """However many tags move, so many are remembered."""
        for number in range(MOST + 10):
            self.moved("a", str(number))
        self.assertEqual(len(self.alerts._tags), MOST)

    def test_json(self) -> None:
        """An event is the same behind JSON."""
        event = Event(EventType.TAG_MOVED, "u/r:t", 1000, {"digest": "a"})
        self.assertEqual(Event.from_json(event.to_json()), event)


class RecalledTests(AlertsCase):
    def asked(self, reference: str, cache: str = "recalled", status: int = 403) -> None:
        self.alerts.answered(Exchange(1000, 0.1, "manifests", "u", "r", reference, status, cache, client="10.0.0.1"))

    def test_recalled(self) -> None:
        """Who asks for something recalled is told of, once a minute; not who it was; other answers are no event."""
        self.asked("t", "hit", 200)
        self.asked("t")
        self.asked("sha256:00")
        self.assertNotIn("10.0.0.1", repr(self.events))
        self.assertEqual(self.told(), ["recalled-pulled u/r:t", "recalled-pulled u/r@sha256:00"])
        self.asked("t")
        self.assertEqual(self.told(), [])
        self.clock.advance(AGAIN)
        self.asked("t")
        self.assertEqual(self.told(), ["recalled-pulled u/r:t"])

    def test_bounded(self) -> None:
        """However many recalled images are asked for, so many are remembered."""
        for number in range(MOST + 10):
            self.asked(str(number))
        self.assertEqual(len(self.alerts._recalled), MOST)


class ModelCase(SynchronousTestCase):
    """What the read model hears."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        about = About("1", "https://m", 0, "none", ["u"], None, 2)

        def nothing(*_: Any) -> None: ...

        self.model = ReadModel(about, self.clock.seconds, nothing, nothing, hold=0, names=True)
        self.events: list[Event] = []
        self.model.alerts.subscribe(self.events.append)
        self.notes = [Notes(self.clock.seconds), Notes(self.clock.seconds)]
        self.until = [0.0, 0.0]


class UpstreamTests(ModelCase):
    """Of upstreams, from two processes."""

    def tell(self) -> list[str]:
        """Both processes tell how they see it; what is new."""
        for worker, notes in enumerate(self.notes):
            state = told(notes.note("u"), self.clock.seconds(), self.until[worker], 0)
            self.model.sampled(worker, {"fills": [], "upstreams": {"u": state}})
        found, self.events[:] = [event.type.value for event in self.events], []
        return found

    def test_down_and_up(self) -> None:
        """Down once, however many processes back off and however often; up when it answers, not when a pause ends."""
        self.notes[0].answered("u", 200, 0.1)
        self.assertEqual(self.tell(), [])
        for _ in range(3):
            self.clock.advance(10)
            for worker, notes in enumerate(self.notes):
                notes.failed("u", "refused")
                self.until[worker] = self.clock.seconds() + 5
            self.assertEqual(self.tell(), ["upstream-down"] if _ == 0 else [])
            self.clock.advance(6)
            self.assertEqual(self.tell(), [])
        self.notes[1].answered("u", 404, 0.1)
        self.assertEqual(self.tell(), ["upstream-up"])
        self.assertEqual(self.tell(), [])

    def test_kept(self) -> None:
        """What `[[keep]]` keeps and its registry deleted is told once, whoever saw it, and is an error."""
        self.model.gone("u/o/i:v1", "sha256:1")
        seen = {"digest": None, "previous": "sha256:1"}
        self.model.happened(Event(EventType.TAG_VANISHED, "u/o/i:v1", 0.0, seen).to_json())
        self.model.gone("u/o/i@sha256:00", "sha256:00")
        self.assertEqual([event.subject for event in self.events], ["u/o/i:v1", "u/o/i@sha256:00"])
        self.assertEqual({event.type for event in self.events}, {EventType.TAG_VANISHED})
        self.assertEqual(self.events[0].data, seen)
        errors = self.model.snapshot()["errors"]
        self.assertEqual({(each["repository"], each["status"]) for each in errors}, {("o/i", 404)})
        self.assertTrue(any("v1 is gone from u" in each["words"] for each in errors))

    def test_quota(self) -> None:
        """Low once, until there is more again."""
        found = []
        for remaining in (50, 9, 8, 0, 100, 5):
            self.clock.advance(1)
            self.notes[0].answered("u", 200, 0.1)
            self.notes[0].allowed("u", 100, remaining)
            found.append(self.tell())
        low = ["quota-low"]
        self.assertEqual(found, [[], low, [], [], [], low])


class CertificateTests(ModelCase):
    """Of the certificate, from the one process that renews it."""

    def stands(self, failures: int, renews: float | None, worker: int = 0) -> list[str]:
        """How it goes now; what is new."""
        record = IssuingRecord("ACME at ca.example", failures=failures, due=2000, error="refused", failed=900)
        standing = CertificateStanding("ACME at ca.example", ["m.example", "n.example"], renews, record)
        self.model.sampled(worker, {"fills": [], "certificate": standing.to_json(), "at": self.clock.seconds()})
        self.clock.advance(10)
        found, self.events[:] = [event.type.value for event in self.events], []
        return found

    def test_failed(self) -> None:
        """Told once, however often it fails and whichever process says so, and that it was renewed after that."""
        self.assertEqual(self.stands(0, None), [])
        self.assertEqual(self.stands(0, 5000), [])
        self.assertEqual(self.stands(1, 5000), ["renewal-failed"])
        self.assertEqual(self.stands(2, 5000), [])
        self.model.sampled(1, {"fills": []})
        # The process is started again, and does not know yet how it stands.
        self.model.forget(0)
        self.assertEqual(self.stands(0, None), [])
        self.assertEqual(self.stands(2, None), [])
        self.assertEqual(self.stands(0, 6000), ["renewed"])
        self.assertEqual(self.stands(0, 6000), [])
        self.assertEqual(self.stands(1, 6000), ["renewal-failed"])

    def test_data(self) -> None:
        """It names what the certificate is for, who refused it and why, and when docxy tries again."""
        record = IssuingRecord("s", failures=1, due=2000, error="refused", failed=900)
        self.model.sampled(
            0, {"fills": [], "certificate": CertificateStanding("s", ["m.example"], None, record).to_json()}
        )
        (event,) = self.events
        self.assertEqual(event.subject, "m.example")
        self.assertEqual(event.data, {"names": ["m.example"], "source": "s", "error": "refused", "next": 2000})

"""Events on their way to receivers: real servers on loopback, with failures; pauses by a clock that tests move."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from docxy.daemon.webhooks import ATTEMPTS, LONGEST_PAUSE, MOST, Outbox, Webhooks, signature
from docxy.observe.alerts import Event, EventType
from docxy.settings.model import Webhook
from docxy.settings.webhooks import EVENTS
from tests.harness.certificates import issue

reactor: Any = _reactor
SECRET = b"0123456789abcdef01234567"
EVENT = Event(EventType.TAG_MOVED, "docker.io/library/alpine:latest", 1_800_000_000.5, {"digest": "sha256:00"})


class Receiver(Resource):
    """Notes what is posted, and answers as it is told to."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.got: DeferredQueue[tuple[dict[str, str], bytes]] = DeferredQueue()
        self.answers: list[int | None] = []
        """Of the next requests; None: the connection is cut; -1: never; 200 where there is none."""

    def render_POST(self, request: Request) -> Any:
        assert request.content is not None
        names = ("content-type", "webhook-id", "webhook-timestamp", "webhook-signature")
        self.got.put(({name: request.getHeader(name) or "" for name in names}, request.content.read()))
        status = self.answers.pop(0) if self.answers else 200
        if status is None:
            assert request.channel is not None
            request.channel.forceAbortClient()
        if status is None or status < 0:
            return NOT_DONE_YET
        request.setResponseCode(status)
        if 300 <= status < 400:
            request.setHeader("Location", "http://127.0.0.1:1/elsewhere")
        return b"thanks"


@implementer(ILogObserver)
class Told(list[str]):
    def __call__(self, event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("docxy"):
            self.append(formatEvent(event))


class WebhookCase(TestCase):
    timeout = 30
    tls = False

    def setUp(self) -> None:
        self.receiver = Receiver()
        site = Site(self.receiver)
        site.noisy = False
        self.authorities: bytes | None = None
        if self.tls:
            issued = issue("localhost")
            pair = PrivateCertificate.loadPEM(issued.pem + issued.key_pem())
            port = reactor.listenSSL(0, site, pair.options(), interface="127.0.0.1")
            self.authorities = issued.pem
        else:
            port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http{'s' if self.tls else ''}://localhost:{port.getHost().port}/hook/t0ken?x=1"
        self.clock = Clock()
        self.counts: list[str] = []
        self.waiting: list[tuple[str, Deferred[None]]] = []
        self.log = Told()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def counted(self, outcome: str) -> None:
        self.counts.append(outcome)
        for each in [each for each in self.waiting if each[0] == outcome]:
            self.waiting.remove(each)
            # The pause begins when what counted has returned.
            reactor.callLater(0, each[1].callback, None)

    def next(self, outcome: str) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.waiting.append((outcome, waiting))
        return waiting

    def webhook(self, **changed: Any) -> Webhook:
        settings: dict[str, Any] = {
            "url": self.url,
            "secret": SECRET,
            "events": EVENTS,
            "authorities": self.authorities,
            **changed,
        }
        return Webhook(**settings)

    def made(self, webhook: Webhook) -> Outbox:
        box = Outbox(webhook, "https://mirror.test", self.counted, lambda: 1_800_000_001.0, self.clock, reactor)
        self.addCleanup(box.stop, "the test is over")
        return box

    def outbox(self, **changed: Any) -> Outbox:
        return self.made(self.webhook(**changed))


class DeliveryTests(WebhookCase):
    async def test_event(self) -> None:
        """An event is a CloudEvent in JSON, signed over its id, the time and its bytes."""
        delivered = self.next("delivered")
        self.outbox().put(EVENT)
        headers, body = await self.receiver.got.get()
        await delivered
        event = json.loads(body)
        self.assertEqual(headers["content-type"], "application/cloudevents+json; charset=utf-8")
        self.assertEqual(event.pop("id"), headers["webhook-id"])
        self.assertEqual(
            event,
            {
                "specversion": "1.0",
                "source": "https://mirror.test",
                "type": "docxy.tag-moved",
                "subject": "docker.io/library/alpine:latest",
                "time": "2027-01-15T08:00:00.500Z",
                "datacontenttype": "application/json",
                "data": {"digest": "sha256:00"},
            },
        )
        signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
        expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        self.assertEqual(headers["webhook-signature"], f"v1,{expected}")
        self.assertEqual(headers["webhook-timestamp"], "1800000001")

    def test_signature(self) -> None:
        """The example of the Standard Webhooks' own tests."""
        secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
        self.assertEqual(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")

    async def test_only_what_is_wanted(self) -> None:
        """A receiver gets the events that it names."""
        box = self.outbox(events=("quota-low",))
        box.put(EVENT)
        delivered = self.next("delivered")
        box.put(Event(EventType.QUOTA_LOW, "docker.io", 1.0))
        _, body = await self.receiver.got.get()
        await delivered
        self.assertEqual(json.loads(body)["type"], "docxy.quota-low")
        self.assertEqual(self.counts, ["delivered"])

    async def test_again(self) -> None:
        """Whatever fails is sent again, later each time, with the same id; redirects are not followed."""
        self.receiver.answers = [500, None, 302, 429]
        box = self.outbox()
        seen = []
        for pause in (1, 4, 16, 64):
            failed = self.next("failed")
            if pause == 1:
                box.put(EVENT)
            await failed
            seen.append(await self.receiver.got.get())
            self.clock.advance(pause - 0.1)
            self.assertEqual(len(self.receiver.got.pending), 0)
            delivered = self.next("delivered")
            self.clock.advance(0.1)
        seen.append(await self.receiver.got.get())
        await delivered
        self.assertEqual(len({headers["webhook-id"] for headers, _ in seen}), 1)
        self.assertEqual(self.counts, ["failed"] * 4 + ["delivered"])

    async def test_given_up(self) -> None:
        """After so many attempts an event is dropped, which the log says without the URL; the next one has its turn."""
        self.receiver.answers = [503] * ATTEMPTS
        box = self.outbox()
        box.put(EVENT)
        box.put(Event(EventType.QUOTA_LOW, "docker.io", 1.0))
        delivered, dropped = self.next("delivered"), self.next("dropped")
        for _ in range(ATTEMPTS):
            await self.receiver.got.get()
            if len(self.counts) < ATTEMPTS - 1:
                await self.failed_once()
                self.clock.advance(LONGEST_PAUSE)
        await dropped
        await delivered
        _, body = await self.receiver.got.get()
        self.assertEqual(json.loads(body)["type"], "docxy.quota-low")
        self.assertEqual(self.counts, ["failed"] * ATTEMPTS + ["dropped", "delivered"])
        text = "\n".join(self.log)
        self.assertIn(f"after {ATTEMPTS} attempts: it answered 503", text)
        self.assertNotIn("t0ken", text)

    async def failed_once(self) -> None:
        """Returns once the pause after an attempt has begun."""
        while not self.clock.getDelayedCalls():
            await self.next("failed")

    async def test_gone(self) -> None:
        """410 ends the attempts at once."""
        self.receiver.answers = [410]
        dropped = self.next("dropped")
        self.outbox().put(EVENT)
        await dropped
        self.assertIn("410", "\n".join(self.log))

    async def test_bounded(self) -> None:
        """However many events there are, so many wait; the oldest go, and the log says so."""
        self.receiver.answers = [-1]
        box = self.outbox()
        for _ in range(MOST + 3):
            box.put(EVENT)
        self.assertEqual(len(box._waiting), MOST)
        self.assertEqual(self.counts, ["dropped"] * 3)
        await self.receiver.got.get()

    async def test_stop(self) -> None:
        """At the stop what is under way ends, and what was not told is told of."""
        self.receiver.answers = [-1]
        all_of_them = Webhooks(self.made, [self.webhook()])
        all_of_them.put(EVENT)
        await self.receiver.got.get()
        all_of_them.stop()
        self.assertEqual(self.counts, ["dropped"])
        self.assertIn("1 events were not told to localhost", "\n".join(self.log))


class TakenUpTests(WebhookCase):
    """Other receivers, while events wait."""

    async def test_changed(self) -> None:
        """For a URL that stays what waits is sent on, signed with the secret of now; its kinds are those of now."""
        self.receiver.answers = [401]
        all_of_them = Webhooks(self.made, [self.webhook(secret=b"x" * 24)])
        failed = self.next("failed")
        all_of_them.put(EVENT)
        (first, _) = await self.receiver.got.get()
        await failed
        all_of_them.take_up([self.webhook(events=("quota-low",))])
        all_of_them.put(EVENT)
        delivered = self.next("delivered")
        self.clock.advance(1)
        headers, body = await self.receiver.got.get()
        await delivered
        self.assertEqual(headers["webhook-id"], first["webhook-id"])
        signed = signature(SECRET, headers["webhook-id"], headers["webhook-timestamp"], body)
        self.assertEqual(headers["webhook-signature"], signed)
        self.assertEqual(self.counts, ["failed", "delivered"])

    async def test_gone(self) -> None:
        """One that is named no more gets nothing more, which the log says; a new one gets what happens from now on."""
        self.receiver.answers = [-1]
        all_of_them = Webhooks(self.made, [self.webhook()])
        all_of_them.put(EVENT)
        await self.receiver.got.get()
        all_of_them.take_up([self.webhook(url=self.url + "&new")])
        self.assertEqual(self.counts, ["dropped"])
        self.assertIn("1 events were not told to localhost", "\n".join(self.log))
        self.assertIn("it is no receiver any more", "\n".join(self.log))
        delivered = self.next("delivered")
        all_of_them.put(EVENT)
        await delivered
        all_of_them.take_up([])
        all_of_them.put(EVENT)
        self.assertEqual(self.counts, ["dropped", "delivered"])


class TLSTests(WebhookCase):
    tls = True

    async def test_verified(self) -> None:
        """A receiver whose certificate is for its name and trusted gets its events."""
        delivered = self.next("delivered")
        self.outbox().put(EVENT)
        await delivered
        self.assertEqual(len((await self.receiver.got.get())[1]) > 0, True)

    async def test_untrusted(self) -> None:
        """One with another certificate gets none."""
        for changed in ({"authorities": None}, {"url": self.url.replace("localhost", "127.0.0.1")}):
            failed = self.next("failed")
            self.outbox(**changed).put(EVENT)
            await failed
        self.assertEqual(len(self.receiver.got.pending), 0)
        self.assertIn("its certificate", "\n".join(self.log))


class RefusedTests(WebhookCase):
    async def test_nobody_there(self) -> None:
        """A receiver that cannot be reached is a failed attempt."""
        failed = self.next("failed")
        self.outbox(url="http://127.0.0.1:1/").put(EVENT)
        await failed
        self.assertEqual(self.counts, ["failed"])

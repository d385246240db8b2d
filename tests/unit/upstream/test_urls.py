"""URLs reach the wire as they were written."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from docxy.errors import UpstreamError
from docxy.observe.metrics import NoMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import NoTracer
from docxy.settings.model import Timeouts
from docxy.upstream.fetch import Fetcher, origin


@implementer(IResponse)
class Redirect:
    """An answer that leads on."""

    version = (b"HTTP", 1, 1)
    code = 307
    phrase = b"Temporary Redirect"
    length = 0
    request = previousResponse = None

    def __init__(self, location: str) -> None:
        self.headers = Headers({"Location": [location]})

    def deliverBody(self, protocol: Any) -> None:
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: Any) -> None:
        raise AssertionError("nobody needs this")


@implementer(IAgent)
class Recorder:
    """Notes what is asked for; answers with what it was given, then not at all."""

    def __init__(self, *answers: Redirect) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        self.asked.append(uri.decode("ascii"))
        return succeed(self._answers.pop(0)) if self._answers else fail(RuntimeError())


class WrittenTests(SynchronousTestCase):
    def asked(self, url: str, *answers: Redirect) -> list[str]:
        recorder = Recorder(*answers)
        fetcher = Fetcher(recorder, Clock(), Timeouts(), "docker.io", NoMeter(), Notes(Clock().seconds), NoTracer(), ())
        self.failureResultOf(Deferred.fromCoroutine(fetcher.request("GET", url, Headers())), UpstreamError)
        return recorder.asked

    def test_as_written(self) -> None:
        """Neither a signature's encoding nor an empty value nor an IPv6 address is changed."""
        for url in (
            "https://cdn.example/a%2fb?sig=a%2Bb%2f&e=&f&x=%7e~&a+b=c%20d",
            "http://[::1]:5000/v2/",
            "https://cdn.example/blob?b=c=d;e",
        ):
            self.assertEqual(self.asked(url), [url])
            self.assertEqual(
                self.asked("https://registry.example/", Redirect(url))[1:], [url] if "https" in url else []
            )

    def test_as_read(self) -> None:
        """A Location that is written as people read it is encoded."""
        asked = self.asked("https://registry.example/", Redirect("https://cdn.example/bl\u00f6b?a=b c%20d"))
        self.assertEqual(asked[1:], ["https://cdn.example/bl%C3%B6b?a=b%20c%20d"])

    def test_origin(self) -> None:
        """An origin is told so that it can be read."""
        self.assertEqual(origin("https://Mirror.Example/v2/?a=b"), "https://mirror.example:443")
        self.assertEqual(origin("http://[::1]:5000/v2/"), "http://[::1]:5000")

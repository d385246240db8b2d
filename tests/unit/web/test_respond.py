"""From coroutine to response: every request is answered exactly once, or its connection cut."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from docxy.errors import BlobUnknown, TooManyRequests, UpstreamError
from docxy.web.request import API_VERSION, Request
from docxy.web.respond import respond
from tests.harness.built import open_site

Work = Callable[[Request], Coroutine[Any, Any, None]]


class Leaf(Resource):
    """Answers every request by `work`."""

    isLeaf = True

    def __init__(self, work: Work) -> None:
        Resource.__init__(self)
        self._work = work

    def render(self, request: Any) -> int:
        return respond(request, self._work(request))


class RespondTests(SynchronousTestCase):
    def connect(self, work: Work, method: str = "GET") -> tuple[Any, StringTransport]:
        """A channel that has received one request, and its transport."""
        site: Any = open_site(Leaf(work))
        site.reactor = MemoryReactorClock()
        channel: Any = site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(f"{method} /v2/x?sesame HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return channel, transport

    def answer(self, work: Work, method: str = "GET") -> tuple[int, str, bytes]:
        """Status, head and body."""
        _, transport = self.connect(work, method)
        head, _, body = transport.value().partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), head.decode().lower(), body

    def test_error(self) -> None:
        """An error is its status, its code's JSON and its headers, and nothing of what was to be said before."""

        async def fail(request: Request) -> None:
            request.start(206, [("Content-Range", "bytes 0-1/2"), ("ETag", '"x"')], 2)
            raise TooManyRequests("slow down", headers=(("Retry-After", "5"),))

        status, head, body = self.answer(fail)
        self.assertEqual((status, body), (429, TooManyRequests("slow down").body()))
        self.assertIn("retry-after: 5", head)
        self.assertIn(f"content-length: {len(body)}", head)
        self.assertNotIn("content-range", head)
        self.assertNotIn("etag", head)

    def test_head(self) -> None:
        """HEAD has the error's length and not its body."""

        async def fail(request: Request) -> None:
            raise BlobUnknown("gone")

        status, head, body = self.answer(fail, "HEAD")
        self.assertEqual((status, body), (404, b""))
        self.assertIn(f"content-length: {len(BlobUnknown('gone').body())}", head)

    def test_bug(self) -> None:
        """A bug is a 500 that tells the client nothing of it, and a traceback in the log."""

        async def fail(request: Request) -> None:
            raise LookupError("sesame")

        status, _, body = self.answer(fail)
        self.assertEqual(status, 500)
        self.assertIn(b'"UNKNOWN"', body)
        self.assertNotIn(b"sesame", body)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_error_in_the_body(self) -> None:
        """What fails once bytes were sent cuts the connection: no error is written behind them."""

        async def fail(request: Request) -> None:
            request.start(200, [], 10)
            request.write(b"12345")
            raise UpstreamError("broke off")

        _, transport = self.connect(fail)
        self.assertTrue(transport.disconnected)
        self.assertTrue(transport.value().endswith(b"12345"))

    def test_client_gone(self) -> None:
        """A client that goes away cancels the work, and nobody is answered."""
        cancelled: list[object] = []

        async def wait(request: Request) -> None:
            await Deferred(cancelled.append)

        channel, transport = self.connect(wait)
        channel.connectionLost(_lost())
        self.assertEqual((len(cancelled), transport.value()), (1, b""))

    def test_bug_after_the_client_is_gone(self) -> None:
        """A bug is logged though nobody waits any more."""

        async def wait(request: Request) -> None:
            try:
                await Deferred()
            finally:
                raise LookupError

        channel, _ = self.connect(wait)
        channel.connectionLost(_lost())
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_reply(self) -> None:
        """A reply says the version of the API and its length; several values of a header are kept."""

        async def answer(request: Request) -> None:
            request.answer(200, [API_VERSION, ("Link", "a"), ("Link", "b")], b"{}")

        status, head, body = self.answer(answer)
        self.assertEqual((status, body), (200, b"{}"))
        for line in ("content-length: 2", "link: a", "link: b", "docker-distribution-api-version: registry/2.0"):
            self.assertIn(line, head)


def _lost() -> Any:

    return Failure(ConnectionLost())

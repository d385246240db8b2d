"""One exchange with an upstream: redirects, secrets, timeouts; https and other hosts without a network."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers

from docxy.errors import UpstreamError, UpstreamTimeout
from docxy.observe.metrics import NoMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import NoTracer
from docxy.settings.model import Timeouts
from docxy.upstream.fetch import MAX_HOPS, Fetcher, origin
from docxy.upstream.response import Response
from tests.unit.upstream.scripted import Answer, Asked, Scripted, ScriptedAgent

URL = "https://registry.test/v2/a/blobs/x"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.routes: dict[str, Answer] = {}
        self.agent = ScriptedAgent(self.answer)
        self.fetcher = Fetcher(
            self.agent,
            self.clock,
            Timeouts(headers=25.0),
            "docker.io",
            NoMeter(),
            Notes(self.clock.seconds),
            NoTracer(),
            (),
        )

    def answer(self, asked: Asked) -> Answer:
        return self.routes.get(asked.url, Scripted(body=b"there"))

    def start(self, url: str = URL, method: str = "GET", **options: Any) -> Deferred[Response]:
        headers = Headers({"Authorization": ["Bearer sesame"], "Range": ["bytes=1-2"]})
        return Deferred.fromCoroutine(self.fetcher.request(method, url, headers, **options))

    def get(self, url: str = URL, **options: Any) -> Response:
        return self.successResultOf(self.start(url, **options))

    def redirect(self, url: str, location: str, status: int = 307) -> None:
        self.routes[url] = Scripted(status, {"Location": location}, b"moved")

    def told(self) -> list[tuple[str, bool]]:
        """Each request's URL, and whether it was told the token."""
        return [(asked.url, asked.header("Authorization") is not None) for asked in self.agent.asked]


class RedirectTests(Case):
    def test_same_origin(self) -> None:
        """Within one origin, the port said or not, Authorization stays; Range stays everywhere."""
        for number, location in enumerate(
            ("/b", "https://registry.test/b", "https://REGISTRY.test:443/b", "../b", "?q")
        ):
            url = f"{URL}{number}"
            self.redirect(url, location)
            self.get(url)
            self.assertEqual(self.agent.asked[-1].header("Authorization"), "Bearer sesame", location)
            self.assertEqual(self.agent.asked[-1].header("Range"), "bytes=1-2")

    def test_other_origins(self) -> None:
        """Another host, port or subdomain is not told, whatever the redirect's status."""
        for status in (301, 302, 303, 307, 308):
            for location in (
                "https://cdn.test/x",
                "https://registry.test:8443/x",
                "https://a.registry.test/x",
                "//cdn.test/x",
                "https://registry.test@evil.test/x",
                "https://registry.test.evil.test/x",
            ):
                self.agent.asked.clear()
                self.redirect(URL, location, status)
                self.get()
                self.assertEqual([secret for _, secret in self.told()], [True, False], (status, location))
                self.assertEqual(self.agent.asked[-1].header("Range"), "bytes=1-2")

    def test_back(self) -> None:
        """What was dropped on the way stays so when the way leads back."""
        self.redirect(URL, "https://cdn.test/x")
        self.redirect("https://cdn.test/x", "https://registry.test/y")
        self.get()
        self.assertEqual(self.told()[-1], ("https://registry.test/y", False))

    def test_relative_to_the_last_hop(self) -> None:
        """A relative Location counts from the URL that sent it."""
        self.redirect(URL, "https://cdn.test/a/b/c")
        self.redirect("https://cdn.test/a/b/c", "../d?e=f")
        self.get()
        self.assertEqual(self.told()[-1], ("https://cdn.test/a/d?e=f", False))

    def test_query_is_kept(self) -> None:
        """A signed query goes on as it stands: order, escapes and their case."""
        signed = "https://cdn.test/x?b=%2F%2b%3d~&a=1+2%20&c&X=a%7eb"
        self.redirect(URL, signed)
        self.get()
        self.assertEqual(self.told()[-1][0], signed)

    def test_downgrade(self) -> None:
        """From https to plain http is refused, at any hop, and nothing is sent there; http to https is fine."""
        self.redirect(URL, "https://cdn.test/x")
        self.redirect("https://cdn.test/x", "http://cdn.test/x?sig=sesame")
        error = self.failureResultOf(self.start(), UpstreamError).value
        self.assertIn("from https to plain http (http://cdn.test:80); refused", str(error))
        self.assertNotIn("sesame", str(error))
        self.assertEqual(len(self.agent.asked), 2)
        self.redirect("http://registry.test/x", "https://registry.test/x")
        self.get("http://registry.test/x")
        self.assertEqual(self.told()[-1], ("https://registry.test/x", False))

    def test_hops(self) -> None:
        """So many hops are followed, and one more is not."""
        for hop in range(MAX_HOPS):
            self.redirect(f"https://registry.test/{hop}", f"/{hop + 1}")
        self.assertEqual(self.get("https://registry.test/0").status, 200)
        self.redirect(f"https://registry.test/{MAX_HOPS}", "/more")
        self.failureResultOf(self.start("https://registry.test/0"), UpstreamError)

    def test_not_followed(self) -> None:
        """A request that must not be redirected is not; 304 and 300 never are."""
        self.redirect(URL, "https://evil.test/")
        self.assertEqual(self.get(follow=False).status, 307)
        for status in (300, 304):
            self.redirect(URL, "https://evil.test/", status)
            self.assertEqual(self.get().status, status)
        self.assertEqual({url for url, _ in self.told()}, {URL})

    def test_method_stays(self) -> None:
        """HEAD stays HEAD."""
        self.redirect(URL, "/b", 303)
        self.successResultOf(self.start(method="HEAD"))
        self.assertEqual([asked.method for asked in self.agent.asked], ["HEAD", "HEAD"])

    def test_bodies_are_taken(self) -> None:
        """The body of a redirect is read, so that its connection can be used again; a large one is not."""
        self.routes[URL] = small = Scripted(307, {"Location": "/b"}, b"moved")
        self.get()
        self.assertEqual(small.transport.stopped, 0)
        self.routes[URL] = large = Scripted(307, {"Location": "/b"}, b"x" * 1_000_000, stalls=True)
        waiting = self.start()
        self.assertNoResult(waiting)
        self.clock.advance(60)
        self.successResultOf(waiting)
        self.assertEqual(large.transport.stopped, 1)


class ExchangeTests(Case):
    def test_identity(self) -> None:
        """Bytes are asked for and taken as they are, whatever encoding the answer claims: the digest decides."""
        self.get()
        self.assertEqual(self.agent.asked[0].header("Accept-Encoding"), "identity")
        for encoding in ("gzip", "x-gzip", "zstd", "gzip, identity", "aws-chunked", "utf-8", "identity", "none", ""):
            self.routes[URL] = Scripted(fields={"Content-Encoding": encoding}, body=b"x")
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.get().read(1))), b"x", encoding)

    def test_retry_after(self) -> None:
        """Seconds as they are, a date as the seconds to it by the upstream's own clock, nothing of anything else."""
        date = "Thu, 01 Jan 2026 00:00:00 GMT"
        for fields, expected in (
            ({"Retry-After": "7"}, "7"),
            ({"Retry-After": "Thu, 01 Jan 2026 00:02:00 GMT", "Date": date}, "120"),
            ({"Retry-After": "Wed, 31 Dec 2025 00:00:00 GMT", "Date": date}, "0"),
            ({"Retry-After": "Thu, 01 Jan 2026 00:02:00 GMT"}, None),
            ({"Retry-After": "Thu, 01 Jan 2026 00:02:00", "Date": date}, None),
            ({"Retry-After": "soon", "Date": date}, None),
            ({"Retry-After": "-5", "Date": date}, None),
            ({"Retry-After": ""}, None),
            ({}, None),
        ):
            self.routes[URL] = Scripted(fields=dict(fields))
            self.assertEqual(dict(self.get().retry_after).get("Retry-After"), expected, fields)

    def test_headers_timeout(self) -> None:
        """An upstream that does not answer in time is given up, with its name and without its query."""
        self.routes[URL + "?sesame"] = None
        waiting = self.start(URL + "?sesame")
        self.clock.advance(24.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        error = self.failureResultOf(waiting, UpstreamTimeout).value
        self.assertEqual(str(error), "https://registry.test:443 did not answer within 25 s")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_hop_has_its_time(self) -> None:
        """A redirect's target has the whole time again."""
        self.redirect(URL, "/b")
        self.routes["https://registry.test/b"] = None
        waiting = self.start()
        self.clock.advance(24.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.failureResultOf(waiting, UpstreamTimeout)

    def test_failures(self) -> None:
        """Whatever goes wrong names the origin, and holds neither query nor token."""
        for error, kind in (
            (ConnectionRefusedError("refused"), UpstreamError),
            (ConnectError(), UpstreamError),
            (TimeoutError(), UpstreamTimeout),
            (DNSLookupError("no such host sesame"), UpstreamError),
            (ResponseFailed([Failure(ConnectError())]), UpstreamError),
            (ResponseNeverReceived([Failure(ConnectError())]), UpstreamError),
            (ValueError(f"cannot parse {URL}?sesame"), UpstreamError),
        ):
            self.routes[URL + "?sesame"] = error
            told = self.failureResultOf(self.start(URL + "?sesame"), kind).value
            self.assertIn("https://registry.test:443", str(told))
            self.assertNotIn("sesame", str(told))

    def test_headers_that_are_no_text(self) -> None:
        """Bytes that are no UTF-8 in an upstream's header are no failure of ours."""
        self.routes[URL] = Scripted(fields={"X": b"a\xff"})
        self.assertEqual(self.get().header("X"), "a\ufffd")

    def test_length(self) -> None:
        """A HEAD's length is that of the GET it stands for; nonsense is none."""
        for told, length in (("5", 5), ("", None), ("-1", None), ("x", None), (b"\xb2", None)):
            self.routes[URL] = Scripted(fields={"Content-Length": told})
            self.assertEqual(self.successResultOf(self.start(method="HEAD")).length, length, told)
        self.routes[URL] = Scripted(body=b"four")
        self.assertEqual(self.get().length, 4)
        self.routes[URL] = Scripted(stalls=True)
        self.assertIsNone(self.get().length)

    def test_cookies(self) -> None:
        """Cookies are not kept."""
        self.routes[URL] = Scripted(fields={"Set-Cookie": "a=b; Path=/"})
        self.get()
        self.get()
        self.assertIsNone(self.agent.asked[1].header("Cookie"))

    def test_caller_headers_are_its_own(self) -> None:
        """The headers that were passed in are as they were, after a redirect too."""
        headers = Headers({"Authorization": ["Bearer sesame"]})
        self.redirect(URL, "https://cdn.test/x")
        self.successResultOf(Deferred.fromCoroutine(self.fetcher.request("GET", URL, headers)))
        self.assertEqual(headers, Headers({"Authorization": ["Bearer sesame"]}))


class ResponseTests(Case):
    def test_abandon(self) -> None:
        """An abandoned body is stopped, read or not."""
        for touched in (False, True):
            self.routes[URL] = scripted = Scripted(stalls=True)
            response = self.get()
            if touched:
                response.body()
            response.abandon()
            self.assertEqual(scripted.transport.stopped, 1)

    def test_drain(self) -> None:
        """A small body is read to its end; one that breaks is no error any more."""
        self.routes[URL] = scripted = Scripted(body=b"x" * 1000)
        self.successResultOf(Deferred.fromCoroutine(self.get().drain()))
        self.assertEqual(scripted.transport.stopped, 0)
        self.routes[URL] = Scripted(stalls=True)
        draining = Deferred.fromCoroutine(self.get().drain())
        self.clock.advance(60)
        self.successResultOf(draining)

    def test_read(self) -> None:
        """The whole body, up to a limit."""
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.get().read(5))), b"there")
        self.failureResultOf(Deferred.fromCoroutine(self.get().read(4)), UpstreamError)


class OriginTests(SynchronousTestCase):
    def test_origin(self) -> None:
        """Scheme, host and port, without user, path and query."""
        for url, expected in (
            ("https://A.test/x?y", "https://a.test:443"),
            ("http://a.test", "http://a.test:80"),
            ("http://u:p@a.test:81/", "http://a.test:81"),
            ("https://[::1]:5000/", "https://[::1]:5000"),
        ):
            self.assertEqual(origin(url), expected)

"""The redirect-only port: where a request is sent, and that nobody else can choose it."""

from __future__ import annotations

from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from docxy.web.channel import MAX_URI
from docxy.web.redirect import HTTPSRedirect, location
from tests.unit.web.exchange import exchange

PUBLIC = "https://mirror.example:8443"


class RedirectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = HTTPSRedirect(PUBLIC)

    def test_methods(self) -> None:
        """301 for GET and HEAD, 308 for everything else, and no body for any."""
        for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS"):
            answer = exchange(self.root, method, b"/v2/?a=b", body=b"" if method in (b"GET", b"HEAD") else b"x")
            self.assertEqual(answer.status, 301 if method in (b"GET", b"HEAD") else 308)
            self.assertEqual(answer.headers["location"], f"{PUBLIC}/v2/?a=b")
            self.assertEqual((answer.headers["content-length"], answer.body), ("0", b""))
            self.assertNotIn("content-type", answer.headers)

    def test_host_header_says_nothing(self) -> None:
        """The target is the public URL, whatever Host the client sends."""
        for host in (b"evil.example", b"evil.example:80", b""):
            self.assertEqual(exchange(self.root, b"GET", b"/", host=host).headers["location"], f"{PUBLIC}/")

    def test_everything_is_redirected(self) -> None:
        """No path is special, /health and the token endpoint neither."""
        for path in (b"/", b"/health", b"/auth/token", b"/v2/library/alpine/manifests/latest"):
            self.assertEqual(exchange(self.root, b"GET", path).headers["location"], PUBLIC + path.decode())

    def test_not_a_path(self) -> None:
        """What would be glued to the host's name is refused without a Location."""
        for uri in (b".evil.example/", b"@evil.example/", b"evil.example:443"):
            answer = exchange(self.root, b"GET", uri)
            self.assertEqual(answer.status, 400, uri)
            self.assertNotIn("location", answer.headers)


class LocationTests(SynchronousTestCase):
    def test_path_and_query_are_kept(self) -> None:
        """Byte for byte, with what is encoded left encoded."""
        for uri in (
            b"/v2/a/b/manifests/sha256:0123?ns=docker.io&x=%2F+y",
            b"/v2/%2e%2e/x",
            b"/?next=https://evil.example/",
            b"//evil.example/x",
            b"/a//b/../c",
        ):
            self.assertEqual(location(PUBLIC, uri), PUBLIC + uri.decode())

    def test_absolute_form(self) -> None:
        """Of an absolute URI only path and query count."""
        for uri, wanted in (
            (b"http://evil.example/v2/?a", "/v2/?a"),
            (b"https://user@evil.example:99", "/"),
            (b"http://evil.example?x", "/?x"),
            (b"http:///x", "/x"),
        ):
            self.assertEqual(location(PUBLIC, uri), PUBLIC + wanted)

    def test_public_url_with_a_path(self) -> None:
        """The path of the public URL goes in front."""
        self.assertEqual(location("https://mirror.example/hub", b"/v2/"), "https://mirror.example/hub/v2/")

    def test_never_another_host(self) -> None:
        """Whatever the URI, the target's authority is ours, and it holds nothing that ends a header."""
        hostile = [
            b"//evil.example",
            b"/\\evil.example",
            b"\\\\evil.example",
            b"/\r\nSet-Cookie: a=b",
            b"/\n",
            b"/\x00\x7f\xff",
            b"/%0d%0aX:y",
            b"http://evil.example\\@x/",
            b"http://evil.example\r\n/",
            b"///evil.example",
            b"/@evil.example",
            b"@evil.example",
            b":99/",
            b"",
            b"/#@evil.example",
            b"/" + b"a" * MAX_URI,
            "/ü".encode(),
        ]
        for uri in hostile:
            target = location(PUBLIC, uri)
            if target is not None:
                self.assertEqual(urlsplit(target).netloc, "mirror.example:8443", uri)
                self.assertRegex(target, r"\A[!-~]+\Z")
                self.assertNotIn("\\", target)
        self.assertIsNone(location(PUBLIC, b"/" + b"a" * MAX_URI))
        self.assertEqual(location(PUBLIC, b"/\r\nX: y"), f"{PUBLIC}/%0D%0AX:%20y")

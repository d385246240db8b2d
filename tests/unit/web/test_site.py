"""The HTTP server itself: connections that serve several requests, and clients that send what they should not."""

from __future__ import annotations

import os
import re
import tempfile
from typing import Any

from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from docxy.settings.model import AuthMode
from docxy.web.channel import HEAD_WITHIN, IDLE, MAX_BODY
from tests.fakes import Fault
from tests.harness.built import open_site
from tests.harness.mirror import BLOB, NAME, SHA, RegistryCase


class ConnectionTests(RegistryCase):
    async def test_phrases(self) -> None:
        """Every status has its phrase: clients show `429 Too Many Requests` to people."""
        lines = {503: b"503 Service Unavailable", 404: b"404 Not Found", 429: b"429 Too Many Requests"}
        for status, line in lines.items():
            self.upstream.on("tags", Fault(status=status))
            connection = await self.raw()
            connection.send(f"GET /v2/{NAME}/tags/list HTTP/1.1\nHost: x\n\n")
            await connection.until(b"\r\n")
            self.assertTrue(connection.received.startswith(b"HTTP/1.1 " + line + b"\r\n"), connection.received)

    async def test_keep_alive(self) -> None:
        """After each kind of answer the connection serves the next: nothing is sent too little or too much."""
        blob = f"/v2/{NAME}/blobs/{self.digest}"
        manifest = f"/v2/{NAME}/manifests/latest"
        requests = [
            ("GET", "/v2/", "", 200, b"{}"),
            ("GET", blob, "", 200, BLOB),
            ("HEAD", blob, "", 200, b""),
            ("GET", blob, "Range: bytes=5-9\n", 206, BLOB[5:10]),
            ("GET", blob, "Range: bytes=99999-\n", 416, None),
            ("GET", blob, f'If-None-Match: "{self.digest}"\n', 304, b""),
            ("GET", manifest, f'If-None-Match: "{self.image}"\n', 304, b""),
            ("HEAD", manifest, "", 200, b""),
            ("GET", f"/v2/{NAME}/blobs/{SHA}", "", 404, None),
            ("HEAD", f"/v2/{NAME}/blobs/{SHA}", "", 404, b""),
            ("POST", blob, "Content-Length: 3\n", 405, None),
            ("GET", f"/v2/{NAME}/tags/list", "", 200, None),
            ("HEAD", f"/v2/{NAME}/tags/list", "", 200, b""),
            ("GET", "/nothing", "", 404, None),
            ("GET", "/health", "", 200, None),
            ("HEAD", "/health", "", 200, b""),
            ("GET", "/auth/token", "", 200, None),
        ]
        # Each answer alone, to know its length.
        connection = await self.raw()
        for number, (method, path, headers, status, body) in enumerate(requests, 1):
            connection.received = b""
            content = "abc" if method == "POST" else ""
            connection.send(f"{method} {path} HTTP/1.1\nHost: x\n{headers}\n{content}")
            await connection.until(b"\r\n\r\n")
            head, _, rest = connection.received.partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), (number, head))
            length = 0
            if method != "HEAD" and status != 304:
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(rest) < length:
                await connection.until(b"", len(connection.received) + 2)
                rest = connection.received.partition(b"\r\n\r\n")[2]
            self.assertEqual(len(rest), length, (number, rest[:100]))
            if body is not None:
                self.assertEqual(rest, body)
        self.assertIsNone(connection.reason)

    async def test_pipelined(self) -> None:
        """Requests that are sent at once are answered in their order, large bodies among them."""
        connection = await self.raw()
        paths = [f"/v2/{NAME}/blobs/{self.digest}", "/v2/", f"/v2/{NAME}/manifests/none", self.manifest_path] * 3
        connection.send("".join(f"GET {path} HTTP/1.1\nHost: x\n\n" for path in paths))
        connection.send("GET /last HTTP/1.1\nHost: x\nConnection: close\n\n")
        await connection.lost
        statuses = [int(part[:3]) for part in connection.received.split(b"HTTP/1.1 ")[1:]]
        self.assertEqual(statuses, [200, 200, 404, 200] * 3 + [404])
        self.assertEqual(connection.received.count(BLOB), 3)

    async def test_cut_answer_ends_the_connection(self) -> None:
        """A body that breaks off takes the requests behind it along: their answers could not be told from it."""
        self.upstream.on("blob", Fault(cut_after=5000))
        connection = await self.raw()
        connection.send(f"GET {self.blob_path} HTTP/1.1\nHost: x\n\nGET /v2/ HTTP/1.1\nHost: x\n\n")
        await connection.lost
        self.assertLessEqual(connection.received.count(b"HTTP/1.1 "), 1)
        self.assertNotIn(b"{}", connection.received)

    async def test_tls_hello(self) -> None:
        """A client that speaks TLS to the plain port is told so in HTTP, as Go's servers do: it goes on without TLS."""
        connection = await self.raw()
        connection.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500)
        await connection.lost
        self.assertTrue(connection.received.startswith(b"HTTP/1.0 400 Bad Request\r\n"))

    async def test_headers_that_are_no_text(self) -> None:
        """Bytes in a header that are not UTF-8 are a 400 in JSON, whatever the header and the path."""
        for name in ("Authorization", "Range", "If-None-Match", "If-Range", "Accept", "Host", "X-Any"):
            for path in (self.blob_path, self.manifest_path, "/auth/token", "/health", "/v2/"):
                request = f"GET {path} HTTP/1.1\nHost: x\nConnection: close\n{name}: a\xff\xfe\n\n"
                status, head, _ = await self.exchange(request)
                self.assertEqual(status, 400, (name, path))
                self.assertIn("application/json", head)
        self.assertEqual(self.upstream.requests, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_nonsense(self) -> None:
        """What is no HTTP ends the connection."""
        for text in ("nonsense\n\n", "GET /v2/\xff HTTP/1.1\n\n", "GET /v2/ HTTP/1.1\nno colon\n\n", "GET\n\n"):
            connection = await self.raw()
            connection.send(text)
            await connection.lost
            self.assertNotIn(b" 500 ", connection.received)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_absolute_and_odd_targets(self) -> None:
        """Nobody is proxied for: of an absolute URI the path counts; what is no path of ours is 404, or no HTTP."""
        for target in (f"{self.upstream.url}/v2/", "*", "http://evil.test/v2/", "/v2", "?", "x"):
            status, _, _ = await self.exchange(f"GET {target} HTTP/1.1\nHost: x\nConnection: close\n\n")
            self.assertIn(status, (200,) if target.endswith(("/v2", "/v2/")) else (200, 400, 404, 405), target)
        self.assertEqual(self.upstream.requests, [])

    async def test_no_html(self) -> None:
        """What is no endpoint is a 404 in JSON, beside an endpoint too."""
        for path in ("/auth", "/auth/", "/auth/x", "/auth/tokens", "/healthy", "/v2x", "//v2/"):
            answer = await self.ask(path)
            self.assertEqual((answer.status, answer.header("Content-Type")), (404, "application/json"), path)

    async def test_access_log(self) -> None:
        """A request is one line of the log: no query, one header, nothing that could forge another line."""
        headers = 'Host: x\nReferer: sesame\nAuthorization: sesame\nUser-Agent: a "client"\nConnection: close\n\n'
        await self.exchange(f'GET /v2/a%0ab"c?token=sesame HTTP/1.1\n{headers}')
        self.assertNotIn("sesame", self.logged.text)
        lines = [formatEvent(event) for event in self.logged.events]
        wanted = r'"GET /v2/a%0ab\x22c HTTP/1.1" 404 \d+ "-" "a \x22client\x22" 0\.\d+ - -'
        pattern = wanted.replace("\\x22", r"\\x22")
        self.assertTrue(any(re.search(pattern, line) for line in lines), lines)

    async def test_date(self) -> None:
        """Date and the log tell the time since the epoch, whatever the reactor's clock counts from."""
        site = self.served.registry._site
        self.patch(site, "_seconds", lambda: 1_800_000_000.0)
        answer = await self.ask("/health")
        self.assertEqual(answer.header("Date"), "Fri, 15 Jan 2027 08:00:00 GMT")
        self.assertIn("[15/Jan/2027:08:00:00 +0000]", self.logged.text)


class TransparentConnectionTests(RegistryCase):
    auth = AuthMode.TRANSPARENT

    async def test_huge_post(self) -> None:
        """The body of a write, however long, is neither spooled nor kept; the refusal comes behind it."""
        connection = await self.raw()
        before = set(os.listdir(tempfile.gettempdir()))
        size = 8 << 20
        connection.send(f"POST /v2/{NAME}/blobs/uploads/ HTTP/1.1\nHost: x\nContent-Length: {size}\n\n")
        for _ in range(size >> 16):
            connection.write(b"x" * (1 << 16))
        await connection.until(b"errors")
        self.assertTrue(connection.received.startswith(b"HTTP/1.1 405 "))
        new = {name for name in set(os.listdir(tempfile.gettempdir())) - before if name.startswith("tmp")}
        self.assertEqual(new, set())


class Echo(Resource):
    """Answers with how much of the request's body there is."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"%d" % (0 if request.content is None else len(request.content.read()))


class BodyTests(SynchronousTestCase):
    def kept(self, headers: bytes, body: bytes) -> bytes:
        """How much of a request's body is kept."""
        site: Any = open_site(Echo())
        site.reactor = MemoryReactorClock()
        channel: Any = site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(
            b"POST /auth/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n" + body
        )
        return bytes(transport.value().partition(b"\r\n\r\n")[2])

    def test_bodies(self) -> None:
        """A form's body is kept; a larger one is not, nor is one that does not say its length."""
        self.assertEqual(self.kept(b"Content-Length: 5\r\n", b"12345"), b"5")
        self.assertEqual(self.kept(b"Content-Length: %d\r\n" % MAX_BODY, b"x" * MAX_BODY), b"%d" % MAX_BODY)
        self.assertEqual(self.kept(b"Content-Length: %d\r\n" % (MAX_BODY + 1), b"x" * (MAX_BODY + 1)), b"0")
        self.assertEqual(self.kept(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"), b"0")

    def test_idle(self) -> None:
        """A client that does not finish its request, or sends none, is dropped after a while, drip as it may."""
        for sent, limit in ((b"", IDLE), (b"GET / HT", HEAD_WITHIN), (b"GET / HTTP/1.1\r\nHost: x\r\n", HEAD_WITHIN)):
            clock = MemoryReactorClock()
            site: Any = open_site(Echo())
            site.reactor = clock
            channel: Any = site.buildProtocol(None)
            transport = StringTransport()
            channel.callLater = clock.callLater
            channel.makeConnection(transport)
            channel.dataReceived(sent)
            for _ in range(int(limit) - 1):
                clock.advance(1)
                if sent[-1:] == b"\n":
                    channel.dataReceived(b"X: y\r\n")
            self.assertFalse(transport.disconnecting)
            clock.advance(2)
            self.assertTrue(transport.disconnecting, sent)

    def test_protocols(self) -> None:
        """HTTP/1.1 is all that is offered over TLS, whatever is installed."""
        self.assertEqual(open_site(Echo()).acceptableProtocols(), [b"http/1.1"])

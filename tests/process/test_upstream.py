"""The fake upstream does what tests rely on.

It cannot show what real registries do; the live bed shows that.
"""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import urljoin

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed

from docxy.names import Digest
from tests.fakes import Auth, Cdn, Fault, Pattern, Upstream

NAME = "library/busybox"
BLOB = bytes(range(256)) * 16


class Stalled(Protocol):
    """Reads the first piece of a body and no more."""

    transport: Any
    """A push producer."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.pauseProducing()


class Base(TestCase):
    async def setUp(self) -> None:
        self.clock = Clock()
        self.upstream = Upstream(reactor, self.clock.seconds)
        await self.upstream.start()
        self.pool = HTTPConnectionPool(reactor)
        self.client = HTTPClient(Agent(reactor, pool=self.pool))
        self.addCleanup(self.upstream.stop)
        self.addCleanup(self.pool.closeCachedConnections)
        self.digest = self.upstream.add_blob(NAME, BLOB)

    def blob_url(self, digest: Digest | None = None) -> str:
        return f"{self.upstream.url}/v2/{NAME}/blobs/{digest or self.digest}"

    def request(self, url: str, method: str = "GET", **options: Any) -> Deferred[Any]:
        if url.startswith("/"):
            url = self.upstream.url + url
        options.setdefault("allow_redirects", False)
        return self.client.request(method, url, **options)

    async def get(self, url: str, **options: Any) -> tuple[int, bytes]:
        response = await self.request(url, **options)
        return response.code, await treq.content(response)

    def header(self, response: Any, name: str) -> str | None:
        values = response.headers.getRawHeaders(name)
        return None if values is None else values[0]


class ContentTests(Base):
    async def test_manifest(self) -> None:
        """A manifest is found by tag and by digest, with the headers a registry sends."""
        digest = self.upstream.add_image(NAME, "1.0", [BLOB])
        for reference in ("1.0", str(digest)):
            head = await self.request(f"/v2/{NAME}/manifests/{reference}", "HEAD")
            status, body = await self.get(f"/v2/{NAME}/manifests/{reference}")
            self.assertEqual((status, Digest.of(body)), (200, digest))
            self.assertEqual(self.header(head, "docker-content-digest"), str(digest))
            self.assertEqual(self.header(head, "content-length"), str(len(body)))
        cached = await self.request(f"/v2/{NAME}/manifests/1.0", headers={"If-None-Match": f'"{digest}"'})
        self.assertEqual(cached.code, 304)

    async def test_range(self) -> None:
        """A single range is a 206; the end is clamped; past the end is 416; ignored when told so."""
        self.assertEqual(await self.get(self.blob_url(), headers={"Range": "bytes=10-19"}), (206, BLOB[10:20]))
        self.assertEqual(await self.get(self.blob_url(), headers={"Range": "bytes=4090-9999"}), (206, BLOB[4090:]))
        self.assertEqual(await self.get(self.blob_url(), headers={"Range": "bytes=-6"}), (206, BLOB[-6:]))
        self.assertEqual((await self.get(self.blob_url(), headers={"Range": "bytes=4096-"}))[0], 416)
        self.upstream.ranges = False
        self.assertEqual(await self.get(self.blob_url(), headers={"Range": "bytes=10-19"}), (200, BLOB))

    async def test_pattern(self) -> None:
        """A large blob made on the fly hashes to its digest, whatever the pieces."""
        pattern = Pattern(300_001)
        digest = self.upstream.add_blob(NAME, pattern)
        _, body = await self.get(self.blob_url(digest))
        self.assertEqual((len(body), Digest.of(body)), (300_001, digest))
        self.assertEqual(pattern.read(65_530, 20), body[65_530:65_550])
        self.assertEqual(self.upstream.blob_bytes_sent, 300_001)

    async def test_tags(self) -> None:
        """Tags come in pages, with a Link to the next."""
        for tag in ("c", "a", "b"):
            self.upstream.add_image(NAME, tag)
        response = await self.request(f"/v2/{NAME}/tags/list?n=2")
        self.assertEqual(await response.json(), {"name": NAME, "tags": ["a", "b"]})
        self.assertEqual(self.header(response, "link"), f'</v2/{NAME}/tags/list?last=b&n=2>; rel="next"')

    async def test_referrers(self) -> None:
        """An artifact is listed under its subject."""
        subject = self.upstream.add_two_platforms(NAME)
        artifact = self.upstream.add_referrer(NAME, subject)
        _, body = await self.get(f"/v2/{NAME}/referrers/{subject}")
        self.assertEqual([each["digest"] for each in json.loads(body)["manifests"]], [str(artifact)])


class AuthTests(Base):
    async def token(self, query: str = "", **options: Any) -> Any:
        _, body = await self.get(self.upstream.realm + f"?scope=repository:{NAME}:pull{query}", **options)
        return json.loads(body)

    async def status(self, token: str) -> int:
        code, _ = await self.get(self.blob_url(), headers={"Authorization": f"Bearer {token}"})
        return code

    async def test_bearer(self) -> None:
        """No token: a challenge.  A good one: the blob.  Expired or revoked: a challenge again."""
        self.upstream.auth = Auth("bearer", realm="port", lifetime=60)
        response = await self.request(self.blob_url())
        realm = self.upstream.origin("auth") + "/token"
        expected = f'Bearer realm="{realm}",service="fake-registry",scope="repository:{NAME}:pull"'
        self.assertEqual((response.code, self.header(response, "www-authenticate")), (401, expected))
        token = (await self.token())["token"]
        self.assertEqual(await self.status(token), 200)
        self.clock.advance(60)
        self.assertEqual(await self.status(token), 401)
        self.upstream.auth.expired_status = 400
        self.assertEqual(await self.status(token), 400)
        token = (await self.token())["access_token"]
        self.upstream.auth.revoke()
        self.assertEqual(await self.status(token), 400)

    async def test_private(self) -> None:
        """A private repository is for accounts: by password, or by the refresh token got with it."""
        self.upstream.auth = Auth("bearer", accounts={"ann": "secret"}, private={NAME})
        self.assertEqual(await self.status((await self.token())["token"]), 401)
        granted = await self.token("&offline_token=true", auth=("ann", "secret"))
        self.assertEqual(await self.status(granted["token"]), 200)
        self.assertIn("errors", await self.token(auth=("ann", "wrong")))
        form = {"grant_type": "refresh_token", "scope": f"repository:{NAME}:pull"}
        form["refresh_token"] = granted["refresh_token"]
        _, body = await self.get(self.upstream.realm, method="POST", data=form)
        self.assertEqual(await self.status(json.loads(body)["token"]), 200)

    async def test_dialect(self) -> None:
        """A realm on another host, no service, no scope, one token field; a token endpoint that misbehaves."""
        self.upstream.auth = Auth("bearer", realm="foreign", also='Basic realm="x"', service=None, scope=False)
        self.upstream.auth.token_fields, self.upstream.auth.expires_in = ("access_token",), None
        response = await self.request(self.blob_url())
        realm = self.upstream.origin("auth", "localhost") + "/token"
        self.assertEqual(self.header(response, "www-authenticate"), f'Basic realm="x", Bearer realm="{realm}"')
        granted = await self.token()
        self.assertEqual(list(granted), ["access_token"])
        self.assertEqual(await self.status(granted["access_token"]), 200)
        self.upstream.on("token", Fault(body=b"garbage"))
        self.upstream.on("token", Fault(status=503))
        self.assertEqual(await self.get(self.upstream.realm), (200, b"garbage"))
        self.assertEqual((await self.get(self.upstream.realm))[0], 503)


class CdnTests(Base):
    async def follow(self, url: str, hops: int, **options: Any) -> tuple[int, bytes]:
        for _ in range(hops):
            response = await self.request(url)
            self.assertEqual(response.code, self.upstream.cdn and self.upstream.cdn.status)
            url = self.joined(url, response)
        return await self.get(url, **options)

    def joined(self, url: str, response: Any) -> str:
        return urljoin(url, self.header(response, "location") or "")

    async def test_redirect(self) -> None:
        """A blob comes from another origin, which refuses Authorization and expired signatures."""
        self.upstream.cdn = Cdn(status=302, lifetime=10)
        self.assertEqual(await self.follow(self.blob_url(), 1), (200, BLOB))
        self.assertEqual((await self.follow(self.blob_url(), 1, headers={"Authorization": "Bearer x"}))[0], 403)
        response = await self.request(self.blob_url())
        self.clock.advance(10)
        self.assertEqual((await self.get(self.joined(self.blob_url(), response)))[0], 403)
        self.assertEqual(self.upstream.blob_bytes_sent, len(BLOB))

    async def test_chain(self) -> None:
        """Redirects may be chained, relative at any hop, and loop."""
        self.upstream.cdn = Cdn(hops=3, relative=frozenset({2}))
        self.assertEqual(await self.follow(self.blob_url(), 3), (200, BLOB))
        self.upstream.cdn.loop = True
        self.assertEqual((await self.follow(self.blob_url(), 9))[0], 307)

    async def test_closed(self) -> None:
        """A redirect may lead to a port on which nobody listens."""
        self.upstream.cdn = Cdn(closed=True)
        with self.assertRaises(ConnectionRefusedError):
            await self.follow(self.blob_url(), 1)


class FaultTests(Base):
    async def failure(self, **options: Any) -> None:
        with self.assertRaises(ResponseFailed):
            await self.get(self.blob_url(), **options)

    async def test_cut(self) -> None:
        """The next two GETs are cut after so many bytes, with FIN or RST; the third is whole; HEADs are spared."""
        rule = self.upstream.on("blob", Fault(cut_after=100), method="GET")
        self.upstream.on("blob", Fault(cut_after=100, reset=True), method="GET")
        self.assertEqual((await self.request(self.blob_url(), "HEAD")).code, 200)
        await self.failure()
        await self.failure()
        self.assertEqual(await self.get(self.blob_url()), (200, BLOB))
        self.assertEqual([each.sent for each in self.upstream.select("blob", "GET")], [100, 100, len(BLOB)])
        self.assertEqual((rule.hits, rule.struck_count), (1, 1))

    async def test_drop(self) -> None:
        """A connection may close without an answer, by FIN or RST."""
        self.upstream.on("blob", Fault(drop=True))
        self.upstream.on("blob", Fault(drop=True, reset=True))
        await self.failure()
        await self.failure()
        self.assertEqual([each.status for each in self.upstream.requests], [None, None])

    async def test_spares_challenges(self) -> None:
        """A fault of the body is not used up by the challenge that comes first."""
        self.upstream.auth = Auth("bearer")
        rule = self.upstream.on("blob", Fault(cut_after=100))
        self.assertEqual((await self.get(self.blob_url()))[0], 401)
        self.assertEqual(rule.hits, 0)

    async def test_stalls(self) -> None:
        """An answer stops before its headers, or in its body, until it is released."""
        for fault, sent in ((Fault(stall_headers=True), 0), (Fault(stall_after=300_000), 300_000)):
            digest = self.upstream.add_blob(NAME, Pattern(1_000_000))
            rule = self.upstream.on("blob", fault)
            answer = Deferred.fromCoroutine(self.get(self.blob_url(digest)))
            await rule.struck()
            self.assertEqual(self.upstream.requests[-1].sent, sent)
            self.assertNoResult(answer)
            rule.release()
            _, body = await answer
            self.assertEqual(Digest.of(body), digest)

    async def test_stop_while_stalled(self) -> None:
        """Stopping leaves nothing behind of stalled and dripping answers; starting again takes the same port."""
        self.upstream.on("blob", Fault(stall_headers=True))
        self.upstream.on("blob", Fault(bytes_per_second=10))
        answers = [Deferred.fromCoroutine(self.failure()) for _ in range(2)]
        await self.upstream.until(lambda: self.upstream.blob_bytes_sent > 0)
        await self.upstream.received("blob", count=2)
        url = self.upstream.url
        await self.upstream.stop()
        for answer in answers:
            await answer
        await self.upstream.start()
        self.assertEqual(self.upstream.url, url)
        self.assertEqual((await self.get(self.blob_url()))[0], 200)

    async def test_lengths(self) -> None:
        """Content-Length can be too long, too short, or missing, with the body chunked or ended by closing."""
        self.upstream.on("blob", Fault(length_delta=5))
        self.upstream.on("blob", Fault(length_delta=-5))
        self.upstream.on("blob", Fault(chunked=True))
        self.upstream.on("blob", Fault.no_length())
        await self.failure()
        self.assertEqual(await self.get(self.blob_url()), (200, BLOB[:-5]))
        self.assertEqual(await self.get(self.blob_url()), (200, BLOB))
        self.assertEqual(await self.get(self.blob_url()), (200, BLOB))

    async def test_wrong_bytes(self) -> None:
        """One bit is wrong, at the same place of the blob whatever the range."""
        self.upstream.on("blob", Fault(flip=100), times=None)
        wrong = BLOB[:100] + bytes([BLOB[100] ^ 1]) + BLOB[101:]
        self.assertEqual(await self.get(self.blob_url()), (200, wrong))
        self.assertEqual(await self.get(self.blob_url(), headers={"Range": "bytes=90-109"}), (206, wrong[90:110]))

    async def test_answers(self) -> None:
        """Statuses, bodies and headers can be anyone's."""
        self.upstream.on("blob", Fault.too_many_requests("7"), skip=1)
        self.upstream.on("blob", Fault(status=401), method="HEAD", times=None)
        self.assertEqual((await self.get(self.blob_url()))[0], 200)
        limited = await self.request(self.blob_url())
        self.assertEqual((limited.code, self.header(limited, "retry-after")), (429, "7"))
        await treq.content(limited)
        self.assertEqual((await self.request(self.blob_url(), "HEAD")).code, 401)
        self.upstream.add_image(NAME)
        self.upstream.on("manifest", Fault.huge())
        self.upstream.on("manifest", Fault.digest_header(None))
        self.assertEqual(len((await self.get(f"/v2/{NAME}/manifests/latest"))[1]), (8 << 20) + 1)
        response = await self.request(f"/v2/{NAME}/manifests/latest")
        self.assertIsNone(self.header(response, "docker-content-digest"))
        await treq.content(response)

    async def test_gzip(self) -> None:
        """Content-Encoding may be gzip though nobody asked; the length is the compressed one's."""
        self.upstream.on("blob", Fault(gzip=True))
        agent = Agent(reactor, pool=self.pool)
        response: Any = await agent.request(b"GET", self.blob_url().encode())
        self.assertEqual(response.headers.getRawHeaders("content-encoding"), ["gzip"])
        chunks: list[bytes] = []
        await treq.collect(response, chunks.append)
        self.assertEqual(gzip.decompress(b"".join(chunks)), BLOB)

    async def test_line_ends(self) -> None:
        """The abuse answer's header lines end in LF alone."""
        self.upstream.on("blob", Fault.abuse())
        raw = RawGet(self.blob_url())
        self.upstream.reactor.connectTCP("127.0.0.1", int(self.upstream.url.rsplit(":")[-1]), raw.factory())
        received = await raw.received
        self.assertTrue(received.startswith(b"HTTP/1.1 429 Too Many Requests\n"), received)
        self.assertNotIn(b"\r", received)


class RawGet(Protocol):
    """A GET whose answer is wanted as it is on the wire; ends at the first blank line."""

    transport: Any

    def __init__(self, url: str) -> None:
        self.received: Deferred[bytes] = Deferred()
        self._path = "/" + url.split("/", 3)[3]
        self._data = b""

    def factory(self) -> Any:
        factory = ClientFactory()
        factory.buildProtocol = lambda _: self  # type: ignore[method-assign, assignment, return-value]  # one shot
        factory.noisy = False
        return factory

    def connectionMade(self) -> None:
        self.transport.write(f"GET {self._path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if b"\n\n" in self._data and not self.received.called:
            self.received.callback(self._data)
            self.transport.loseConnection()


class BackpressureTests(Base):
    async def after_pings(self) -> int:
        """The bytes sent, after the server has had many turns to send more."""
        for _ in range(20):
            await self.get("/v2/")
        return self.upstream.blob_bytes_sent

    async def test_stalled_client(self) -> None:
        """A client that reads nothing costs what the kernel's buffers hold, not the blob; it may vanish."""
        digest = self.upstream.add_blob(NAME, Pattern(64 << 20))
        response: Any = await Agent(reactor).request(b"GET", self.blob_url(digest).encode())
        stalled = Stalled()
        response.deliverBody(stalled)
        await self.upstream.until(lambda: self.upstream.blob_bytes_sent > 100_000)
        counts = [0, *[await self.after_pings() for _ in range(3)]]
        while counts[-1] != counts[-3] and len(counts) < 100:
            counts.append(await self.after_pings())
        self.assertEqual(counts[-1], counts[-3])
        self.assertLess(counts[-1], 16 << 20, counts)
        stalled.transport.stopProducing()
        await self.upstream.finished("blob")
        self.assertFalse(self.upstream.select("blob")[0].whole)

    async def test_fast_client(self) -> None:
        """A client that reads gets every byte of a body larger than all buffers."""
        digest = self.upstream.add_blob(NAME, Pattern(64 << 20))
        hasher = digest.hasher()
        response = await self.request(self.blob_url(digest), unbuffered=True)
        await treq.collect(response, hasher.update)
        self.assertTrue(digest.matches(hasher))

"""Blobs on their way through the whole daemon: broken, slow, silent, abandoned; over plain HTTP and TLS."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionDone

from docxy.names import Digest
from docxy.settings.model import Timeouts
from tests.fakes import Cdn, Fault, Pattern
from tests.harness.mirror import BLOB, NAME, Raw, RegistryCase

reactor: Any = _reactor

LARGE = Pattern(12 << 20)
"""More than what sockets, docxy and the fake upstream hold between them."""
HELD = 8 << 20
"""Bytes that they may hold of one blob: mostly the kernel's receive buffer."""


class BrokenTests(RegistryCase):
    async def assert_cut(self, path: str | None = None) -> None:
        """The client sees its connection break before the last byte."""
        received = await self.cut(path or self.blob_path)
        self.assertLess(len(received), len(BLOB))
        self.assertEqual(received, BLOB[: len(received)])

    async def test_cut(self) -> None:
        """An upstream that is cut ends the client's connection: no short body looks whole."""
        for fault in (
            Fault(cut_after=5000),
            Fault(cut_after=len(BLOB) - 1),
            Fault(cut_after=5000, chunked=True),
            Fault(length_delta=5),
        ):
            self.upstream.on("blob", fault)
            await self.assert_cut()

    async def test_cut_behind_a_redirect(self) -> None:
        """The same when a CDN breaks off."""
        self.upstream.cdn = Cdn()
        self.upstream.on("cdn", Fault(cut_after=5000))
        await self.assert_cut()

    async def test_reset(self) -> None:
        """The same for a reset; when it overtakes the first byte, the client is told in JSON."""
        digest = self.upstream.add_blob(NAME, LARGE)
        self.upstream.on("blob", Fault(cut_after=1 << 20, reset=True), times=None)
        streamed = await self.stream(f"/v2/{NAME}/blobs/{digest}")
        await streamed.client.ended
        self.assertIn((streamed.status, streamed.client.whole), ((200, False), (502, True)))

    async def test_flipped_bit(self) -> None:
        """Wrong bytes, at any place, are never complete: the last byte is withheld and the connection cut."""
        for offset in (0, 5000, len(BLOB) - 1):
            self.upstream.on("blob", Fault(flip=offset))
            self.assertLess(len(await self.cut(self.blob_path)), len(BLOB))
        self.upstream.on("blob", Fault(flip=7, chunked=True))
        self.assertLess(len(await self.cut(self.blob_path)), len(BLOB))

    async def test_nothing_sent_yet(self) -> None:
        """What fails before the first byte is told in JSON, with nothing of the blob's headers left."""
        digest = self.upstream.add_blob(NAME, b"x")
        self.upstream.on("blob", Fault(flip=0))
        answer = await self.assert_error(f"/v2/{NAME}/blobs/{digest}", 502, "UNAVAILABLE")
        self.assertEqual(answer.header("Content-Length"), str(len(answer.body)))
        for name in ("ETag", "Docker-Content-Digest", "Accept-Ranges", "Content-Range"):
            self.assertIsNone(answer.header(name), name)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_too_short(self) -> None:
        """A body that is whole by its framing but not the blob is cut before its last byte."""
        self.upstream.on("blob", Fault(length_delta=-5))
        self.assertLess(len(await self.cut(self.blob_path)), len(BLOB) - 5)

    async def test_wrong_body(self) -> None:
        """Another body of whatever length under the digest is never complete."""
        self.upstream.on("blob", Fault(body=b""))
        await self.assert_error(self.blob_path, 502, "UNAVAILABLE")
        for body in (b"<html>", BLOB + b"x"):
            self.upstream.on("blob", Fault(body=body))
            self.assertLess(len(await self.cut(self.blob_path)), len(body))
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_chunked(self) -> None:
        """A blob without a length, chunked, arrives chunked and whole."""
        self.upstream.on("blob", Fault(chunked=True))
        answer = await self.ask(self.blob_path)
        self.assertEqual((answer.status, answer.body, answer.header("Content-Length")), (200, BLOB, None))

    async def test_ended_by_closing(self) -> None:
        """A blob that only the connection's end delimits is whole when its digest says so, and else is cut."""
        self.upstream.on("blob", Fault.no_length())
        self.assertEqual((await self.ask(self.blob_path)).body, BLOB)
        self.upstream.on("blob", Fault(headers={"Content-Length": None}, cut_after=5000))
        await self.assert_cut()

    async def test_head_without_length(self) -> None:
        """HEAD of a blob whose length the upstream does not tell is 200 without one."""
        self.upstream.on("blob", Fault(ignore_range=True, chunked=True))
        answer = await self.ask(self.blob_path, method="HEAD")
        self.assertEqual((answer.status, answer.header("Content-Length"), answer.body), (200, None, b""))

    async def test_failures_are_told(self) -> None:
        """What broke is one line in the log, without a traceback."""
        self.upstream.on("blob", Fault(cut_after=5000))
        await self.assert_cut()
        self.assertIn("broke off after 5000 bytes", self.logged.text)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 gets a body of unknown length by the connection's end, and a reset when it breaks."""
        self.upstream.on("blob", Fault(chunked=True))
        status, _, body = await self.exchange(f"GET {self.blob_path} HTTP/1.0\n\n")
        self.assertEqual((status, body), (200, BLOB))
        self.upstream.on("blob", Fault(chunked=True, cut_after=5000))
        connection = await self.raw()
        connection.send(f"GET {self.blob_path} HTTP/1.0\n\n")
        await connection.lost
        assert connection.reason is not None
        self.assertNotIsInstance(connection.reason.value, ConnectionDone)


class RedirectTests(RegistryCase):
    async def test_shapes(self) -> None:
        """Chains of redirects, relative at any hop, are followed with the signed query as it stands."""
        for cdn in (Cdn(hops=4), Cdn(hops=4, relative=frozenset({2, 4})), Cdn(relative=frozenset({1})), Cdn(hops=10)):
            self.upstream.cdn = cdn
            self.assertEqual((await self.ask(self.blob_path)).body, BLOB, cdn)

    async def test_too_many(self) -> None:
        """A loop ends after ten hops, in a 502."""
        self.upstream.cdn = Cdn(hops=3, loop=True)
        await self.assert_error(self.blob_path, 502, "UNAVAILABLE")
        self.assertLessEqual(self.upstream.count(), 11)

    async def test_range_goes_along(self) -> None:
        """A range is asked of the CDN."""
        self.upstream.cdn = Cdn(hops=2)
        answer = await self.ask(self.blob_path, {"Range": "bytes=5-9"})
        self.assertEqual((answer.status, answer.body), (206, BLOB[5:10]))
        self.assertEqual(self.upstream.blob_bytes_sent, 5)

    async def test_to_nowhere(self) -> None:
        """A redirect to a closed port is a 502; the message has no query, where signatures are."""
        self.upstream.cdn = Cdn(closed=True)
        answer = await self.assert_error(self.blob_path, 502, "UNAVAILABLE")
        self.assertNotIn("X-Signature", answer.body.decode() + self.logged.text)

    async def test_elsewhere(self) -> None:
        """A Location that is no http URL is a 502, and so is one that cannot be read."""
        for location in (
            "file:///etc/passwd",
            "ftp://x/",
            "https://",
            "http://[::1",
            "http://x:99999/",
            "http://x:0/",
        ):
            self.upstream.on("blob", Fault(status=307, headers={"Location": location}))
            await self.assert_error(self.blob_path, 502, "UNAVAILABLE")

    async def test_odd_location(self) -> None:
        """Spaces, bytes that are not ASCII and control characters in a Location are an error at worst, no crash."""
        for location in ("/a b", "/caf\u00e9", "http://caf\u00e9.test/", "/a\x01b", "http://a b/"):
            self.upstream.on("blob", Fault(status=307, headers={"Location": location}))
            answer = await self.ask(self.blob_path)
            self.assertIn(answer.status, (404, 502), location)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_no_location(self) -> None:
        """A redirect without Location is a 502."""
        self.upstream.on("blob", Fault(status=302))
        await self.assert_error(self.blob_path, 502, "UNAVAILABLE")

    async def test_connections_are_kept(self) -> None:
        """Registry and CDN are each asked on one connection, redirects and errors included."""
        self.upstream.cdn = Cdn()
        for _ in range(3):
            await self.ask(self.blob_path)
            await self.ask(self.manifest_path)
            await self.ask(f"/v2/{NAME}/manifests/missing")
            await self.ask(self.blob_path, method="HEAD")
        self.assertEqual(len({each.connection for each in self.upstream.requests}), 2)


class SilentTests(RegistryCase):
    timeouts = Timeouts(headers=0.2, silence=0.2)

    async def test_silent_before_headers(self) -> None:
        """An upstream that says nothing is a 504 that names it."""
        rule = self.upstream.on(None, Fault(stall_headers=True), times=None)
        for path in (self.blob_path, self.manifest_path):
            answer = await self.assert_error(path, 504, "UNAVAILABLE")
            self.assertIn(self.upstream.url, answer.json["errors"][0]["message"])
        rule.release()

    async def test_silent_body(self) -> None:
        """An upstream that stops in a body is given up, and the client's connection cut."""
        self.upstream.on("blob", Fault(stall_after=5000))
        received = await self.cut(self.blob_path)
        self.assertLessEqual(len(received), 5000)
        await self.upstream.finished("blob")
        self.upstream.on("manifest", Fault(stall_after=50))
        await self.assert_error(self.manifest_path, 504, "UNAVAILABLE")


class LargeCase(RegistryCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.large = self.upstream.add_blob(NAME, LARGE)
        self.large_path = f"/v2/{NAME}/blobs/{self.large}"

    async def stall(self) -> Raw:
        """A client that asks for the large blob, takes a little, and then nothing, until nothing moves any more."""
        client = await self.raw()
        client.send(f"GET {self.large_path} HTTP/1.1\nHost: x\n\n")
        await client.until(b"\r\n\r\n")
        client.pause()
        sent = -1
        # Each ping is many turns of the reactor, in which more could have been sent.
        for _ in range(200):
            if sent == self.upstream.blob_bytes_sent:
                break
            sent = self.upstream.blob_bytes_sent
            for _ in range(10):
                await self.ask("/v2/")
        return client


class ClientTests(LargeCase):
    async def test_stalled_client(self) -> None:
        """A client that takes nothing pauses the upstream; when it goes, the fetch ends with it."""
        client = await self.stall()
        self.assertLess(self.upstream.blob_bytes_sent, HELD)
        self.assertFalse(self.sent("blob").done)
        await client.close()
        await self.upstream.finished("blob")
        self.assertFalse(self.sent("blob").whole)

    async def test_stalled_client_goes_on(self) -> None:
        """A client that paused and takes the rest gets all of it."""
        client = await self.stall()
        transport: Any = client.transport
        transport.resumeProducing()
        await self.upstream.finished("blob")
        await self.until_length(client, LARGE.size)
        self.assertTrue(self.large.matches(hashlib.sha256(client.received.partition(b"\r\n\r\n")[2])))

    async def until_length(self, client: Raw, size: int) -> None:
        for _ in range(2000):
            if len(client.received) >= size + client.received.index(b"\r\n\r\n") + 4:
                return
            await self.ask("/v2/")

    async def test_vanished_client(self) -> None:
        """A client's disconnect stops the fetch, at once."""
        streamed = await self.stream(self.large_path)
        await streamed.client.reached(100_000)
        streamed.client.vanish()
        await self.upstream.finished("blob")
        self.assertFalse(self.sent("blob").whole)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_vanished_before_headers(self) -> None:
        """A client that goes before there is an answer leaves nothing behind."""
        for path, kind in ((self.large_path, "blob"), (self.manifest_path, "manifest")):
            rule = self.upstream.on(kind, Fault(stall_headers=True))
            client = await self.raw()
            client.send(f"GET {path} HTTP/1.1\nHost: x\n\n")
            await rule.struck()
            await client.close()
            await self.upstream.finished(kind)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_large(self) -> None:
        """A large blob passes whole."""
        streamed = await self.stream(self.large_path)
        await streamed.client.ended
        self.assertTrue(streamed.client.whole)
        self.assertEqual(streamed.client.digest, str(self.large))

    async def test_many(self) -> None:
        """Thirty clients at once each get all bytes."""
        answers = await gatherResults([Deferred.fromCoroutine(self.ask(self.blob_path)) for _ in range(30)])
        self.assertEqual({Digest.of(answer.body) for answer in answers}, {self.digest})


class TLSClientTests(ClientTests):
    """The same over TLS, where other buffers lie between."""

    tls = True


class ImpatientTests(LargeCase):
    """A client may take nothing only for so long."""

    timeouts = Timeouts(client=0.3)

    async def test_stalled_client(self) -> None:
        """A client that takes nothing for too long is dropped, which ends the fetch and says so in the log."""
        client = await self.stall()
        await self.upstream.finished("blob")
        transport: Any = client.transport
        transport.resumeProducing()
        await client.lost
        self.assertLess(len(client.received), LARGE.size)
        self.assertIn("took nothing for 0.3 s", self.logged.text)

    async def test_slow_body(self) -> None:
        """A body that comes slowly, over longer than that, drops nobody."""
        self.upstream.on("blob", Fault(bytes_per_second=200_000))
        digest = self.upstream.add_blob(NAME, Pattern(200_000))
        answer = await self.ask(f"/v2/{NAME}/blobs/{digest}")
        self.assertEqual(len(answer.body), 200_000)


class ImpatientTLSTests(ImpatientTests):
    """The same over TLS."""

    tls = True

"""How bodies reach clients: one contract for `sendfile`, for the ordinary producer and for TLS.

Over real sockets, because a fake transport has neither a send buffer nor a writable event.
"""

from __future__ import annotations

import hashlib
import os
import socket
from typing import Any, cast

from OpenSSL.SSL import Connection
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from zope.interface import implementer

from docxy.bodies import FilePiece, IPieceBody
from docxy.daemon import certificates
from docxy.web import send, sendfile, tls
from docxy.web.channel import Channel
from docxy.web.large_answers import LargeAnswers
from docxy.web.request import Request
from docxy.web.respond import respond
from tests.harness.built import open_site
from tests.harness.certificates import issue

reactor: Any = _reactor

SIZE = 12 * 1024 * 1024 + 17
"""More than any socket buffers here take at once."""


@implementer(IPieceBody)
class FileBody:
    """A part of a file, which grows when the test says so."""

    def __init__(self, descriptor: int, first: int, stop: int, there: int, pieces: bool) -> None:
        self.descriptor = descriptor
        self.position = first
        self.stop = stop
        self.there = there
        self.pieces = pieces
        self.closed = 0
        self.over: Deferred[None] = Deferred()
        """Fires when it is closed."""
        self.reads = 0
        self._more: Deferred[None] | None = None

    def grow(self, there: int) -> None:
        self.there = there
        more, self._more = self._more, None
        if more is not None:
            more.callback(None)

    async def _wait(self) -> int:
        while self.position >= self.there < self.stop:
            self._more = Deferred()
            await self._more
        return min(self.there, self.stop) - self.position

    def here(self) -> FilePiece | None:
        count = min(self.there, self.stop) - self.position
        return FilePiece(self.descriptor, self.position, count) if count > 0 and self.pieces else None

    async def piece(self) -> FilePiece | None:
        count = await self._wait()
        return FilePiece(self.descriptor, self.position, count) if count and self.pieces else None

    def took(self, count: int) -> None:
        self.position += count

    async def read(self) -> bytes:
        count = await self._wait()
        data = os.pread(self.descriptor, min(count, 256 * 1024), self.position)
        self.reads += 1
        self.position += len(data)
        return data

    def close(self) -> None:
        self.closed += 1
        if not self.over.called:
            self.over.callback(None)


def is_corked(descriptor: int) -> bool:
    """Whether only whole segments leave a socket."""
    with socket.socket(fileno=os.dup(descriptor)) as s:
        return bool(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))


class Blob(Resource):
    """Sends the test's file; `/<first>-<stop>` a part of it."""

    isLeaf = True

    def __init__(self, case: SendingContract) -> None:
        Resource.__init__(self)
        self.case = case
        self.bodies: list[FileBody] = []
        self._awaited: dict[int, Deferred[None]] = {}
        self.client_timeout = 600.0
        """More than a test may take: no other timeout is to end what never ends."""
        self.there = SIZE

    async def body(self, number: int) -> FileBody:
        """The one of this request, counted from 0, when it has come."""
        if number >= len(self.bodies):
            await self._awaited.setdefault(number, Deferred())
        return self.bodies[number]

    def render(self, request: Request) -> int:
        first, stop = (int(part) for part in request.path[1:].split(b"-"))
        body = FileBody(self.case.file.fileno(), first, stop, self.there, self.case.pieces)
        self.bodies.append(body)
        awaited = self._awaited.pop(len(self.bodies) - 1, None)
        if awaited is not None:
            awaited.callback(None)
        request.start(200, [("Content-Type", "application/octet-stream")], stop - first)
        return respond(request, send.Sender(reactor, self.client_timeout, LargeAnswers()).send(request, body))


class Client(Protocol):
    """Reads any number of responses with a Content-Length."""

    def __init__(self) -> None:
        self.received = 0
        self.head = b""
        self.left: int | None = None
        self.hasher = hashlib.sha256()
        self.digests: list[str] = []
        self.changed: Deferred[None] = Deferred()
        self.lost = False
        self.why: type[BaseException] | None = None

    def ask(self, *paths: str) -> None:
        assert self.transport is not None
        for path in paths:
            self.transport.write(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        while data:
            if self.left is None:
                self.head += data
                head, end, data = self.head.partition(b"\r\n\r\n")
                if not end:
                    break
                lines = head.lower().split(b"\r\n")
                self.left = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
                self.head, self.hasher = b"", hashlib.sha256()
            body, data = data[: self.left], data[self.left :]
            self.hasher.update(body)
            self.left -= len(body)
            if self.left == 0:
                self.digests.append(self.hasher.hexdigest())
                self.left = None
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self.why = reason.type
        self._tell()

    def _tell(self) -> None:
        changed, self.changed = self.changed, Deferred()
        changed.callback(None)

    async def responses(self, count: int) -> list[str]:
        while len(self.digests) < count and not self.lost:
            await self.changed
        return self.digests


class SendingContract:
    """What every way of sending does."""

    pieces = True
    secure = False

    async def setUp(self) -> None:
        case = cast(TestCase, self)
        self.data = hashlib.shake_128(b"sent").digest(SIZE)
        self.file = open(case.mktemp(), "w+b", buffering=0)  # noqa: SIM115 (closed by the cleanup)
        case.addCleanup(self.file.close)
        self.file.write(self.data)
        self.blob = Blob(self)
        self.site: Any = open_site(self.blob)
        self.site.noisy = False
        self.site.timeOut = None
        served: Any = self.site
        if self.secure:
            issued = issue("localhost")
            path = case.mktemp()
            with open(path, "wb") as pem:
                pem.write(issued.pem + issued.key_pem())
            pair = certificates.load(path, path)
            served = self.tls_factory(certificates.ReloadingContext(path, path, pair), self.site)
        self.port: Any = reactor.listenTCP(0, served, interface="127.0.0.1")
        case.addCleanup(self.port.stopListening)
        self.clients: list[Client] = []

    def tls_factory(self, context: Any, site: Any) -> Any:
        return tls.TLSFactory(context, site, reactor)

    async def tearDown(self) -> None:
        for client in self.clients:
            if not client.lost:
                cast(Any, client.transport).abortConnection()
            while not client.lost:
                await client.changed
        for body in self.blob.bodies:
            await body.over

    async def connect(self) -> Client:
        endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        if self.secure:
            endpoint = wrapClientTLS(_Trusting(), endpoint)
        client: Client = await connectProtocol(endpoint, Client())
        self.clients.append(client)
        return client

    def digest(self, first: int = 0, stop: int = SIZE) -> str:
        return hashlib.sha256(self.data[first:stop]).hexdigest()

    async def test_whole(self) -> None:
        """All bytes arrive, and the body is closed once."""
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        cast(TestCase, self).assertEqual(await client.responses(1), [self.digest()])
        cast(TestCase, self).assertEqual([body.closed for body in self.blob.bodies], [1])

    async def test_keep_alive(self) -> None:
        """The connection serves the next requests, parts and whole, as if nothing had been special."""
        client = await self.connect()
        for n, (first, stop) in enumerate([(5, 6), (0, SIZE), (SIZE - 1, SIZE), (100, 9_000_000)]):
            client.ask(f"{first}-{stop}")
            cast(TestCase, self).assertEqual((await client.responses(n + 1))[-1], self.digest(first, stop))

    async def test_pipelined(self) -> None:
        """Requests sent at once are answered in their order."""
        client = await self.connect()
        parts = [(0, 3_000_000), (1, 2), (2_000_000, SIZE), (7, 70_000)]
        client.ask(*(f"{first}-{stop}" for first, stop in parts))
        cast(TestCase, self).assertEqual(await client.responses(4), [self.digest(*part) for part in parts])

    async def test_growing(self) -> None:
        """What is there is sent; what comes follows."""
        self.blob.there = 1_000_000
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        while client.received < 1_000_000:
            await client.changed
        for there in (1_000_001, 5_000_000, SIZE):
            self.blob.bodies[0].grow(there)
            while client.received < there:
                await client.changed
        cast(TestCase, self).assertEqual(await client.responses(1), [self.digest()])

    async def test_headers_first(self) -> None:
        """A client does not wait for the first byte to learn that there will be some."""
        cast(TestCase, self).patch(send, "HEADERS_WITHIN", 0.01)
        self.blob.there = 0
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        while not client.received:
            await client.changed
        cast(TestCase, self).assertEqual(client.left, SIZE)
        self.blob.bodies[0].grow(SIZE)
        cast(TestCase, self).assertEqual(await client.responses(1), [self.digest()])

    async def test_many(self) -> None:
        """Clients at different paces get the same bytes."""
        clients = [await self.connect() for _ in range(8)]
        for client in clients:
            client.ask(f"0-{SIZE}")
        for client in clients:
            cast(TestCase, self).assertEqual(await client.responses(1), [self.digest()])

    async def test_stalled(self) -> None:
        """A client that takes nothing gets no more than buffers hold, and is dropped after a while."""
        self.blob.client_timeout = 0.2
        client = await self.connect()
        client.ask("0-1")
        await client.responses(1)
        cast(Any, client.transport).pauseProducing()
        client.ask(f"0-{SIZE}")
        second = await self.blob.body(1)
        await second.over
        cast(TestCase, self).assertLess(second.position, SIZE)
        cast(Any, client.transport).resumeProducing()
        cast(TestCase, self).assertEqual(await client.responses(2), [self.digest(0, 1)])

    async def test_vanished(self) -> None:
        """A client that goes away ends the sending, and nothing else."""
        gone, stays = await self.connect(), await self.connect()
        for client in (gone, stays):
            client.ask(f"0-{SIZE}")
        while gone.received < 100_000:
            await gone.changed
        cast(Any, gone.transport).abortConnection()
        cast(TestCase, self).assertEqual(await stays.responses(1), [self.digest()])
        for body in self.blob.bodies:
            await body.over

    async def test_cut_short(self) -> None:
        """A file that ends early ends the connection, never in a response that looks whole."""
        os.truncate(self.file.fileno(), 1_000_000)
        client = await self.connect()
        client.ask("0-2000000")
        cast(TestCase, self).assertEqual(await client.responses(1), [])
        cast(TestCase, self).assertTrue(client.lost)
        cast(TestCase, self).flushLoggedErrors()


class _Trusting(CertificateOptions):
    """Takes any certificate, as a client."""

    def clientConnectionForTLS(self, protocol: Any) -> Any:
        return Connection(self.getContext(), None)


class SendfileTests(SendingContract, TestCase):
    """File to socket."""

    async def test_it_is_sendfile(self) -> None:
        """On a plain socket no byte is read by this process."""
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        await client.responses(1)
        self.assertEqual(self.blob.bodies[0].reads, 1, "only the end was read")

    def watch_corks(self) -> set[tuple[str, bool]]:
        """Of what puts bytes on the server's sockets: whether the kernel holds back what is less than a segment."""
        seen: set[tuple[str, bool]] = set()
        outs: list[int] = []
        real_write, real_sendfile, real_read = Channel.write, os.sendfile, FileBody.read

        def write(channel: Channel, data: bytes, flags: int = 0) -> None:
            if bytes(data[:5]) == b"HTTP/":
                seen.add(("headers", is_corked(channel.transport.fileno())))
            real_write(channel, data, flags)

        def sendfile(out: int, *args: int) -> int:
            outs.append(out)
            seen.add(("sendfile", is_corked(out)))
            return real_sendfile(out, *args)

        async def read(body: FileBody) -> bytes:
            seen.add(("read", is_corked(outs[-1])))
            return await real_read(body)

        self.patch(Channel, "write", write)
        self.patch(os, "sendfile", sendfile)
        self.patch(FileBody, "read", read)
        return seen

    async def test_whole_segments(self) -> None:
        """While more of a piece is to come only whole segments leave, the headers with them; after it all there is."""
        seen = self.watch_corks()
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        await client.responses(1)
        self.assertEqual(seen, {("headers", True), ("sendfile", True), ("read", False)})

    async def test_whole_segments_not_in_memory(self) -> None:
        """Nothing is held back while the next bytes are read from the disk."""
        looks = iter([True])
        self.patch(sendfile, "_in_memory", lambda descriptor, offset: next(looks, False))
        seen = self.watch_corks()
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        self.assertEqual(await client.responses(1), [self.digest()])
        self.assertEqual(seen, {("headers", True), ("sendfile", True), ("read", False)})

    async def test_not_in_memory(self) -> None:
        """What the page cache lacks is read the ordinary way, in the middle of a body too."""
        looks = iter([True, True, False, False, True])
        self.patch(sendfile, "_in_memory", lambda descriptor, offset: next(looks, True))
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        self.assertEqual(await client.responses(1), [self.digest()])
        self.assertGreater(self.blob.bodies[0].reads, 1)


class ProducerTests(SendingContract, TestCase):
    """A body whose bytes have to be read."""

    pieces = False

"""Bodies over TLS: sealed in large pieces, and in Twisted's own way."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.tcp import Server as ServerSocket
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from docxy.web import tls
from docxy.web.channel import Channel
from tests.unit.web.test_send import SIZE, Client, SendingContract, reactor


class SClient(ProcessProtocol):
    """`openssl s_client`: what it prints is what it gets, after some words of its own."""

    def __init__(self) -> None:
        self.client = Client()
        self.talk = b""
        self.ended: Deferred[None] = Deferred()
        self._errors = b""
        self._updated: Deferred[None] | None = None

    @property
    def digests(self) -> list[str]:
        return self.client.digests

    def ask(self, stop: int) -> None:
        self.wanted = len(self.digests) + 1
        self.transport.write(f"GET /0-{stop} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def outReceived(self, data: bytes) -> None:
        if self.client.received == 0:
            self.talk += data
            _, found, rest = self.talk.partition(b"HTTP/1.1 200")
            data = found + rest
        if data:
            self.client.dataReceived(data)

    async def change_keys(self) -> None:
        """Ask for new keys; returns when it has read that, or it would take what is written next for a part of it."""
        self._updated = Deferred()
        self.transport.write(b"K\n")
        await self._updated

    def errReceived(self, data: bytes) -> None:
        self._errors += data
        if b"KEYUPDATE\n" in self._errors and self._updated is not None:
            self._errors = b""
            updated, self._updated = self._updated, None
            updated.callback(None)

    async def got(self, more: int | None) -> None:
        """When so many bytes more, or all of the response, were received."""
        until = None if more is None else self.client.received + more
        while len(self.digests) < self.wanted and (until is None or self.client.received < until):
            await self.client.changed

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


class SealedTests(SendingContract, TestCase):
    """File to TLS, in large pieces."""

    secure = True

    async def test_it_is_sealed_in_large_pieces(self) -> None:
        """Not one of the file's bytes takes Twisted's way."""
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        await client.responses(1)
        self.assertEqual(self.blob.bodies[0].reads, 1, "only the end was read")

    async def test_not_in_memory(self) -> None:
        """What the page cache lacks is read the ordinary way, in the middle of a body too."""
        preadv, count = os.preadv, 0

        def sometimes(*args: Any) -> int:
            nonlocal count
            count += 1
            if count in (3, 4, 9):
                raise BlockingIOError
            return preadv(*args)

        self.patch(os, "preadv", sometimes)
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        self.assertEqual(await client.responses(1), [self.digest()])
        self.assertGreater(self.blob.bodies[0].reads, 1)

    async def test_small_records(self) -> None:
        """A client that takes only small records (RFC 6066 section 4, RFC 8449) gets them."""
        self.patch(tls, "RECORD", SIZE)
        self.patch(tls, "OVERHEAD", 1)
        client = await self.connect()
        client.ask(f"0-{SIZE}")
        self.assertEqual(await client.responses(1), [self.digest()])

    async def test_small_at_once(self) -> None:
        """A small answer is sealed with one call and leaves with one, past the transport's buffer."""
        client = await self.connect()
        client.ask("0-1000")
        await client.responses(1)
        sealed: list[int] = []
        buffered: list[int] = []
        seal, write = tls.TLS.seal, ServerSocket.write

        def watch_seal(session: tls.TLS, data: bytes) -> bytes:
            records = seal(session, data)
            sealed.append(len(records))
            return records

        def watch_write(transport: ServerSocket, data: bytes) -> None:
            buffered.append(len(data))
            write(transport, data)

        self.patch(tls.TLS, "seal", watch_seal)
        self.patch(ServerSocket, "write", watch_write)
        client.ask("1000-3000", "3000-5000")
        self.assertEqual((await client.responses(3))[1:], [self.digest(1000, 3000), self.digest(3000, 5000)])
        self.assertEqual((len(sealed), buffered), (2, []))

    async def test_small_not_taken(self) -> None:
        """Small answers that a client does not take wait in their order, few of them, and all arrive."""
        client = await self.connect()
        client.ask("0-1")
        await client.responses(1)  # the handshake is over
        blocked: Deferred[None] = Deferred()
        pause = Channel.pauseProducing

        def watch(channel: Channel) -> None:
            pause(channel)
            if not blocked.called:
                blocked.callback(None)

        self.patch(Channel, "pauseProducing", watch)
        cast(Any, client.transport).pauseProducing()
        count = 400
        client.ask(*(f"{n}-{n + 60_000}" for n in range(count)))
        await blocked
        self.assertLess(len(self.blob.bodies), count)
        cast(Any, client.transport).resumeProducing()
        await client.responses(1 + count)
        self.assertEqual(client.digests[1:], [self.digest(n, n + 60_000) for n in range(count)])

    async def test_small_behind_what_waits(self) -> None:
        """Records do not overtake those that wait in the transport, though the socket has room."""
        client = await self.connect()
        client.ask("0-1")
        await client.responses(1)
        (channel,) = self.site.channels
        session = channel.transport
        session.transport.write(session.seal(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"))
        session.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
        wanted = [hashlib.sha256(body).hexdigest() for body in (b"first", b"second")]
        self.assertEqual((await client.responses(3))[1:], wanted)

    async def test_small_and_last(self) -> None:
        """The answer that ends its connection arrives whole, and TLS is closed in words after it."""
        client = await self.connect()
        cast(Any, client.transport).write(b"GET /0-50000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertEqual(await client.responses(1), [self.digest(0, 50_000)])
        while not client.lost:
            await client.changed
        self.assertIs(client.why, ConnectionDone)

    async def test_small_and_keys_change(self) -> None:
        """New keys between small answers: OpenSSL's own client reads them all."""
        client = await self.openssl()
        for n in range(1, 9):
            client.ask(n * 1000)
            await client.got(None)
            await client.change_keys()
        self.assertEqual(client.digests, [self.digest(0, n * 1000) for n in range(1, 9)])

    async def test_keys_change(self) -> None:
        """What TLS itself has to say in the middle of a body keeps its place between the body's records.

        By OpenSSL's own client, which asks for new keys (RFC 8446 section 4.6.3) when it reads a K.
        """
        client = await self.openssl()
        for _ in range(4):
            client.ask(SIZE)
            for _ in range(8):
                await client.got(SIZE // 10)
                await client.change_keys()
            await client.got(None)
        self.assertEqual(client.digests, [self.digest()] * 4)

    async def openssl(self) -> SClient:
        """OpenSSL's own client, until the test ends."""
        client = SClient()
        where = f"127.0.0.1:{self.port.getHost().port}"
        command = ["openssl", "s_client", "-connect", where, "-tls1_3"]
        process = reactor.spawnProcess(client, shutil.which("openssl"), command, env=None)

        def end() -> Deferred[None]:
            process.signalProcess("KILL")
            return client.ended

        self.addCleanup(end)
        return client


class TwistedTLSTests(SendingContract, TestCase):
    """Twisted's own TLS, which holds back small writes: large ones must not overtake them."""

    secure = True

    def tls_factory(self, context: Any, site: Any) -> Any:
        return TLSMemoryBIOFactory(context, False, site, reactor)

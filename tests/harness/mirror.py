"""The real site without a cache, on a port of loopback in front of the fake upstream, and clients for it.

`UncachedCase` starts both.  `ask` is for answers that must come whole, `stream` for bodies under way,
`raw` for what only bytes on a socket can show.  A test leaves nothing behind in the reactor.
"""

from __future__ import annotations

import socket
from io import BytesIO
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    ResponseFailed,
    ResponseNeverReceived,
)
from zope.interface import implementer

from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from docxy.pull.blobs import resuming
from docxy.settings.model import AuthMode, Config, Timeouts, Upstream
from tests import fakes
from tests.harness.built import built
from tests.harness.certificates import issue
from tests.harness.client import Answer, Client, SendHeaders, Streamed, sent, whole

__all__ = ["ACCEPT", "PUBLIC_URL", "Answer", "Logged", "Raw", "RegistryCase", "Streamed", "UncachedCase"]

reactor: Any = _reactor

PUBLIC_URL = "https://mirror.test/base"
ACCEPT = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]
NAME = "team/app"
BLOB = bytes(range(256)) * 40
SHA = "sha256:" + "0" * 64
"""Of nothing that is there."""


class Raw(Protocol):
    """A connection whose bytes a test writes and reads itself."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()
        self.reason: Failure | None = None
        self._waiting: list[tuple[bytes, int, Deferred[bytes]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self._tell()
        self.lost.callback(None)

    def _tell(self) -> None:
        over = self.reason is not None
        ready = [each for each in self._waiting if over or self.received.count(each[0]) >= each[1]]
        self._waiting = [each for each in self._waiting if each not in ready]
        for _, _, waiting in ready:
            waiting.callback(self.received)

    def until(self, part: bytes, times: int = 1) -> Deferred[bytes]:
        """Fires with what came so far once `part` is in it so many times, or the connection is lost."""
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append((part, times, waiting))
        self._tell()
        return waiting

    def send(self, text: str) -> None:
        """Write a request; its lines end in LF here and in CRLF on the wire."""
        cast(Any, self.transport).write(text.replace("\n", "\r\n").encode("latin-1"))

    def write(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)

    def pause(self) -> None:
        cast(Any, self.transport).pauseProducing()

    def close(self) -> Deferred[None]:
        """Reset the connection, if it is still there."""
        if self.reason is None:
            cast(Any, self.transport).abortConnection()
        return self.lost


@implementer(ILogObserver)
class Logged:
    """Every event that is logged while a test runs, as text with all its fields."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    @property
    def text(self) -> str:
        return "\n".join(f"{formatEvent(event)} {event!r} {self._trace(event)}" for event in self.events)

    def _trace(self, event: LogEvent) -> str:
        failure = event.get("log_failure")
        return failure.getTraceback() if isinstance(failure, Failure) else ""


class UncachedCase(TestCase):
    """A fake upstream and docxy in front of it, in `none` mode unless a test class says otherwise."""

    auth = AuthMode.NONE
    library = False
    timeouts = Timeouts()
    tls = False
    """Whether docxy serves HTTPS."""

    async def setUp(self) -> None:
        self.upstream = fakes.Upstream(reactor)
        await self.upstream.start()
        self.addCleanup(self.upstream.stop)
        self.logged = Logged()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)
        self.start_mirror(self.make_config())

    def make_upstream(self) -> Upstream:
        return Upstream(
            "fake.test",
            self.upstream.url,
            library=self.library,
            aliases=frozenset({"alias.test"}),
            hosts=frozenset({"fake.mirror.test"}),
            private=True,
        )

    def make_config(self) -> Config:
        return Config(
            cert=None,
            key=None,
            https="",
            redirect=None,
            http="",
            public_url=PUBLIC_URL,
            auth=self.auth,
            upstreams=(self.make_upstream(),),
            timeouts=self.timeouts,
        )

    def start_mirror(self, config: Config) -> None:
        """Listen; `self.port` and `self.base` (scheme, host, port) tell where."""
        self.served = built(config, None, reactor, reactor.seconds, reactor)
        self.served.services.startService()
        self.watched = self.served.registry
        factory = cast(Any, self.watched)
        scheme = "http"
        if self.tls:
            scheme = "https"
            self.issued = issue("localhost")
            pair = PrivateCertificate.loadPEM(self.issued.pem + self.issued.key_pem())
            listening = reactor.listenSSL(0, factory, pair.options(), interface="127.0.0.1")
        else:
            listening = reactor.listenTCP(0, factory, interface="127.0.0.1", backlog=200)
        # Small buffers of the kernel's, which accepted connections inherit: what waits is docxy's to hold.
        listening.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        self.port = listening.getHost().port
        self.base = f"{scheme}://localhost:{self.port}"
        self.addCleanup(self.stop_mirror, listening)

    async def stop_mirror(self, listening: Any) -> None:
        await listening.stopListening()
        await self.watched.drain(0.1)
        await self.served.services.stopService()

    async def stream(
        self, path: str, headers: SendHeaders | None = None, method: str = "GET", body: bytes | None = None
    ) -> Streamed:
        """Ask on a connection of its own; the body is under way."""
        policy: Any = BrowserLikePolicyForHTTPS(Certificate.loadPEM(self.issued.pem) if self.tls else None)
        producer = None if body is None else FileBodyProducer(BytesIO(body))
        url = f"{self.base}{path}".encode()
        response = await Agent(reactor, policy).request(method.encode(), url, sent(headers), producer)
        client = Client()
        response.deliverBody(client)
        length = response.length if isinstance(response.length, int) else None
        told = response.headers.copy()
        if length is not None and method != "HEAD" and response.code != 304:
            # Twisted's client takes the header out where it describes the body that comes.
            told.setRawHeaders("Content-Length", [str(length)])
        return Streamed(response.code, told, length, client)

    async def ask(
        self, path: str, headers: SendHeaders | None = None, method: str = "GET", body: bytes | None = None
    ) -> Answer:
        """Ask, and take all of the answer, which must be whole."""
        return await whole(path, await self.stream(path, headers, method, body))

    async def cut(self, path: str, headers: SendHeaders | None = None) -> bytes:
        """Ask for what must not come whole; what came of it."""
        try:
            streamed = await self.stream(path, headers)
        except (ResponseNeverReceived, ResponseFailed):
            return b""
        await streamed.client.ended
        if streamed.client.whole:
            raise AssertionError(f"{path} came whole: {streamed.status}, {streamed.client.received} bytes")
        return streamed.client.body

    async def raw(self) -> Raw:
        """A connection to write requests on."""
        host = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        endpoint: Any = host
        if self.tls:
            trust = Certificate.loadPEM(self.issued.pem)
            endpoint = wrapClientTLS(optionsForClientTLS("localhost", trust), host)
        connection: Raw = await endpoint.connect(Factory.forProtocol(Raw))
        self.addCleanup(connection.close)
        return connection

    async def exchange(self, request: str) -> tuple[int, str, bytes]:
        """Status, head and body of one raw request that asks to close; its lines end in LF here."""
        connection = await self.raw()
        connection.send(request)
        await connection.lost
        head, _, body = connection.received.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), head.decode("latin-1"), body

    def sent(self, kind: str, method: str | None = None) -> fakes.Received:
        """The only request of a kind that the upstream saw."""
        (request,) = self.upstream.select(kind, method)
        return request


class RegistryCase(UncachedCase):
    """A mirror of a registry with one image, `NAME:latest`, whose layer is `BLOB`."""

    async def setUp(self) -> None:
        await super().setUp()
        # One that breaks off is gone for good; what is resumed has tests of its own.
        self.patch(resuming, "ATTEMPTS", 0)
        self.image = self.upstream.add_image(NAME, "latest", [BLOB])
        self.digest = self.upstream.add_blob(NAME, BLOB)
        self.manifest = self.upstream.repositories[NAME].manifests[str(self.image)]
        self.manifest_path = f"/v2/{NAME}/manifests/latest"
        self.blob_path = f"/v2/{NAME}/blobs/{self.digest}"

    async def assert_error(self, path: str, status: int, code: str, **options: Any) -> Answer:
        """The answer, which is an error of this status and code in the distribution-spec's JSON."""
        answer = await self.ask(path, **options)
        self.assertEqual((answer.status, answer.header("Content-Type")), (status, "application/json"), path)
        self.assertEqual(answer.code, code, path)
        self.assertIsInstance(answer.json["errors"][0]["message"], str)
        return answer

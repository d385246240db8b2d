"""On every way out, no impostor's certificate is taken, nothing is sent to it, and a line says what is the matter."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import obstore
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from docxy.archive.clients import connect, words
from docxy.cli.download import Download
from docxy.cli.failure import Failure
from docxy.cli.reach import registry
from docxy.daemon.issuing.acme import AcmeIssuer
from docxy.daemon.issuing.issuer import IssueError
from docxy.daemon.issuing.state import StateDirectory
from docxy.daemon.webhooks import Outbox
from docxy.errors import UpstreamError
from docxy.observe.alerts import Event, EventType
from docxy.settings.model import Acme, ArchiveSettings, Webhook
from docxy.settings.webhooks import EVENTS
from tests.harness.certificates import issue
from tests.harness.impostors import Fault, impostors
from tests.unit.upstream.test_trust import WaysCase

reactor: Any = _reactor
HOST, ADDRESS = "localhost", "127.0.0.1"
WORDS = {
    Fault.NAME: "is for .*, not for|names no host|not for this host|(Hostname|IP address) mismatch",
    Fault.EXPIRED: "expired",
    Fault.EARLY: "not valid (before|yet)|not yet valid",
    Fault.AUTHORITY: "authority that is not trusted|unable to get local issuer|self-signed certificate",
}

Way = Callable[[str], Coroutine[Any, Any, str]]
"""Goes out to a URL; what it says of a failure, or something else where there was none."""


class Complaints(logging.Handler):
    """What OpenTelemetry says; at the first of it its exporter tries no more."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        logging.Handler.__init__(self)
        self._exporter = exporter
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if len(self.lines) == 1:
            self._exporter.shutdown()


class EveryWay(WaysCase):
    timeout = 60

    async def setUp(self) -> None:
        await super().setUp()
        self.net.names[HOST] = [ADDRESS]
        self.ca_file = Path(self.mktemp()).resolve()
        self.ca_file.write_bytes(self.ca.pem)
        # requests heeds the first, in place of the file that OpenTelemetry names; with the others little is read.
        for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
            self.setenv(variable, "/nowhere" if variable == "SSL_CERT_DIR" else str(self.ca_file))

    def setenv(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value
        if before is None:
            self.addCleanup(os.environ.pop, name)
        else:
            self.addCleanup(os.environ.__setitem__, name, before)

    # The ways

    def pulling(self, way: Callable[[str], Coroutine[Any, Any, None]]) -> Way:
        async def went(url: str) -> str:
            try:
                await way(url)
            except UpstreamError as error:
                return str(error)
            return "pulled"

        return went

    async def webhook(self, url: str) -> str:
        done: Deferred[str] = Deferred()
        hook = Webhook(url=f"{url}/hook", secret=b"x" * 24, events=EVENTS, authorities=self.ca.pem)
        # A clock that stands still: there is no second attempt.
        outbox = Outbox(hook, "https://mirror.test", lambda outcome: None, lambda: 0.0, Clock(), reactor)

        @implementer(ILogObserver)
        def heard(event: LogEvent) -> None:
            if "did not take" in (event.get("log_format") or ""):
                done.callback(str(event["error"]))

        globalLogPublisher.addObserver(heard)
        outbox.put(Event(EventType.TAG_MOVED, "x", 0.0, {}))
        try:
            return await done
        finally:
            globalLogPublisher.removeObserver(heard)
            outbox.stop("the test ends")

    async def archive(self, url: str) -> str:
        def ask() -> str:
            settings = ArchiveSettings("s3://bucket", url, "us-east-1", "key", b"secret", self.ca.pem)
            try:
                obstore.get(connect(settings).reading, "blob")
            except Exception as error:  # whatever obstore raises
                return words(error)
            return "got"

        return await deferToThread(ask)

    async def acme(self, url: str) -> str:
        def ask() -> str:
            state = StateDirectory(os.path.abspath(self.mktemp()))
            state.create()
            try:
                AcmeIssuer(Acme(f"{url}/directory", ca_file=str(self.ca_file)), ("mirror.example",), state).issue()
            except IssueError as error:
                return str(error)
            return "issued"

        return await deferToThread(ask)

    async def collector(self, url: str) -> str:
        def send() -> str:
            exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces")
            complaints, logger = Complaints(exporter), logging.getLogger("opentelemetry")
            logger.addHandler(complaints)
            propagate, logger.propagate = logger.propagate, False
            try:
                provider = TracerProvider(shutdown_on_exit=False)
                provider.add_span_processor(SimpleSpanProcessor(exporter))
                provider.get_tracer("test").start_span("work").end()
                provider.shutdown()
            finally:
                logger.removeHandler(complaints)
                logger.propagate = propagate
            return "; ".join(complaints.lines)

        return await deferToThread(send)

    async def doctor(self, url: str) -> str:
        return await deferToThread(lambda: "; ".join(each.words for each in registry(self.upstream(url))))

    async def download(self, url: str) -> str:
        def ask() -> str:
            try:
                Download(url, [], "Basic eDp5", str(self.ca_file)).open()
            except Failure as error:
                return str(error)
            return "downloading"

        return await deferToThread(ask)

    @property
    def table(self) -> dict[str, Way]:
        pulls = {way.__name__: self.pulling(way) for way in self.ways}
        others = (self.webhook, self.archive, self.acme, self.collector, self.doctor, self.download)
        return {**pulls, **{way.__name__: way for way in others}}

    # The tests

    async def test_right(self) -> None:
        """Each way goes where the certificate is right: the refusals are not for another reason."""
        for host in (HOST, ADDRESS):
            for what, way in self.table.items():
                server = await self.registry(issue(host, by=self.ca))
                said = await way(server.origin(host=host))
                self.assertTrue(server.requests, (what, said))

    async def test_impostors(self) -> None:
        """Each way refuses each of them, in one line that says why, before it sends a byte of a request."""
        for impostor in impostors(self.ca, HOST, ADDRESS):
            server = await self.registry(impostor.issued)
            url, ways = server.origin(host=impostor.host), self.table
            # Together: some try twice, after a pause.
            answers = await gatherResults([Deferred.fromCoroutine(way(url)) for way in ways.values()])
            for what, said in zip(ways, answers, strict=True):
                self.assertTrue(re.search(WORDS[impostor.fault], said), (what, impostor.what, said))
                self.assertNotIn("\n", said)
            self.assertEqual(server.requests, [], impostor.what)

    async def test_closed(self) -> None:
        """A store that nobody serves is told of as that."""
        url = self.plain.origin("closed")
        self.assertEqual(
            await self.archive(url), f"Generic S3 error: Error performing GET {url}/bucket/blob: Connection refused"
        )

"""Which spans come of requests, fetches and fills, as the SDK's own exporter in memory has them."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import logging
import sys
from threading import Event
from typing import Any
from unittest.mock import patch

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from docxy.observe.otel import FLUSH_WITHIN, QUIET, Complaints, Tracing, make_tracing
from docxy.observe.tracing import NO_SPAN, NoTracer, Work, check
from docxy.settings.model import ConfigError
from tests.fakes import Fault, Pattern
from tests.unit.pull.harness import NAME, REPOSITORY, Mirror, MirrorCase, drain, reactor

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
URL = "http://127.0.0.1:4318/v1/traces"


class Traced(MirrorCase):
    """A mirror whose spans a test sees at once."""

    async def setUp(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(self.exporter, Complaints(URL, reactor.seconds), reactor)
        self.tracing.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.addCleanup(self.tracing.provider.shutdown)
        await super().setUp()

    def start(self, **changed: Any) -> Mirror:
        return super().start(**{"tracer": self.tracing.tracer, **changed})

    def spans(self, *names: str) -> list[ReadableSpan]:
        """Those of these names that have ended, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if not names or span.name in names]

    def told(self, span: ReadableSpan) -> dict[str, Any]:
        return dict(span.attributes or {})

    def identity(self, span: ReadableSpan) -> int:
        assert span.context is not None
        return int(span.context.span_id)

    def links(self, span: ReadableSpan) -> list[int]:
        return [link.context.span_id for link in span.links]


class RequestTests(Traced):
    """The spans of requests."""

    async def test_manifest(self) -> None:
        """A miss tells upstream, repository, reference, digest, outcome, status and bytes; its fetch is within it."""
        digest = self.upstream.add_image(REPOSITORY, layers=[Pattern(1000)])
        answer = await self.mirror.manifest("latest")
        (asked,) = self.spans("GET manifests")
        told = self.told(asked)
        self.assertEqual(asked.kind, SpanKind.SERVER)
        self.assertEqual(
            told,
            {
                "http.request.method": "GET",
                "http.response.status_code": 200,
                "http.response.body.size": len(answer.body),
                "docxy.cache": "miss",
                "docxy.whole": True,
                "docxy.digest": str(digest),
                "docxy.upstream": NAME,
                "docxy.kind": "manifests",
                "docxy.repository": REPOSITORY,
                "docxy.reference": "latest",
            },
        )
        (fetch,) = self.spans("fetch")
        self.assertEqual(fetch.kind, SpanKind.CLIENT)
        assert fetch.parent is not None
        self.assertEqual(fetch.parent.span_id, self.identity(asked))
        self.assertEqual(self.told(fetch)["docxy.upstream"], NAME)
        self.assertEqual(self.told(fetch)["http.response.status_code"], 200)

    async def test_parent(self) -> None:
        """A client's traceparent is the parent of its request's span, and goes to no upstream."""
        self.upstream.add_image(REPOSITORY, layers=[Pattern(1000)])
        await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/latest", {"traceparent": TRACEPARENT, "tracestate": "a=b"})
        (asked,) = self.spans("GET manifests")
        assert asked.context is not None and asked.parent is not None
        self.assertEqual((f"{asked.context.trace_id:032x}", f"{asked.parent.span_id:016x}"), (TRACE, PARENT))
        self.assertEqual(asked.context.trace_state.get("a"), "b")
        sent = [name.lower() for request in self.upstream.requests for name in request.headers]
        self.assertNotIn("traceparent", sent)

    async def test_invalid_parent(self) -> None:
        """A traceparent that is none, or two of them, begins a trace as if there were none; the answer is the same."""
        wrong: list[str | list[str]] = [
            "",
            "nonsense",
            TRACEPARENT.upper(),
            f"00-{'0' * 32}-{PARENT}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"ff-{TRACE}-{PARENT}-01",
            f"{TRACEPARENT}-more",
            "é" * 500,
            [TRACEPARENT, TRACEPARENT],
        ]
        for value in wrong:
            answer = await self.mirror.ask("/v2/", {"traceparent": value})
            self.assertEqual(answer.status, 200)
        asked = self.spans("GET ping")
        self.assertEqual([span.parent for span in asked], [None] * len(wrong))

    async def test_unsampled(self) -> None:
        """A client whose trace is not recorded leaves no span, nor do the fetches for it."""
        self.upstream.add_image(REPOSITORY, layers=[Pattern(1000)])
        await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/latest", {"traceparent": f"00-{TRACE}-{PARENT}-00"})
        self.assertEqual(self.spans(), [])

    async def test_no_secret(self) -> None:
        """No span holds the client's credentials or query; a status of 5xx is an error that says why."""
        self.upstream.on("manifest", Fault(status=500), times=None)
        path = f"/v2/{REPOSITORY}/manifests/latest?ns={NAME}&signature=hush"
        answer = await self.mirror.ask(path, {"Authorization": "Bearer sesame"})
        (asked,) = self.spans("GET manifests")
        self.assertEqual((answer.status, asked.status.status_code), (502, StatusCode.ERROR))
        self.assertIn("answered 500", str(asked.status.description))
        everything = "".join(span.to_json() for span in self.spans())
        for secret in ("hush", "sesame"):
            self.assertNotIn(secret, everything)

    async def test_left(self) -> None:
        """The span of a client that leaves ends too, and says that the answer was not whole."""
        digest = self.upstream.add_blob(REPOSITORY, Pattern(8 << 20))
        ended: Deferred[None] = Deferred()
        shutdown = self.exporter.export

        def export(spans: Any) -> Any:
            if any(span.name == "GET blobs" for span in spans):
                reactor.callLater(0, ended.callback, None)
            return shutdown(spans)

        with patch.object(self.exporter, "export", export):
            streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{digest}", paused=True)
            streamed.client.vanish()
            await ended
        (asked,) = self.spans("GET blobs")
        self.assertEqual(self.told(asked)["docxy.whole"], False)
        await drain(self.mirror, digest)


class FillTests(Traced):
    """The spans of fills."""

    async def test_joined(self) -> None:
        """A fill is within the request that began it; it and each request that joined are linked both ways."""
        digest = self.upstream.add_blob(REPOSITORY, Pattern(100_000))
        rule = self.upstream.on("blob", Fault(stall_after=10))
        first = Deferred.fromCoroutine(self.mirror.blob(digest))
        await rule.struck()
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{digest}")
        rule.release()
        await first
        await streamed.client.ended
        await drain(self.mirror, digest)
        (fill,) = self.spans("fill")
        asked = {self.told(span)["docxy.cache"]: span for span in self.spans("GET blobs")}
        assert fill.parent is not None
        self.assertEqual(fill.parent.span_id, self.identity(asked["miss"]))
        self.assertEqual(self.links(fill), [self.identity(asked["collapsed"])])
        self.assertEqual(self.links(asked["collapsed"]), [self.identity(fill)])
        told = self.told(fill)
        self.assertEqual((told["docxy.digest"], told["docxy.repository"]), (str(digest), REPOSITORY))
        self.assertEqual((told["docxy.received"], told["docxy.size"], told["docxy.joined"]), (100_000, 100_000, 2))
        self.assertEqual(fill.status.status_code, StatusCode.UNSET)

    async def test_resumed(self) -> None:
        """A fetch that goes on after the upstream broke off is within the fill, not within the request."""
        digest = self.upstream.add_blob(REPOSITORY, Pattern(100_000))
        self.upstream.on("blob", Fault(cut_after=50_000))
        await self.mirror.blob(digest)
        await drain(self.mirror, digest)
        (fill,) = self.spans("fill")
        again = self.spans("fetch")[-1]
        assert again.parent is not None
        self.assertEqual(again.parent.span_id, self.identity(fill))
        self.assertEqual(self.told(fill)["docxy.resumed"], 1)


class Hanging(SpanExporter):
    """A collector that takes spans and says nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go = Event()
        self.exported = 0

    def export(self, spans: Any) -> SpanExportResult:
        self.exported += len(spans)
        self.let_go.wait(30)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        return


class ServiceTests(TestCase):
    """The service that sends spans."""

    def make(self, exporter: SpanExporter) -> Tracing:
        complaints = Complaints(URL, reactor.seconds)
        complaints.collect()
        self.addCleanup(complaints.stop)
        return Tracing(exporter, complaints, reactor)

    async def test_last_spans(self) -> None:
        """The stop sends what waits; a service that is not started has no thread of the SDK."""
        exporter = InMemorySpanExporter()
        tracing = self.make(exporter)
        tracing.startService()
        tracing.tracer.answering(b"GET", {}).end({}, None)
        self.assertEqual(exporter.get_finished_spans(), ())
        await tracing.stopService()
        self.assertEqual([span.name for span in exporter.get_finished_spans()], ["GET"])

    async def test_hanging(self) -> None:
        """A collector that hangs holds up the stop for a bounded time."""
        exporter = Hanging()
        self.addCleanup(exporter.let_go.set)
        self.patch(sys.modules["docxy.observe.otel"], "FLUSH_WITHIN", 0.05)
        tracing = self.make(exporter)
        tracing.startService()
        tracing.tracer.answering(b"GET", {}).end({}, None)
        await tracing.stopService()
        self.assertLess(FLUSH_WITHIN, 5.0)

    async def test_bounded(self) -> None:
        """While the collector hangs, the queue keeps its bound, and what is too much is dropped."""
        exporter = Hanging()
        with patch.dict("os.environ", {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}):
            tracing = self.make(exporter)
            tracing.startService()
        with capturedLogs() as logged:
            for _ in range(100):
                tracing.tracer.answering(b"GET", {}).end({}, None)
        exporter.let_go.set()
        await tracing.stopService()
        self.assertLessEqual(exporter.exported, 8 + 4)
        self.assertLessEqual(len(logged), 1)


class ComplaintTests(SynchronousTestCase):
    """What the SDK logs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.complaints = Complaints(URL, self.clock.seconds)
        self.complaints.collect()
        self.addCleanup(self.complaints.stop)

    def test_once_a_minute(self) -> None:
        """A collector that is down costs a line a minute, which names it and says why."""
        exporter = logging.getLogger("opentelemetry.exporter.otlp")
        with capturedLogs() as logged:
            for _ in range(10):
                exporter.error("connection\nrefused")
            self.assertEqual(
                [formatEvent(event) for event in logged],
                [f"traces for {URL}: connection refused; spans that cannot be sent are dropped"],
            )
            self.clock.advance(QUIET)
            exporter.error("still")
            self.assertEqual(len(logged), 2)

    def test_no_header(self) -> None:
        """What the SDK says of a header that it cannot read is not logged, as it may be a password."""
        self.complaints.stop()
        with patch.dict("os.environ", {"OTEL_EXPORTER_OTLP_HEADERS": "hush"}), capturedLogs() as logged:
            tracer, tracing = make_tracing(URL, self.clock.seconds, self.clock)
            self.addCleanup(tracing._complaints.stop)
        self.assertIs(tracing.tracer, tracer)
        self.assertEqual(len(logged), 1)
        self.assertNotIn("hush", repr(logged[0]))

    def test_unusable_variable(self) -> None:
        """A variable that the SDK refuses is one line for the operator."""
        with patch.dict("os.environ", {"OTEL_SPAN_LINK_COUNT_LIMIT": "many"}):
            error = self.assertRaises(ConfigError, make_tracing, URL, self.clock.seconds, self.clock)
        self.assertIn("many", str(error))
        with patch.dict("os.environ", {"OTEL_BSP_MAX_QUEUE_SIZE": "4"}):
            _, tracing = make_tracing(URL, self.clock.seconds, self.clock)
            self.addCleanup(tracing._complaints.stop)
            error = self.assertRaises(ConfigError, tracing.startService)
        self.assertIn("max_queue_size", str(error))


class OffTests(SynchronousTestCase):
    """Where nobody traces."""

    def test_nothing(self) -> None:
        """Each span is the same one, which does nothing."""
        tracer = NoTracer()
        for span in (tracer.answering(b"GET", {}), tracer.begin(Work.FILL, {})):
            self.assertIs(span, NO_SPAN)
            self.assertFalse(span.recording)
            with span.within():
                span.joined()
                span.end({}, "failed")

    def test_missing(self) -> None:
        """Without the extra, a collector is an error of one line that says what to install."""
        told = f"traces for {URL} need OpenTelemetry, which is not installed: pip install 'docxy[otel]'"
        for hidden in ("opentelemetry", "opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"):
            with patch.dict(sys.modules):
                for name in [each for each in sys.modules if each.startswith(f"{hidden}.")]:
                    del sys.modules[name]
                sys.modules[hidden] = None  # type: ignore[assignment]  # so import says that there is none
                check(None)
                error = self.assertRaises(ConfigError, check, URL)
            self.assertEqual(str(error), told)
        check(URL)

    def test_sampler(self) -> None:
        """The SDK's sampler decides, as OTEL_TRACES_SAMPLER names it."""
        with patch.dict("os.environ", {"OTEL_TRACES_SAMPLER": "always_off"}):
            tracing = Tracing(InMemorySpanExporter(), Complaints(URL, lambda: 0.0), None)
        self.assertIs(tracing.provider.sampler, ALWAYS_OFF)
        self.assertFalse(tracing.tracer.answering(b"GET", {}).recording)

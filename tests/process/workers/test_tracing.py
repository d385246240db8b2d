"""Traces of a daemon with workers, as a collector gets them over OTLP."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from twisted.trial.unittest import SynchronousTestCase

from tests.harness.docxy import spawn
from tests.harness.processes import free_port
from tests.harness.servers import QuietHandler, serve
from tests.process.workers.harness import Upstream, WorkersCase

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector:
    """Takes spans over OTLP/HTTP, as its specification says: protobuf, POST, one path for traces."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
                    self.send_error(404)
                    return
                collector.received.append(ExportTraceServiceRequest.FromString(body))
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        self.url = serve(test, Handler)

    def spans(self) -> Iterator[Span]:
        for request in self.received:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def services(self) -> set[str]:
        """What those that sent call themselves."""
        return {
            attribute.value.string_value
            for request in self.received
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }


class TracingTests(WorkersCase):
    def test_collected(self) -> None:
        """A pull's request, its fetch and its fill arrive as one trace of the client's, the last ones at the stop."""
        upstream, collector = Upstream(self), Collector(self)
        upstream.gate.set()
        blob = upstream.add(100_000)
        self.start(
            UPSTREAM=upstream.url,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=hush",
            OTEL_BSP_SCHEDULE_DELAY="600000",
            OTEL_SERVICE_NAME="mirror",
        )
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "Authorization": "Bearer sesame"}
        self.assertEqual(self.status(self.connection(), f"{blob}?ns=x", headers), 404)
        self.assertEqual(self.status(self.connection(), blob, headers), 200)
        self.assertEqual(collector.received, [])
        daemon = self.daemon
        self.assertEqual(daemon.stop(), -15)
        spans = {span.name: span for span in collector.spans() if span.trace_id.hex() == TRACE and not _failed(span)}
        self.assertEqual(sorted(spans), ["GET blobs", "fetch", "fill"])
        asked = spans["GET blobs"]
        self.assertEqual(asked.parent_span_id.hex(), PARENT)
        self.assertEqual({spans[name].parent_span_id for name in ("fetch", "fill")}, {asked.span_id})
        told = {each.key: each.value for each in spans["fill"].attributes}
        self.assertEqual(told["docxy.received"].int_value, 100_000)
        self.assertEqual(told["docxy.digest"].string_value, blob.rpartition("/")[2])
        self.assertEqual(collector.services(), {"mirror"})
        self.assertEqual({each["x-tenant"] for each in collector.headers}, {"hush"})
        everything = "".join(map(str, collector.received))
        for secret in ("sesame", "hush", "?ns"):
            self.assertNotIn(secret, everything)
        self.assertNotIn("hush", daemon.text())

    def test_down(self) -> None:
        """A collector that is down costs nobody an answer, a line of the log, and no more than seconds at the stop."""
        upstream = Upstream(self)
        upstream.gate.set()
        url = f"http://127.0.0.1:{free_port()}"
        args = ["--otlp-endpoint", url]
        self.start(args, 2, UPSTREAM=upstream.url, OTEL_BSP_SCHEDULE_DELAY="50", SHUTDOWN_GRACE="20")
        daemon = self.daemon
        for size in range(10):
            self.assertEqual(self.status(self.connection(), upstream.add(size + 1)), 200)
        daemon.until(lambda: "spans that cannot be sent" in daemon.text())
        began = time.monotonic()
        self.assertEqual(daemon.stop(), -15)
        self.assertLess(time.monotonic() - began, 15)
        complaints = [line for line in daemon.text().splitlines() if "spans that cannot be sent" in line]
        self.assertIn(len(complaints), (1, 2), "one for each worker that served")
        self.assertIn(f"traces for {url}/v1/traces: ", complaints[0])
        self.assertNotIn("Traceback", daemon.text())

    def test_missing(self) -> None:
        """Without the extra, a collector ends the start with one line that says what to install."""
        hidden = "import sys; sys.modules['opentelemetry'] = None; from twisted.scripts.twistd import run; run()"
        argv = [sys.executable, "-c", hidden, "--nodaemon", "--pidfile=", "docxy", "--cert=off", "--cache=off"]
        daemon = spawn(self, [*argv, "--otlp-endpoint=http://127.0.0.1:4318"])
        self.assertEqual(daemon.process.wait(60), 1)
        self.assertEqual(
            daemon.text(),
            "docxy: traces for http://127.0.0.1:4318/v1/traces need OpenTelemetry, which is not installed: "
            "pip install 'docxy[otel]'\n",
        )


def _failed(span: Span) -> bool:
    """Whether it is of the request that was refused."""
    return any(each.key == "http.response.status_code" and each.value.int_value == 404 for each in span.attributes)

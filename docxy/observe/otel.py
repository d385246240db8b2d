"""Spans by the SDK of OpenTelemetry, sent to a collector over OTLP/HTTP.

The law: the reactor's thread only puts a span into a bounded queue; a thread of the SDK sends it.  What the queue
has no room for is dropped, and a collector that is down costs a line of the log a minute.  Only this module
imports OpenTelemetry, which is an extra; `docxy.assembly` imports it where there is a collector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from threading import Thread
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from docxy import __version__
from docxy.observe.tracing import ISpan, ITracer, Told, Work
from docxy.settings.model import ConfigError

QUIET = 60.0
"""Seconds between two lines about what goes wrong with the collector."""
FLUSH_WITHIN = 3.0
"""Seconds that the spans which wait may take at the stop; a supervisor kills its workers 5 s after the grace."""

_KINDS = {Work.FETCH: trace.SpanKind.CLIENT, Work.FILL: trace.SpanKind.INTERNAL}
_current: ContextVar[SdkSpan | None] = ContextVar("span", default=None)


@implementer(ISpan)
class SdkSpan:
    """A span of the SDK."""

    def __init__(self, span: trace.Span) -> None:
        self.span = span

    @property
    def recording(self) -> bool:
        return self.span.is_recording()

    def within(self) -> AbstractContextManager[None]:
        return _within(self)

    def joined(self) -> None:
        other = _current.get()
        if other is None or other is self:
            return
        for one, two in ((self.span, other.span), (other.span, self.span)):
            if one.is_recording():
                one.add_link(two.get_span_context())

    def call(self, name: str) -> None:
        self.span.update_name(name)

    def end(self, told: Told, failed: str | None) -> None:
        if self.span.is_recording():
            self.span.set_attributes(_known(told))
            if failed is not None:
                self.span.set_status(trace.StatusCode.ERROR, failed)
        self.span.end()


@contextmanager
def _within(span: SdkSpan) -> Iterator[None]:
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)


def _known(told: Told) -> dict[str, str | int]:
    return {name: value for name, value in told.items() if value is not None}


@implementer(ITracer)
class Tracer:
    """Begins spans of the SDK; which ones are recorded, `OTEL_TRACES_SAMPLER` says."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    def answering(self, method: bytes, fields: Mapping[bytes, list[bytes]]) -> ISpan:
        parent = None
        told = fields.get(b"traceparent", [])
        if len(told) == 1:
            # Several lines of tracestate are one list (RFC 9110 section 5.3).
            carrier = {"traceparent": told[0], "tracestate": b",".join(fields.get(b"tracestate", []))}
            texts = {name: value.decode("latin-1") for name, value in carrier.items()}
            parent = self._propagator.extract(texts)
        return SdkSpan(self._tracer.start_span(method.decode("latin-1"), parent, trace.SpanKind.SERVER))

    def begin(self, work: Work, told: Told) -> ISpan:
        current = _current.get()
        parent = None if current is None else trace.set_span_in_context(current.span)
        return SdkSpan(self._tracer.start_span(work.value, parent, _KINDS[work], _known(told)))


def make_tracing(collector: str, seconds: Callable[[], float], reactor: Any) -> tuple[Tracer, Tracing]:
    """What begins spans, and the service that sends them to the URL of a collector.

    Raises ConfigError for a variable of OpenTelemetry's that cannot be used.
    """
    complaints = Complaints(collector, seconds)
    complaints.collect()
    try:
        tracing = Tracing(OTLPSpanExporter(endpoint=collector), complaints, reactor)
    except (ValueError, RuntimeError, OSError) as error:
        complaints.stop()
        raise ConfigError(f"OpenTelemetry: {error}") from None
    return tracing.tracer, tracing


class Tracing(Service):
    """Sends spans from its start, in a thread: so a process that forks has done so before."""

    def __init__(self, exporter: SpanExporter, complaints: Complaints, reactor: Any) -> None:
        """`complaints`: collects already what the SDK logs, and stops with the service."""
        # The environment knows better than docxy what it is called.
        named = Resource({"service.name": "docxy", "service.version": __version__})
        self.provider = TracerProvider(
            resource=Resource.create().merge(named).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self.tracer = Tracer(self.provider.get_tracer("docxy", __version__))
        self._exporter = exporter
        self._reactor = reactor
        self._complaints = complaints

    def startService(self) -> None:
        """Raises ConfigError for a variable `OTEL_BSP_*` that cannot be used."""
        Service.startService(self)
        try:
            self.provider.add_span_processor(BatchSpanProcessor(self._exporter))
        except ValueError as error:
            raise ConfigError(f"OpenTelemetry: {error}") from None

    def stopService(self) -> Deferred[None]:
        """Fires when what waited is sent, or after `FLUSH_WITHIN` seconds."""
        Service.stopService(self)
        done: Deferred[None] = Deferred()

        def ended() -> None:
            if late.active():
                late.cancel()
            if not done.called:
                self._complaints.stop()
                done.callback(None)

        def flush() -> None:
            try:
                self.provider.shutdown()
            finally:
                self._reactor.callFromThread(ended)

        late = self._reactor.callLater(FLUSH_WITHIN, ended)
        # A thread of the reactor's pool would hold up the end of the process for as long as the collector does.
        Thread(target=flush, name="last spans", daemon=True).start()
        return done


class Complaints(logging.Handler):
    """What the SDK logs, of which docxy's log gets a line a minute."""

    _log = Logger()

    def __init__(self, collector: str, seconds: Callable[[], float]) -> None:
        """`collector`: its URL, for the log; `seconds`: a clock's, by which lines are spaced."""
        logging.Handler.__init__(self, logging.WARNING)
        self._collector = collector
        self._seconds = seconds
        self._next = 0.0
        self._logger = logging.getLogger("opentelemetry")

    def collect(self) -> None:
        """From now on, instead of standard error."""
        self._logger.addHandler(self)
        self._logger.propagate = False

    def stop(self) -> None:
        """Nothing that is still said is of interest: the process ends."""
        self._logger.removeHandler(self)
        self._logger.addHandler(logging.NullHandler())

    def emit(self, record: logging.LogRecord) -> None:
        """Called in any thread."""
        now = self._seconds()
        if now >= self._next:
            self._next = now + QUIET
            # What cannot be read of OTEL_EXPORTER_OTLP_HEADERS may be a password.
            is_safe = record.name.startswith(("opentelemetry.sdk.", "opentelemetry.exporter."))
            why = record.getMessage() if is_safe else "a variable of OpenTelemetry's cannot be read"
            self._log.warn(
                "traces for {collector}: {why}; spans that cannot be sent are dropped",
                collector=self._collector,
                why=" ".join(why.split())[:300],
            )

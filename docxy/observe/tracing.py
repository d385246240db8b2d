"""Traces: which work was done for which request, in spans that a collector gets.

The laws: *where nobody traces, a span costs a call that does nothing.*  A span never holds a credential, a query
or a URL; no span's identity goes to an upstream.  The current span follows a coroutine and all that it awaits or
starts, as notes do (`docxy.observe.trail`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from importlib.util import find_spec

from zope.interface import Attribute, Interface, implementer

from docxy.settings.model import ConfigError

Told = Mapping[str, str | int | None]
"""Attributes; None: not known, and left out."""


class Work(Enum):
    """What docxy does within a request, or for several."""

    FETCH = "fetch"
    """An exchange with an upstream, redirects included, until the head of the last response."""
    FILL = "fill"
    """A blob on its way into the cache."""


class ISpan(Interface):
    """Some work, from when it began."""

    recording: bool = Attribute("Whether anybody will see it: what `end` gets need not be made where not.")

    def within() -> AbstractContextManager[None]:
        """What begins within is a part of this."""

    def joined() -> None:
        """The current span waits for this one too: each gets a link to the other.  Links are bounded."""

    def call(name: str) -> None:
        """It has another name, one of few."""

    def end(told: Told, failed: str | None) -> None:
        """It is over; `failed`: why it failed, in words without a URL's query."""


class ITracer(Interface):
    """Begins spans."""

    def answering(method: bytes, fields: Mapping[bytes, list[bytes]]) -> ISpan:
        """A client asked; `fields`: its headers, names in lower case, of which `traceparent` may name a parent.

        An invalid one is ignored, as W3C Trace Context says.
        """

    def begin(work: Work, told: Told) -> ISpan:
        """Some work begins, as a part of the current span."""


_NOTHING = nullcontext()


@implementer(ISpan)
class NoSpan:
    """Where nobody traces."""

    recording = False

    def within(self) -> AbstractContextManager[None]:
        return _NOTHING

    def joined(self) -> None:
        return

    def call(self, name: str) -> None:
        return

    def end(self, told: Told, failed: str | None) -> None:
        return


NO_SPAN = NoSpan()


@implementer(ITracer)
class NoTracer:
    """Traces nothing."""

    def answering(self, method: bytes, fields: Mapping[bytes, list[bytes]]) -> ISpan:
        return NO_SPAN

    def begin(self, work: Work, told: Told) -> ISpan:
        return NO_SPAN


def check(collector: str | None) -> None:
    """Raises ConfigError when there is a collector, and nothing that could speak to it."""
    if collector is None:
        return
    try:
        missing = find_spec("opentelemetry.sdk.trace") is None or find_spec(_EXPORTER) is None
    except ModuleNotFoundError:  # the package that it would be in
        missing = True
    if missing:
        raise ConfigError(f"traces for {collector} need OpenTelemetry, which is not installed: {_INSTALL}")


_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_INSTALL = "pip install 'docxy[otel]'"

"""What Prometheus gets at `/metrics`.

The law: one text for all registries; exemplars are for those who ask for OpenMetrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample
from twisted.web.resource import Resource
from twisted.web.server import Request

from docxy.errors import NotFound
from docxy.observe.exemplars import Exemplars
from docxy.observe.metrics import FIRST_BYTE, REQUESTS


class Metrics(Resource):
    """`/metrics` of these registries, for everyone who reaches the port."""

    def __init__(self, *registries: CollectorRegistry, exemplars: Exemplars) -> None:
        """`exemplars`: for those who ask for OpenMetrics."""
        Resource.__init__(self)
        self.putChild(b"metrics", _Scrape(registries, exemplars))

    def getChild(self, path: bytes, request: Request) -> Resource:
        return _Nothing()


class _Nothing(Resource):
    """Everything else."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)

    def render_GET(self, request: Request) -> bytes:
        error = NotFound("metrics are at /metrics")
        request.setResponseCode(error.status)
        request.setHeader(b"Content-Type", b"application/json")
        return error.body()


class _Scrape(Resource):
    isLeaf = True

    def __init__(self, registries: tuple[CollectorRegistry, ...], exemplars: Exemplars) -> None:
        Resource.__init__(self)
        # One text for all of them: that of OpenMetrics has an end.
        self._plain, self._registry = CollectorRegistry(), CollectorRegistry()
        self._plain.register(_All(registries, Exemplars()))
        self._registry.register(_All(registries, exemplars))

    def render_GET(self, request: Request) -> bytes:
        # `prometheus_client` chooses too, but fails at versions that are no numbers.
        if "application/openmetrics-text" in (request.getHeader("Accept") or ""):
            request.setHeader(b"Content-Type", openmetrics.CONTENT_TYPE_LATEST.encode("ascii"))
            text: bytes = openmetrics.generate_latest(self._registry)
            return text
        request.setHeader(b"Content-Type", CONTENT_TYPE_PLAIN_0_0_4.encode("ascii"))
        return generate_latest(self._plain)


class _All(Collector):
    """What several registries hold, with exemplars, which `prometheus_client` keeps none of for several processes."""

    def __init__(self, registries: Sequence[CollectorRegistry], exemplars: Exemplars) -> None:
        self._registries = registries
        self._exemplars = exemplars

    def collect(self) -> Iterator[Metric]:
        for registry in self._registries:
            for metric in registry.collect():
                if metric.name in (REQUESTS, FIRST_BYTE):
                    metric.samples = [self._with_exemplar(metric.name, sample) for sample in metric.samples]
                yield metric

    def _with_exemplar(self, name: str, sample: Sample) -> Sample:
        labels = dict(sample.labels)
        bound = labels.pop("le", None)
        found = None if bound is None else self._exemplars.of(name, labels, float(bound))
        if found is None:
            return sample
        return sample._replace(exemplar=Exemplar({"request_id": found.request_id}, found.seconds, found.at))

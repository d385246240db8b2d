"""Metrics for Prometheus.

The law: all processes of one docxy are one target.  Workers count into files of one directory
(`prometheus_client`'s multiprocess mode), which the supervisor reads when it is asked; a worker
that ends leaves what it counted.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from twisted.web.resource import Resource
from twisted.web.server import Request
from zope.interface import implementer

import docxy
from docxy.metrics import Answered, IMeter

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that `prometheus_client` reads when it is imported."""
disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@implementer(IMeter)
class Meter:
    """Counts for one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "docxy_requests_total",
            "Requests answered.",
            ["upstream", "kind", "status", "cache"],
            registry=registry,
        )
        self._sent = Counter(
            "docxy_sent_bytes_total",
            "Bytes of bodies sent to clients.",
            ["upstream", "kind", "cache"],
            registry=registry,
        )
        self._fetches = Counter(
            "docxy_upstream_responses_total",
            "Responses of upstreams, redirects followed; status none: no response.",
            ["upstream", "status"],
            registry=registry,
        )
        self._received = Counter(
            "docxy_upstream_received_bytes_total",
            "Bytes of bodies received from upstreams.",
            ["upstream"],
            registry=registry,
        )
        self._limit = Gauge(
            "docxy_upstream_pull_limit",
            "Pulls that an upstream allows, as it said last.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._remaining = Gauge(
            "docxy_upstream_pulls_remaining",
            "Pulls that are left of that.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._in_progress = Gauge(
            "docxy_requests_in_progress",
            "Requests being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._connections = Gauge(
            "docxy_connections", "Connections of clients.", registry=registry, multiprocess_mode="livesum"
        )
        self._fills = Gauge(
            "docxy_fills_in_progress",
            "Blobs being fetched into the cache.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._used = Gauge("docxy_cache_bytes", "Bytes in the cache.", registry=registry, multiprocess_mode="livemax")
        self._budget = Gauge(
            "docxy_cache_budget_bytes",
            "Bytes the cache may take.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._known: dict[Answered, tuple[Counter, Counter]] = {}

    def answered(self, what: Answered, sent: int) -> None:
        known = self._known.get(what)
        if known is None:
            known = self._known[what] = (
                self._requests.labels(what.upstream, what.kind, what.status, what.cache),
                self._sent.labels(what.upstream, what.kind, what.cache),
            )
        known[0].inc()
        known[1].inc(sent)

    def fetched(self, upstream: str, status: int | None) -> None:
        self._fetches.labels(upstream, "none" if status is None else status).inc()

    def received(self, upstream: str, count: int) -> None:
        self._received.labels(upstream).inc(count)

    def allowed(self, upstream: str, limit: int, remaining: int) -> None:
        self._limit.labels(upstream).set(limit)
        self._remaining.labels(upstream).set(remaining)

    def sampled(self, requests: int, connections: int, fills: int) -> None:
        self._in_progress.set(requests)
        self._connections.set(connections)
        self._fills.set(fills)

    def kept(self, used: int, budget: int) -> None:
        self._used.set(used)
        self._budget.set(budget)


def own_registry() -> CollectorRegistry:
    """What a process that answers scrapes says of itself, whether it serves or watches over those that do."""
    registry = CollectorRegistry()
    info = Gauge("docxy_info", "Always 1.", ["version"], registry=registry)
    info.labels(docxy.__version__).set(1)
    return registry


class Tally:
    """What workers count, as their supervisor sees it."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="docxy-metrics-")
        """Where they count; `close` removes it."""
        self.own = own_registry()
        self.workers = CollectorRegistry()
        MultiProcessCollector(self.workers, path=self.directory)  # type: ignore[no-untyped-call]  # not annotated
        self._restarts = Counter(
            "docxy_worker_restarts_total", "Workers that ended and were started again.", registry=self.own
        )

    def restarted(self) -> None:
        """A worker that ended is started again."""
        self._restarts.inc()

    def forget(self, pid: int) -> None:
        """A worker has ended: what it was at is no more, what it counted stays."""
        for name in os.listdir(self.directory):
            if name.startswith("gauge_live") and name.endswith(f"_{pid}.db"):
                os.unlink(os.path.join(self.directory, name))

    def close(self) -> None:
        """All have ended."""
        shutil.rmtree(self.directory, ignore_errors=True)


class Metrics(Resource):
    """`/metrics` of these registries, for whoever reaches the port."""

    def __init__(self, *registries: CollectorRegistry) -> None:
        Resource.__init__(self)
        self.putChild(b"metrics", _Scrape(registries))


class _Scrape(Resource):
    isLeaf = True

    def __init__(self, registries: tuple[CollectorRegistry, ...]) -> None:
        Resource.__init__(self)
        self._registries = registries

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", CONTENT_TYPE)
        return b"".join(generate_latest(registry) for registry in self._registries)

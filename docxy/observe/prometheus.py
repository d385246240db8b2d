"""Metrics for Prometheus.

The law: all processes of one docxy are one target.  Workers count into files of one directory
(`prometheus_client`'s multiprocess mode), which the supervisor reads when it is asked.  The files have
the workers' numbers, not their process ids: a worker that is started again counts on, and there are never
more files than workers.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import MultiProcessValue
from zope.interface import implementer

import docxy
import twisted
from docxy.observe.metrics import (
    FIRST_BUCKETS,
    FIRST_BYTE,
    REQUEST_BUCKETS,
    REQUESTS,
    AnswerLabels,
    Count,
    IMeter,
    outcome,
    status_label,
)

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that `prometheus_client` reads when it is imported."""
disable_created_metrics()

UPSTREAM_BUCKETS = (0.025, 0.1, 0.25, 1.0, 5.0, 30.0)


def count_as(worker: int) -> None:
    """From now on this process counts as a worker.  `worker`: its number."""
    values.ValueClass = MultiProcessValue(lambda: worker)


@implementer(IMeter)
class Meter:
    """Counts for one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "docxy_requests_total",
            "Requests that are over, by status; left: the client left before, cut: docxy cut the answer off.",
            ["upstream", "kind", "status", "cache"],
            registry=registry,
        )
        self._sent = Counter(
            "docxy_sent_bytes_total",
            "Bytes of bodies sent to clients.",
            ["upstream", "kind", "cache"],
            registry=registry,
        )
        self._seconds = Histogram(
            REQUESTS,
            "Seconds from a request's head to the end of its answer.",
            ["kind", "outcome"],
            registry=registry,
            buckets=REQUEST_BUCKETS,
        )
        self._first = Histogram(
            FIRST_BYTE,
            "Seconds from the head of a request for a blob to the first byte of the blob.",
            ["outcome"],
            registry=registry,
            buckets=FIRST_BUCKETS,
        )
        self._latency = Histogram(
            "docxy_upstream_seconds",
            "Seconds from a request to the head of the upstream's response, redirects followed.",
            ["upstream"],
            registry=registry,
            buckets=UPSTREAM_BUCKETS,
        )
        self._backing_off = Gauge(
            "docxy_upstream_backing_off",
            "1 while docxy asks none of an upstream's endpoints, because all of them failed.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._limited = Gauge(
            "docxy_upstream_limited",
            "1 while an upstream's 429 keeps every account of docxy from asking.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._counters = {
            what: Counter(name, documentation, labels, registry=registry)
            for what, name, documentation, labels in _COUNTERS
        }
        self._totals: dict[tuple[Count, tuple[str, ...]], int] = {}
        self._fetches = Counter(
            "docxy_upstream_responses_total",
            "Responses of upstreams, redirects followed; status none: no response, invalid: not 100 to 599.",
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
            "Pulls that an upstream allows an account of docxy, as it said last.",
            ["upstream", "account"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._remaining = Gauge(
            "docxy_upstream_pulls_remaining",
            "Pulls that are left of that.",
            ["upstream", "account"],
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
        self._registry = registry
        self._known: dict[AnswerLabels, tuple[Counter, Counter, Histogram]] = {}

    def answered(self, what: AnswerLabels, sent: int, seconds: float | None, first_byte: float | None) -> None:
        known = self._known.get(what)
        if known is None:
            known = self._known[what] = (
                self._requests.labels(what.upstream, what.kind, what.status_label, what.cache),
                self._sent.labels(what.upstream, what.kind, what.cache),
                self._seconds.labels(what.kind, outcome(what)),
            )
        requests, body, duration = known
        requests.inc()
        if sent:
            body.inc(sent)
        if seconds is not None:
            duration.observe(seconds)
        if first_byte is not None:
            self._first.labels(outcome(what)).observe(first_byte)

    def fetched(self, upstream: str, status: int | None, seconds: float) -> None:
        self._fetches.labels(upstream, status_label(status)).inc()
        if status is not None:
            self._latency.labels(upstream).observe(seconds)

    def received(self, upstream: str, count: int) -> None:
        self._received.labels(upstream).inc(count)

    def allowed(self, upstream: str, account: str, limit: int, remaining: int) -> None:
        self._limit.labels(upstream, account).set(limit)
        self._remaining.labels(upstream, account).set(remaining)

    def counted(self, what: Count, labels: Sequence[str], total: int) -> None:
        counter = self._counters[what]
        child = counter.labels(*labels) if labels else counter
        key = what, tuple(labels)
        child.inc(total - self._totals.get(key, 0))
        self._totals[key] = total

    def reachable(self, upstream: str, backing_off: bool, limited: bool) -> None:
        self._backing_off.labels(upstream).set(backing_off)
        self._limited.labels(upstream).set(limited)

    def certified(self, until: float) -> None:
        self._certificate.set(until)

    def renewing(self, failures: int, due: float | None) -> None:
        self._renewal_failures.set(failures)
        if due is not None:
            self._renewal.set(due)

    # A gauge that is there says 0 until it is set, which would tell of a cache that failed and of a certificate
    # that has ended where there is none: these come when there is something to tell.

    @cached_property
    def _certificate(self) -> Gauge:
        return Gauge(
            "docxy_certificate_expiry_timestamp_seconds",
            "When the certificate that is served ends, in seconds since the epoch.",
            registry=self._registry,
            multiprocess_mode="livemin",
        )

    @cached_property
    def _renewal(self) -> Gauge:
        return Gauge(
            "docxy_certificate_renewal_timestamp_seconds",
            "When docxy is to renew its own certificate, in seconds since the epoch.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )

    @cached_property
    def _renewal_failures(self) -> Gauge:
        return Gauge(
            "docxy_certificate_renewal_failures",
            "Failures in a row to get docxy's own certificate.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )

    @cached_property
    def _usable(self) -> Gauge:
        return self._of_cache("usable", "1 while the cache can be used, 0 while clients are served past it.")

    @cached_property
    def _used(self) -> Gauge:
        return self._of_cache("bytes", "Bytes in the cache.")

    @cached_property
    def _budget(self) -> Gauge:
        return self._of_cache("budget_bytes", "Bytes the cache may take.")

    @cached_property
    def _free(self) -> Gauge:
        return self._of_cache("disk_free_bytes", "Bytes that the disk of the cache has free.")

    def _of_cache(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"docxy_cache_{name}", documentation, registry=self._registry, multiprocess_mode="livemax")

    @cached_property
    def _archive_usable(self) -> Gauge:
        return Gauge(
            "docxy_archive_usable",
            "1 while the archive answers, 0 while docxy leaves it alone.",
            registry=self._registry,
            multiprocess_mode="livemin",
        )

    @cached_property
    def _archive_waiting(self) -> Gauge:
        return Gauge(
            "docxy_archive_waiting_blobs",
            "Cached blobs that are not in the archive yet.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )

    def sampled(self, requests: int, connections: int, fills: int) -> None:
        self._in_progress.set(requests)
        self._connections.set(connections)
        self._fills.set(fills)

    def kept(self, used: int, budget: int, free: int) -> None:
        self._free.set(free)
        self._used.set(used)
        self._budget.set(budget)
        self._usable.set(1)

    def failing(self) -> None:
        self._usable.set(0)

    def archived(self, usable: bool, waiting: int | None) -> None:
        self._archive_usable.set(usable)
        if waiting is not None:
            self._archive_waiting.set(waiting)


_COUNTERS: Sequence[tuple[Count, str, str, list[str]]] = (
    (Count.RESUMED, "docxy_fill_resumes_total", "Fills that went on after the upstream broke off.", ["upstream"]),
    (
        Count.FAILED_OVER,
        "docxy_upstream_failovers_total",
        "Requests that another endpoint of the upstream than the preferred one answered.",
        ["upstream"],
    ),
    (
        Count.TOKENS,
        "docxy_upstream_tokens_total",
        "Answers of the upstream's token service: granted or refused.",
        ["upstream", "outcome"],
    ),
    (
        Count.SPENT,
        "docxy_upstream_pulls_spent_total",
        "Pulls that count against the limit of an account of docxy.",
        ["upstream", "account"],
    ),
    (
        Count.COOLED,
        "docxy_cooldown_manifests_total",
        "Manifests that were too young: answered with an older one, served, observed or denied.",
        ["upstream", "outcome"],
    ),
    (Count.EVICTED, "docxy_cache_evicted_blobs_total", "Blobs that were removed to make room.", []),
    (Count.EVICTED_BYTES, "docxy_cache_evicted_bytes_total", "Bytes that this freed.", []),
    (
        Count.SCRUBBED,
        "docxy_cache_scrubbed_blobs_total",
        "Cached blobs that were hashed again: sound, or damaged and deleted.",
        ["outcome"],
    ),
    (
        Count.ARCHIVED,
        "docxy_archive_requests_total",
        "What docxy asked its archive, and what came of it.",
        ["request", "outcome"],
    ),
)


def webhook_counter(registry: CollectorRegistry) -> Callable[[str], object]:
    """Counts what became of events, by `delivered`, `failed` or `dropped`."""
    events = Counter(
        "docxy_webhook_events_total",
        "Events for webhooks: delivered, attempts that failed, and dropped.",
        ["outcome"],
        registry=registry,
    )
    return lambda outcome: events.labels(outcome).inc()


def own_registry() -> CollectorRegistry:
    """What a process that answers scrapes says of itself, whether it serves or watches over those that do."""
    registry = CollectorRegistry()
    info = Gauge("docxy_build_info", "Always 1.", ["version", "python", "twisted"], registry=registry)
    info.labels(docxy.__version__, platform.python_version(), twisted.__version__).set(1)
    return registry


class Kept:
    """What `[[keep]]` keeps, as the one process sees it that does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._images = Gauge("docxy_kept_images", "Images that are kept cached.", registry=registry)
        self._gone = Gauge("docxy_kept_images_gone", "Of these, those that their registry has not.", registry=registry)

    def count(self, images: int, gone: int) -> None:
        """How many there are now."""
        self._images.set(images)
        self._gone.set(gone)


class Tally:
    """What workers count, as their supervisor sees it."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="docxy-metrics-")
        """Where they count; `close` removes it."""
        self.own = own_registry()
        self.workers = CollectorRegistry()
        MultiProcessCollector(self.workers, path=self.directory)
        self._restarts = Counter(
            "docxy_worker_restarts_total", "Workers that ended and were started again.", registry=self.own
        )

    def restarted(self) -> None:
        """A worker that ended is started again."""
        self._restarts.inc()

    def forget(self, worker: int) -> None:
        """The worker with this number has ended: what it was at is no more, what it counted stays."""
        mark_process_dead(worker, self.directory)

    def close(self) -> None:
        """All have ended."""
        shutil.rmtree(self.directory, ignore_errors=True)

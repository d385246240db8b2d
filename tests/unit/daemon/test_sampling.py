"""What a process looks at now and then: its cache, its upstreams, what it counted."""

from __future__ import annotations

from random import Random
from typing import Any, cast

from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from docxy.broadcast import Broadcast
from docxy.catalog.memory import MemoryCatalog
from docxy.daemon.drain import Watched
from docxy.daemon.sampling import SAMPLE_INTERVAL, Sampling
from docxy.daemon.services import OpenCache, Way
from docxy.observe.condition import Condition
from docxy.observe.prometheus import Meter
from docxy.observe.tracing import NoTracer
from docxy.pull.blobs.backoff import Backoff
from docxy.pull.blobs.fills import Fills
from docxy.storage.counts import Counts
from docxy.storage.interfaces import StorageError
from docxy.storage.memory import MemoryStore
from docxy.upstream.endpoints import Endpoints
from docxy.upstream.quota import Quota
from docxy.upstream.tokens import TokenService
from tests.harness.built import open_site
from tests.unit.access.harness import logged


class SamplingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.condition = Condition(cached=True)
        self.broken = False
        self.catalog = MemoryCatalog(self.clock, self.clock.seconds)
        self.counts = Counts()
        self.fills = Fills(self.clock, Backoff(Random(1)), NoTracer(), lambda running: None)
        self.endpoints = Endpoints(["https://a", "https://b"], self.clock.seconds, Random(1))
        self.quota = Quota(self.clock.seconds, Broadcast(lambda topic, facts: None), "quota", lambda *_: None)
        unused: Any = None
        self.tokens = TokenService(unused, unused, unused, unused)

    def start(self, first: bool = True) -> Sampling:
        store, unused = MemoryStore(100, self.clock), cast(Any, None)
        cache = OpenCache(store, self.catalog, Service(), self.used, self.free, unused, 100, self.counts)
        sampling = Sampling(
            Meter(self.registry),
            self.condition,
            Watched(open_site(Resource()), self.clock),
            self.fills,
            cache,
            None,
            None,
            {"docker.io": Way(self.endpoints, self.tokens, {"alice": self.quota})},
            lambda: 1_800_000_000.0,
            None,
            first,
            self.clock.seconds,
            self.clock,
        )
        sampling.startService()
        self.addCleanup(sampling.stopService)
        return sampling

    async def used(self) -> int:
        if self.broken:
            raise StorageError("cannot update the cache index")
        return 42

    async def free(self) -> int:
        return 7

    def value(self, name: str, **labels: str) -> Any:
        return self.registry.get_sample_value(name, labels)

    def test_cache_that_fails(self) -> None:
        """A cache that fails shows in metrics and readiness; the log gets a line then, and one when it is back."""
        with logged() as lines:
            self.assertEqual(list(self.condition.missing()), ["startup"])
            self.start()
            self.assertEqual((self.value("docxy_cache_usable"), self.value("docxy_cache_bytes")), (1, 42))
            self.assertEqual(self.value("docxy_cache_disk_free_bytes"), 7)
            self.assertEqual(self.condition.missing(), {})
            self.broken = True
            self.clock.pump([SAMPLE_INTERVAL] * 3)
            self.assertEqual(self.value("docxy_cache_usable"), 0)
            self.assertEqual(list(self.condition.missing()), ["cache"])
            self.broken = False
            self.clock.advance(SAMPLE_INTERVAL)
            self.assertEqual(self.value("docxy_cache_usable"), 1)
            self.assertEqual(self.condition.missing(), {})
        self.assertEqual(
            lines,
            [
                "degraded: the cache cannot be used, clients are served past it: cannot update the cache index",
                "the cache can be used again",
            ],
        )

    def test_other_processes(self) -> None:
        """Each process knows whether it can use the cache; one of them tells the operator."""
        self.broken = True
        with logged() as lines:
            self.start(first=False)
        self.assertEqual(list(self.condition.missing()), ["cache"])
        self.assertEqual(lines, [])

    def test_upstreams(self) -> None:
        """An upstream that docxy backs off from is a metric; it is no reason not to be ready where there is a cache."""
        for endpoint in self.endpoints.order():
            self.endpoints.failed(endpoint, 60)
        self.quota.limited("GET manifests", "60")
        self.start()
        self.assertEqual(self.value("docxy_upstream_backing_off", upstream="docker.io"), 1)
        self.assertEqual(self.value("docxy_upstream_limited", upstream="docker.io"), 1)
        self.assertEqual(self.condition.missing(), {})
        self.condition.cached = False
        self.assertEqual(list(self.condition.missing()), ["upstreams"])
        self.clock.advance(61)
        self.clock.advance(SAMPLE_INTERVAL)
        self.assertEqual(self.value("docxy_upstream_backing_off", upstream="docker.io"), 0)
        self.assertEqual(self.value("docxy_upstream_limited", upstream="docker.io"), 0)
        self.assertEqual(self.condition.missing(), {})

    def test_counts(self) -> None:
        """What was counted where no meter is reaches the meter, what was counted since the last look at the stop."""
        sampling = self.start()
        self.endpoints.answered(self.endpoints.order()[0])
        self.endpoints.answered(self.endpoints.order()[1])
        self.tokens.granted, self.tokens.refused = 3, 1
        self.quota.charge()
        self.fills.resumed["docker.io"] += 2
        self.counts.evict(4096)
        self.counts.scrub(True)
        self.counts.scrub(False)
        sampling.stopService()
        hub = {"upstream": "docker.io"}
        self.assertEqual(self.value("docxy_upstream_failovers_total", **hub), 1)
        self.assertEqual(self.value("docxy_upstream_tokens_total", outcome="granted", **hub), 3)
        self.assertEqual(self.value("docxy_upstream_tokens_total", outcome="refused", **hub), 1)
        self.assertEqual(self.value("docxy_upstream_pulls_spent_total", account="alice", **hub), 1)
        self.assertEqual(self.value("docxy_fill_resumes_total", **hub), 2)
        self.assertEqual(self.value("docxy_cache_evicted_blobs_total"), 1)
        self.assertEqual(self.value("docxy_cache_evicted_bytes_total"), 4096)
        self.assertEqual(self.value("docxy_cache_scrubbed_blobs_total", outcome="sound"), 1)
        self.assertEqual(self.value("docxy_cache_scrubbed_blobs_total", outcome="damaged"), 1)
        self.assertEqual(self.value("docxy_certificate_expiry_timestamp_seconds"), 1_800_000_000)

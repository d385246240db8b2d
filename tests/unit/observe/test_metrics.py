"""What is counted: words for how an answer was come by, and the text that Prometheus reads."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry
from prometheus_client import values as prometheus_values
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from docxy.observe.exemplars import Exemplars
from docxy.observe.metrics import CUT, LEFT, AnswerLabels, Count, IMeter, NoMeter, cache_word, outcome
from docxy.observe.prometheus import DIRECTORY, Kept, Meter, Tally, count_as, own_registry, webhook_counter
from docxy.observe.scrape import Metrics
from docxy.pull.cache_status import BYPASS, FROZEN, HIT, MISS, NEGATIVE, ONLY_CACHED, RECALLED, CacheStatus
from tests.harness.scrape import values
from tests.unit.observe.test_journal import layer
from tests.unit.web.exchange import exchange


class WordTests(SynchronousTestCase):
    def test_words(self) -> None:
        """Each way to come by an answer is one word; the age of a hit is none of it."""
        for status, word in (
            (HIT, "hit"),
            (CacheStatus(hit=True, ttl=5), "hit"),
            (MISS, "miss"),
            (CacheStatus(fwd="miss", stored=True), "miss"),
            (CacheStatus(fwd="miss", collapsed=True), "collapsed"),
            (CacheStatus(fwd="stale", ttl=60), "revalidated"),
            (CacheStatus(hit=True, ttl=-5, detail="stale-upstream-failed"), "stale"),
            (NEGATIVE, "negative"),
            (BYPASS, "bypass"),
            (ONLY_CACHED, "offline-token"),
            (RECALLED, "recalled"),
            (CacheStatus(hit=True, ttl=5, detail=FROZEN), "hit"),
            (CacheStatus(fwd="miss", detail=FROZEN), "miss"),
        ):
            self.assertEqual(cache_word(str(status)), word, status)
        self.assertEqual(cache_word(""), "")

    def test_outcomes(self) -> None:
        """What went wrong is one of two words, whatever the cache had to do with it."""
        for status, cache, word in (
            (200, "hit", "hit"),
            (206, "collapsed", "collapsed"),
            (200, "", "ok"),
            (404, "negative", "refused"),
            (429, "miss", "refused"),
            (502, "miss", "failed"),
        ):
            self.assertEqual(outcome(AnswerLabels("docker.io", "blobs", status, cache)), word)
            for ended in (LEFT, CUT):
                self.assertEqual(outcome(AnswerLabels("docker.io", "blobs", status, cache, ended)), ended)


class MeterTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """Both meters count all there is to count."""
        verifyObject(IMeter, NoMeter())
        verifyObject(IMeter, Meter(CollectorRegistry()))

    def test_text(self) -> None:
        """What was counted is at /metrics, in the text that Prometheus reads, and nothing else is there."""
        registry = CollectorRegistry()
        meter = Meter(registry)
        for sent in (10, 5):
            meter.answered(AnswerLabels("docker.io", "blobs", 200, "hit"), sent, None, None)
        meter.answered(AnswerLabels("docker.io", "manifests", 429, "miss"), 1, None, None)
        meter.fetched("docker.io", None, 3.0)
        meter.received("docker.io", 7)
        meter.allowed("docker.io", "alice", 100, 42)
        meter.sampled(1, 2, 3)
        meter.kept(1000, 2000, 3000)
        meter.certified(1800000000.0)
        meter.reachable("docker.io", True, False)
        answer = exchange(Metrics(registry, exemplars=Exemplars()), b"GET", b"/metrics")
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.headers["content-type"].startswith("text/plain; version=0.0.4"))
        self.assertEqual(
            {name: value for name, value in values(answer.body.decode()).items() if value},
            {
                "docxy_requests_total hit blobs 200 docker.io": 2,
                "docxy_requests_total miss manifests 429 docker.io": 1,
                "docxy_sent_bytes_total hit blobs docker.io": 15,
                "docxy_sent_bytes_total miss manifests docker.io": 1,
                "docxy_upstream_responses_total none docker.io": 1,
                "docxy_upstream_received_bytes_total docker.io": 7,
                "docxy_upstream_pull_limit alice docker.io": 100,
                "docxy_upstream_pulls_remaining alice docker.io": 42,
                "docxy_requests_in_progress": 1,
                "docxy_connections": 2,
                "docxy_fills_in_progress": 3,
                "docxy_cache_bytes": 1000,
                "docxy_cache_budget_bytes": 2000,
                "docxy_cache_usable": 1,
                "docxy_cache_disk_free_bytes": 3000,
                "docxy_certificate_expiry_timestamp_seconds": 1800000000,
                "docxy_upstream_backing_off docker.io": 1,
            },
        )
        for method, uri in ((b"GET", b"/"), (b"GET", b"/v2/"), (b"POST", b"/metrics")):
            self.assertNotEqual(exchange(Metrics(registry, exemplars=Exemplars()), method, uri).status, 200)

    def test_durations(self) -> None:
        """Durations are counted by kind and outcome; time to the first byte is known of blobs only."""
        registry = CollectorRegistry()
        meter = Meter(registry)
        meter.answered(AnswerLabels("docker.io", "blobs", 200, "miss"), 10, 7.0, 0.2)
        meter.answered(AnswerLabels("docker.io", "manifests", 502, "miss"), 10, 0.001, None)
        meter.fetched("ghcr.io", 200, 0.5)
        told = registry.get_sample_value
        blobs = {"kind": "blobs", "outcome": "miss"}
        self.assertEqual(told("docxy_request_seconds_sum", blobs), 7.0)
        self.assertEqual(told("docxy_request_seconds_bucket", {**blobs, "le": "10.0"}), 1)
        self.assertEqual(told("docxy_request_seconds_bucket", {**blobs, "le": "2.5"}), 0)
        self.assertEqual(told("docxy_request_seconds_count", {"kind": "manifests", "outcome": "failed"}), 1)
        self.assertEqual(told("docxy_first_byte_seconds_sum", {"outcome": "miss"}), 0.2)
        self.assertEqual(told("docxy_upstream_seconds_sum", {"upstream": "ghcr.io"}), 0.5)
        self.assertEqual(told("docxy_upstream_responses_total", {"upstream": "ghcr.io", "status": "200"}), 1)

    def test_statuses_are_bounded(self) -> None:
        """Whatever numbers a registry makes up, those that HTTP does not know are one series."""
        registry = CollectorRegistry()
        meter = Meter(registry)
        for status in (100, 599, 0, 99, 600, 999, 123456789, -1, None):
            meter.fetched("any", status, 0.1)
        (family,) = [family for family in registry.collect() if family.name == "docxy_upstream_responses"]
        told = {sample.labels["status"]: sample.value for sample in family.samples}
        self.assertEqual(told, {"100": 1, "599": 1, "invalid": 6, "none": 1})

    def test_nothing_to_tell(self) -> None:
        """Without a certificate none has ended, without a cache none has failed; a cache that failed is told."""
        registry = CollectorRegistry()
        meter = Meter(registry)
        self.assertIsNone(registry.get_sample_value("docxy_certificate_expiry_timestamp_seconds"))
        self.assertIsNone(registry.get_sample_value("docxy_cache_usable"))
        meter.failing()
        self.assertEqual(registry.get_sample_value("docxy_cache_usable"), 0)

    def test_names(self) -> None:
        """What a dashboard or an alert of an operator's own may name: archive, kept images, webhooks, renewal."""
        registry = CollectorRegistry()
        meter = Meter(registry)
        meter.archived(False, 3)
        meter.counted(Count.ARCHIVED, ("read", "hit"), 4)
        meter.certified(1_800_000_000.0)
        meter.renewing(2, 1_700_000_000.0)
        Kept(registry).count(5, 1)
        webhooks = webhook_counter(registry)
        for what in ("delivered", "failed", "failed", "dropped"):
            webhooks(what)
        names = ("archive", "kept", "webhook", "certificate")
        told = {
            (sample.name, *sample.labels.values()): sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name.split("_")[1] in names
        }
        self.assertEqual(
            told,
            {
                ("docxy_archive_usable",): 0,
                ("docxy_archive_waiting_blobs",): 3,
                ("docxy_archive_requests_total", "read", "hit"): 4,
                ("docxy_certificate_expiry_timestamp_seconds",): 1_800_000_000,
                ("docxy_certificate_renewal_timestamp_seconds",): 1_700_000_000,
                ("docxy_certificate_renewal_failures",): 2,
                ("docxy_kept_images",): 5,
                ("docxy_kept_images_gone",): 1,
                ("docxy_webhook_events_total", "delivered"): 1,
                ("docxy_webhook_events_total", "failed"): 2,
                ("docxy_webhook_events_total", "dropped"): 1,
            },
        )

    def test_totals(self) -> None:
        """A total that is told again is counted once."""
        registry = CollectorRegistry()
        meter = Meter(registry)
        for total in (3, 3, 5):
            meter.counted(Count.RESUMED, ("docker.io",), total)
            meter.counted(Count.EVICTED, (), total)
        self.assertEqual(registry.get_sample_value("docxy_fill_resumes_total", {"upstream": "docker.io"}), 5)
        self.assertEqual(registry.get_sample_value("docxy_cache_evicted_blobs_total"), 5)

    def test_openmetrics(self) -> None:
        """Whoever asks for OpenMetrics gets one text of all registries, with one end; a version that is none too."""
        registry = CollectorRegistry()
        Meter(registry).received("docker.io", 7)
        for version in ("1.0.0", "\u00e9"):
            accept = f"application/openmetrics-text;version={version},text/plain;q=0.5".encode()
            answer = exchange(
                Metrics(own_registry(), registry, exemplars=Exemplars()), b"GET", b"/metrics", accept=accept
            )
            self.assertEqual(answer.headers["content-type"], CONTENT_TYPE_LATEST)
            names = {family.name for family in openmetrics_families(answer.body.decode())}
            self.assertLessEqual({"docxy_build_info", "docxy_upstream_received_bytes"}, names)

    def test_exemplars(self) -> None:
        """OpenMetrics has the last request of each bucket, by docxy's own id of it; the other text has none."""
        registry, exemplars = CollectorRegistry(), Exemplars()
        meter = Meter(registry)
        for number, seconds in enumerate((0.3, 0.4, 9.0)):
            meter.answered(AnswerLabels("docker.io", "blobs", 200, "miss"), 10, seconds, 0.01)
            exemplars.note(
                layer(1000.0 + number, seconds=seconds, cache="miss", first_byte=0.01, request_id=f"{number:016x}")
            )
        exemplars.note(layer(1009.0, seconds=0.3, cache="miss", request_id="chosen-by-a-client"))
        accept = b"application/openmetrics-text"
        answer = exchange(Metrics(registry, exemplars=exemplars), b"GET", b"/metrics", accept=accept).body.decode()
        found = {
            (sample.name, sample.labels["le"]): (sample.exemplar.labels["request_id"], sample.exemplar.value)
            for family in openmetrics_families(answer)
            for sample in family.samples
            if sample.exemplar is not None
        }
        request, first = "docxy_request_seconds_bucket", "docxy_first_byte_seconds_bucket"
        last = f"{2:016x}"
        self.assertEqual(
            found,
            {(request, "0.5"): (f"{1:016x}", 0.4), (request, "10.0"): (last, 9.0), (first, "0.025"): (last, 0.01)},
        )
        plain = exchange(Metrics(registry, exemplars=exemplars), b"GET", b"/metrics").body.decode()
        self.assertNotIn("request_id", plain)


class TallyTests(SynchronousTestCase):
    """What workers count, as their supervisor tells it."""

    def setUp(self) -> None:
        self.tally = Tally()
        self.addCleanup(self.tally.close)
        self.patch(prometheus_values, "ValueClass", prometheus_values.ValueClass)
        self.patch(os, "environ", {**os.environ, DIRECTORY: self.tally.directory})

    def worker(self, number: int) -> Meter:
        """The meter of a process that begins to count as this worker."""
        count_as(number)
        return Meter(CollectorRegistry())

    def test_workers_that_go(self) -> None:
        """What a worker counted stays when it ends, what it was at does not; the next one counts on in its files."""
        for life in range(3):
            meter = self.worker(1)
            meter.answered(AnswerLabels("docker.io", "blobs", 200, "hit"), 10, 0.2, 0.1)
            meter.sampled(1, 4, 0)
            meter.allowed("docker.io", "", 100, 50 - life)
            files = sorted(os.listdir(self.tally.directory))
            self.assertEqual(self.tally.workers.get_sample_value("docxy_connections"), 4)
            self.tally.forget(1)
            self.assertIsNone(self.tally.workers.get_sample_value("docxy_connections"))
        self.worker(2).answered(AnswerLabels("docker.io", "blobs", 200, "hit"), 10, 0.2, 0.1)
        self.assertEqual(len(files), len(set(files)))
        self.assertFalse([name for name in files if not name.endswith("_1.db")])
        told = self.tally.workers.get_sample_value
        requests = {"upstream": "docker.io", "kind": "blobs", "status": "200", "cache": "hit"}
        self.assertEqual(told("docxy_requests_total", requests), 4)
        self.assertEqual(told("docxy_request_seconds_count", {"kind": "blobs", "outcome": "hit"}), 4)
        remaining = {"upstream": "docker.io", "account": ""}
        self.assertEqual(told("docxy_upstream_pulls_remaining", remaining), 48)

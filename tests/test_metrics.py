"""What is counted: words for how an answer was come by, and the text that Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from docxy import __version__
from docxy.metrics import Answered, IMeter, NoMeter, cache_word
from docxy.prometheus import Meter, Metrics
from docxy.pull.status import BYPASS, HIT, MISS, NEGATIVE, ONLY_CACHED, CacheStatus
from tests.deployed import Daemon, fetch, free_port, start_docxy
from tests.web.exchange import exchange

Values = dict[str, float]


def values(text: str) -> Values:
    """By name and the values of labels, in the order of the labels' names; empty ones are left out."""
    return {
        " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()) if value)]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


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
            (ONLY_CACHED, "pass"),
        ):
            self.assertEqual(cache_word(str(status)), word, status)
        self.assertEqual(cache_word(""), "")


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
            meter.answered(Answered("docker.io", "blobs", 200, "hit"), sent)
        meter.answered(Answered("docker.io", "manifests", 429, "miss"), 1)
        meter.fetched("docker.io", 429)
        meter.fetched("docker.io", None)
        meter.received("docker.io", 7)
        meter.allowed("docker.io", 100, 42)
        meter.sampled(1, 2, 3)
        meter.kept(1000, 2000)
        answer = exchange(Metrics(registry), b"GET", b"/metrics")
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.headers["content-type"].startswith("text/plain; version=0.0.4"))
        self.assertEqual(
            values(answer.body.decode()),
            {
                "docxy_requests_total hit blobs 200 docker.io": 2,
                "docxy_requests_total miss manifests 429 docker.io": 1,
                "docxy_sent_bytes_total hit blobs docker.io": 15,
                "docxy_sent_bytes_total miss manifests docker.io": 1,
                "docxy_upstream_responses_total 429 docker.io": 1,
                "docxy_upstream_responses_total none docker.io": 1,
                "docxy_upstream_received_bytes_total docker.io": 7,
                "docxy_upstream_pull_limit docker.io": 100,
                "docxy_upstream_pulls_remaining docker.io": 42,
                "docxy_requests_in_progress": 1,
                "docxy_connections": 2,
                "docxy_fills_in_progress": 3,
                "docxy_cache_bytes": 1000,
                "docxy_cache_budget_bytes": 2000,
            },
        )
        for method, uri in ((b"GET", b"/"), (b"GET", b"/v2/"), (b"POST", b"/metrics")):
            self.assertNotEqual(exchange(Metrics(registry), method, uri).status, 200)


class ServedTests(SynchronousTestCase):
    """One process, from outside."""

    def start(self, *args: str) -> tuple[Daemon, int, int]:
        port, metrics = free_port(), free_port()
        environ = {"CERT_PATH": "off", "INTERFACE": "127.0.0.1", "WORKERS": "1", "METRICS_PORT": str(metrics)}
        daemon = start_docxy(self, {"PORT": str(port), **environ}, args)
        daemon.healthy(f"http://127.0.0.1:{port}/health")
        return daemon, port, metrics

    def test_served(self) -> None:
        """Requests are counted by kind and status, repeated ones too; scrapes are in no access log."""
        daemon, port, metrics = self.start("--no-auth")
        for path in ("/v2/", "/v2/", "/nothing", "/v2/a/b/c", "/v2/ghcr.io/a/manifests/b"):
            fetch(f"http://127.0.0.1:{port}{path}")
        status, _, body = fetch(f"http://127.0.0.1:{metrics}/metrics")
        told = values(body.decode())
        self.assertEqual(status, 200)
        self.assertEqual(told["docxy_requests_total ping 200 docker.io"], 2)
        self.assertEqual(told["docxy_requests_total other 404"], 3)
        self.assertGreaterEqual(told["docxy_requests_total health 200"], 1)
        self.assertEqual([name for name in told if name.startswith("docxy_info")], [f"docxy_info {__version__}"])
        self.assertNotIn("/metrics", daemon.output())
        self.assertEqual(fetch(f"http://127.0.0.1:{port}/metrics")[0], 404)
        self.assertEqual(fetch(f"http://127.0.0.1:{metrics}/v2/")[0], 404)

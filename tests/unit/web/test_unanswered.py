"""Requests that were not answered whole are in the metrics too, with their bytes."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred

from docxy.observe.prometheus import Meter
from docxy.web.site import LoggedSite
from tests.fakes import Fault
from tests.unit.pull.harness import NAME, REPOSITORY, drain
from tests.unit.web.explained import ExplainedCase, Timed

MIB = 1 << 20


class UnansweredTests(ExplainedCase):
    def timed(self, *args: Any, **settings: Any) -> Timed:
        self.registry = CollectorRegistry()
        self.more = {"meter": Meter(self.registry)}
        return super().timed(*args, **settings)

    def lost(self) -> Deferred[None]:
        """Fires when a request was not answered whole, and is counted."""
        lost, told = LoggedSite.lost, Deferred[None]()

        def noted(site: LoggedSite, request: Any) -> None:
            lost(site, request)
            told.callback(None)

        self.patch(LoggedSite, "lost", noted)
        return told

    def counted(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    async def test_left(self) -> None:
        """A client that leaves in the middle of a layer: the request, its time and the bytes that went out."""
        gone = self.lost()
        rule = self.upstream.on("blob", Fault(stall_after=MIB))
        streamed = await self.mirror.stream(f"/v2/{REPOSITORY}/blobs/{self.big}")
        await rule.struck()
        await streamed.client.reached(MIB // 2)
        self.seconds.advance(3)
        transport: Any = streamed.client.transport
        transport.loseConnection()
        await gone
        rule.release()
        await drain(self.mirror, self.big)
        of = {"upstream": NAME, "kind": "blobs", "cache": "miss"}
        self.assertEqual(self.counted("docxy_requests_total", status="left", **of), 1)
        self.assertIsNone(self.counted("docxy_requests_total", status="200", **of))
        self.assertGreaterEqual(self.counted("docxy_sent_bytes_total", **of) or 0, MIB // 2)
        for name in ("count", "sum"):
            seconds = self.counted(f"docxy_request_seconds_{name}", kind="blobs", outcome="left")
            self.assertEqual(seconds, {"count": 1, "sum": 3}[name])
        self.assertEqual(self.counted("docxy_first_byte_seconds_count", outcome="left"), 1)

    async def test_left_early(self) -> None:
        """A client that leaves before there is an answer."""
        gone = self.lost()
        rule = self.upstream.on("manifest", Fault(stall_headers=True))
        asking = Deferred.fromCoroutine(self.mirror.manifest("latest"))
        await rule.struck()
        asking.addErrback(lambda reason: None)
        asking.cancel()
        await gone
        rule.release()
        # Joins what the first one asked, which is over then.
        self.assertEqual((await self.mirror.manifest("latest")).status, 200)
        self.mirror.served.recorder.flush()
        of = {"upstream": NAME, "kind": "manifests", "cache": ""}
        self.assertEqual(self.counted("docxy_requests_total", status="left", **of), 1)
        self.assertEqual(self.counted("docxy_request_seconds_count", kind="manifests", outcome="left"), 1)

    async def test_endless(self) -> None:
        """An answer without an end of its own ends as it should when its client leaves; its time is nobody's wait."""
        gone = self.lost()
        streamed = await self.mirror.stream("/events")
        await streamed.client.reached(1)
        transport: Any = streamed.client.transport
        transport.loseConnection()
        await gone
        self.assertEqual(self.counted("docxy_requests_total", upstream="", kind="other", cache="", status="200"), 1)
        self.assertGreater(self.counted("docxy_sent_bytes_total", upstream="", kind="other", cache="") or 0, 0)
        self.assertEqual(self.counted("docxy_request_seconds_count", kind="other", outcome="ok") or 0, 0)

    async def test_cut(self) -> None:
        """An answer that docxy cuts off, as its bytes are wrong, is told apart from a client that leaves."""
        self.upstream.on("blob", Fault(flip=2 << 20), times=None)
        gone = self.lost()
        await self.mirror.cut(f"/v2/{REPOSITORY}/blobs/{self.big}")
        await gone
        of = {"upstream": NAME, "kind": "blobs", "cache": "miss"}
        self.assertEqual(self.counted("docxy_requests_total", status="cut", **of), 1)
        self.assertEqual(self.counted("docxy_request_seconds_count", kind="blobs", outcome="cut"), 1)

"""What a docxy counts of pulls that had troubles on the way."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from docxy.observe.prometheus import Meter
from docxy.settings.model import Credential, Upstream
from tests.fakes.auth import Auth
from tests.fakes.faults import Fault
from tests.unit.pull.harness import REPOSITORY
from tests.unit.pull.several import SeveralCase

BIG = bytes(range(256)) * 4096


class CountedTests(SeveralCase):
    async def test_troubles(self) -> None:
        """Tokens, pulls that an account pays for, another endpoint's answer, a resume, and how long it all took."""
        second = await self.another()
        for registry in (self.upstream, second):
            registry.auth = Auth("bearer", accounts={"ann": "secret"})
            registry.add_image(REPOSITORY)
            blob = registry.add_blob(REPOSITORY, BIG)
        registry = CollectorRegistry()
        docxy = self.serve(
            Upstream(
                "hub.test",
                self.upstream.url,
                endpoints=(second.url,),
                credentials=(Credential("ann", "secret"),),
                realm_hosts=frozenset({"localhost"}),
                private=True,
            ),
            meter=Meter(registry),
        )
        self.assertEqual((await docxy.manifest("latest")).status, 200)
        self.upstream.on("blob", Fault(cut_after=1000), times=1)
        self.assertEqual((await docxy.blob(blob)).body, BIG)
        self.assertEqual((await docxy.blob(blob)).body, BIG)
        await docxy.stop()

        def told(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, labels)

        self.assertEqual(told("docxy_upstream_pulls_spent_total", upstream="hub.test", account="ann"), 1)
        self.assertGreaterEqual(told("docxy_upstream_tokens_total", upstream="hub.test", outcome="granted") or 0, 1)
        self.assertEqual(told("docxy_fill_resumes_total", upstream="hub.test"), 1)
        self.assertEqual(told("docxy_upstream_failovers_total", upstream="hub.test"), 1)
        self.assertEqual(told("docxy_first_byte_seconds_count", outcome="miss"), 1)
        self.assertEqual(told("docxy_first_byte_seconds_count", outcome="hit"), 1)
        self.assertEqual(told("docxy_request_seconds_count", kind="manifests", outcome="miss"), 1)
        self.assertGreater(told("docxy_upstream_seconds_count", upstream="hub.test") or 0, 3)

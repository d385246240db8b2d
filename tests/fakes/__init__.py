'''A fault-making upstream for tests: a registry, a token service and a CDN on real loopback sockets.

It serves only to provoke what a real registry won't do on request.  In a `twisted.trial.unittest.TestCase`:

    async def setUp(self):
        self.upstream = Upstream(reactor)
        await self.upstream.start()
        self.addCleanup(self.upstream.stop)

    async def test_cut(self):
        """A fetch that the upstream cuts in the middle goes on where it ended."""
        blob = Pattern(200 << 20)
        digest = self.upstream.add_blob("library/busybox", blob)
        self.upstream.auth = Auth("bearer", realm="foreign", accounts={"ann": "secret"}, private={"ann/app"})
        self.upstream.cdn = Cdn(status=302)
        rule = self.upstream.on("cdn", Fault(cut_after=1000), times=2, method="GET")
        ... fetch f"{self.upstream.url}/v2/library/busybox/blobs/{digest}" through what is tested ...
        await rule.struck(2)
        self.assertEqual(self.upstream.count("blob", "GET"), 3)
        self.assertNotIn("authorization", self.upstream.select("cdn")[0].headers)

Kinds of requests: ping, manifest, blob, tags, referrers, token, cdn, other.  To wait, never sleep:
`received(kind, method, count)`, `finished(...)`, `rule.struck(count)`, `until(predicate)`.
A test closes its own client's idle connections before `stop`, or lets `stop` reset them.
'''

from tests.fakes.auth import Auth
from tests.fakes.content import Bytes, Content, Pattern
from tests.fakes.faults import Fault, Rule
from tests.fakes.upstream import Cdn, Upstream
from tests.fakes.wire import Received

__all__ = ["Auth", "Bytes", "Cdn", "Content", "Fault", "Pattern", "Received", "Rule", "Upstream"]

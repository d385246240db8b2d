"""Endpoints of one upstream stand in for each other, in the middle of a blob too; none is told what is not for it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from docxy.names import Digest
from docxy.settings.model import AuthMode, Credential, Timeouts, Upstream
from tests import fakes
from tests.fakes import Auth, Fault, Pattern
from tests.unit.pull.harness import REPOSITORY, bearer, drain
from tests.unit.pull.several import Docxy, SeveralCase

BIG = Pattern(4 << 20, "failover")
CLOSED = "http://127.0.0.1:1"
"""Nobody listens there."""


IMPATIENT = Timeouts(headers=1.0, silence=1.0)
"""Where an endpoint stands still: the other has this long to answer, on a busy machine too."""


class FailoverCase(SeveralCase):
    """Two endpoints with the same content, in different orders of arrival."""

    timeouts = Timeouts()

    async def setUp(self) -> None:
        await super().setUp()
        self.first, self.second = self.upstream, await self.another()
        for registry in (self.first, self.second):
            self.image = registry.add_image(REPOSITORY)
            self.big = registry.add_blob(REPOSITORY, BIG)
        self.docxy = self.two()

    def two(self, **changed: Any) -> Docxy:
        settings: dict[str, Any] = {"endpoints": (self.second.url,), "private": True, **changed}
        return self.serve(Upstream("hub.test", self.first.url, **settings), timeouts=self.timeouts)

    def asked(self) -> tuple[int, int]:
        """Requests to the first and to the second since the last time."""
        counted = len(self.first.requests), len(self.second.requests)
        self.first.requests.clear()
        self.second.requests.clear()
        return counted


class Requests(FailoverCase):
    async def test_first(self) -> None:
        """While the first answers, the second is not asked."""
        self.assertEqual((await self.docxy.manifest("latest")).status, 200)
        self.assertEqual((await self.docxy.blob(self.big)).status, 200)
        self.assertEqual(self.asked(), (2, 0))

    async def test_failures(self) -> None:
        """No answer, a late one, 5xx and 429: the second answers, and the client sees nothing of it."""
        for fault in (
            Fault(drop=True),
            Fault(drop=True, reset=True),
            Fault(stall_headers=True),
            Fault(status=500),
            Fault(status=502),
            Fault(status=503),
            Fault(status=504),
            Fault.too_many_requests("5"),
            Fault.abuse(),
        ):
            docxy = self.serve(
                Upstream("hub.test", self.first.url, endpoints=(self.second.url,), private=True),
                catalog=self.make_catalog(),
                store=self.make_store(),
                timeouts=IMPATIENT if fault.stall_headers else self.timeouts,
            )
            rule = self.first.on(None, fault, times=None)
            answer = await docxy.manifest("latest")
            self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(self.image)), fault)
            first, second = self.asked()
            # Twisted sends a GET once more on a new connection where an old one was closed.
            self.assertIn(first, (1, 2), fault)
            self.assertEqual(second, 1, fault)
            self.assertEqual((await docxy.blob(self.big)).status, 200)
            self.assertEqual(self.asked(), (0, 1), f"{fault}: the first is left alone")
            rule.cancel()
            rule.release()
            await docxy.stop()

    async def test_empty(self) -> None:
        """An empty 200 in the place of a layer: the second has the layer."""
        self.first.on("blob", Fault(body=b""))
        answer = await self.docxy.blob(self.big)
        self.assertEqual((answer.status, self.asked()), (200, (1, 1)))
        self.assertEqual(str(Digest.of(answer.body)), str(self.big))

    async def test_refused_connection(self) -> None:
        """An endpoint that is off."""
        docxy = self.serve(Upstream("hub.test", CLOSED, endpoints=(self.second.url,), private=True))
        self.assertEqual((await docxy.blob(self.big)).status, 200)
        self.assertEqual(self.asked(), (0, 1))

    async def test_verdicts(self) -> None:
        """A 404 and a 403 are answers, not failures: no other endpoint is asked for another opinion."""
        for fault, status in ((Fault(status=404), 404), (Fault(status=403), 403)):
            self.first.on("blob", fault)
            self.assertEqual((await self.docxy.blob(self.big)).status, status)
            self.assertEqual(self.asked(), (1, 0))

    async def test_comes_back(self) -> None:
        """The first is asked again when its rest is over, and is the one that is asked from then on."""
        rule = self.first.on(None, Fault(status=500), times=None)
        for name in ("one", "two", "three"):
            self.second.add_image(REPOSITORY, name)
            self.first.add_image(REPOSITORY, name)
        self.assertEqual((await self.docxy.manifest("one")).status, 200)
        self.assertEqual(self.asked(), (1, 1))
        rule.cancel()
        self.seconds.advance(2)
        for name in ("two", "three"):
            self.assertEqual((await self.docxy.manifest(name)).status, 200)
            self.assertEqual(self.asked(), (1, 0))

    async def test_all_rest(self) -> None:
        """When all failed they are asked anyway, and when it answers nobody sees that anything was wrong."""
        rules = [registry.on(None, Fault(status=500), times=None) for registry in (self.first, self.second)]
        self.assertEqual((await self.docxy.blob(self.big)).status, 502)
        self.assertEqual(self.asked(), (1, 1))
        self.assertEqual((await self.docxy.blob(self.big)).status, 502)
        self.assertEqual(self.asked(), (1, 1), "each has another chance")
        for rule in rules:
            rule.cancel()
        self.assertEqual((await self.docxy.blob(self.big)).status, 200)
        self.assertEqual(sum(self.asked()), 1)

    async def test_limited_everywhere(self) -> None:
        """When all endpoints limit requests, so does docxy, and asks none again until the time is over."""
        for registry in (self.first, self.second):
            registry.on("manifest", Fault.too_many_requests("30"), times=1)
        for _ in range(5):
            answer = await self.docxy.manifest("latest")
            self.assertEqual((answer.status, answer.code), (429, "TOOMANYREQUESTS"))
        self.assertEqual(self.asked(), (1, 1))
        self.seconds.advance(31)
        self.assertEqual((await self.docxy.manifest("latest")).status, 200)


class InTheMiddle(FailoverCase):
    def ranges(self, registry: fakes.Upstream) -> list[str | None]:
        return [request.headers.get("range") for request in registry.select("blob", "GET")]

    async def test_off(self) -> None:
        """The first breaks off in the middle of a blob and is gone: the second goes on from that byte."""
        rule = self.first.on("blob", Fault(cut_after=1_000_000))
        self.first.on("blob", Fault(drop=True), times=None)
        answer = await self.docxy.blob(self.big)
        await rule.struck()
        self.assertEqual((answer.status, len(answer.body)), (200, BIG.size))
        self.assertEqual(answer.body, BIG.read(0, BIG.size))
        (goes_on,) = self.ranges(self.second)
        self.assertEqual(goes_on, "bytes=1000000-")
        self.assertEqual(self.second.blob_bytes_sent, BIG.size - 1_000_000)
        await drain(self.docxy, self.big)
        self.asked()
        self.assertEqual((await self.docxy.blob(self.big)).cache_status, "docxy; hit")
        self.assertEqual(self.asked(), (0, 0))

    async def test_again_and_again(self) -> None:
        """An endpoint that answers well and breaks off each time is left alone too: the second ends the work."""
        for fault in (Fault(cut_after=1_000_000), Fault(stall_after=1_000_000)):
            rule = self.first.on("blob", fault, times=None)
            docxy = self.serve(
                Upstream("hub.test", self.first.url, endpoints=(self.second.url,), private=True),
                catalog=self.make_catalog(),
                store=self.make_store(),
                timeouts=self.timeouts if fault.stall_after is None else IMPATIENT,
            )
            answer = await docxy.blob(self.big)
            self.assertEqual(answer.body, BIG.read(0, BIG.size), fault)
            self.assertEqual((self.ranges(self.first), self.ranges(self.second)), ([None], ["bytes=1000000-"]), fault)
            rule.cancel()
            rule.release()
            await docxy.stop()
            self.asked()

    async def test_without_ranges(self) -> None:
        """A second one that knows no ranges sends all of it: what was there is compared, the rest is taken."""
        self.second.ranges = False
        self.first.on("blob", Fault(cut_after=1_000_000))
        self.first.on("blob", Fault(drop=True), times=None)
        self.assertEqual((await self.docxy.blob(self.big)).body, BIG.read(0, BIG.size))
        self.assertEqual(self.second.blob_bytes_sent, BIG.size)

    async def test_range(self) -> None:
        """A client's range is the same whoever serves it."""
        self.first.on("blob", Fault(cut_after=1_000_000))
        self.first.on("blob", Fault(drop=True), times=None)
        answer = await self.docxy.blob(self.big, asked="bytes=900000-1100000")
        self.assertEqual((answer.status, answer.body), (206, BIG.read(900_000, 200_001)))


class ElsewhereCase(FailoverCase):
    """The second endpoint is on another domain: `localhost` and `127.0.0.1` have none in common."""

    def elsewhere(self, **changed: Any) -> Docxy:
        settings: dict[str, Any] = {"endpoints": (self.second.origin(host="localhost"),), "private": True, **changed}
        return self.serve(Upstream("hub.test", self.first.url, **settings), timeouts=self.timeouts)

    def told(self, registry: fakes.Upstream) -> list[str]:
        """Each Authorization that came to its registry, its token service or its CDN."""
        return sorted({each.headers["authorization"] for each in registry.requests if "authorization" in each.headers})


class Clients(ElsewhereCase):
    """What a client brings, in transparent mode."""

    auth = AuthMode.TRANSPARENT

    async def test_client(self) -> None:
        """A client's token is for the upstream: the other endpoint is asked without, and serves what is public."""
        docxy = self.elsewhere()
        self.first.on("blob", Fault(status=500), times=None)
        self.assertEqual((await docxy.blob(self.big, "secret")).status, 200)
        self.assertEqual((self.told(self.first), self.told(self.second)), (["Bearer secret"], []))

    async def test_client_challenged(self) -> None:
        """Nor when it asks: its challenge is not passed on, for a client would answer it with what it has."""
        docxy = self.elsewhere()
        self.first.on("blob", Fault(status=500), times=None)
        self.second.auth = Auth("bearer", realm="foreign")
        answer = await docxy.ask(f"/v2/{REPOSITORY}/blobs/{self.big}", bearer("secret"))
        self.assertEqual((answer.status, answer.header("WWW-Authenticate")), (502, None))
        self.assertIn("credentials", answer.body.decode())
        self.assertEqual((self.told(self.first), self.told(self.second)), (["Bearer secret"], []))

    async def test_client_same_domain(self) -> None:
        """An endpoint on the upstream's own host is told."""
        self.first.on("blob", Fault(status=500), times=None)
        docxy = self.two()
        self.assertEqual((await docxy.blob(self.big, "secret")).status, 200)
        self.assertEqual(self.told(self.second), ["Bearer secret"])

    async def test_client_vouched_for(self) -> None:
        """And one whose host the operator lists."""
        self.first.on("blob", Fault(status=500), times=None)
        docxy = self.elsewhere(realm_hosts=frozenset({"localhost"}))
        self.assertEqual((await docxy.blob(self.big, "secret")).status, 200)
        self.assertEqual(self.told(self.second), ["Bearer secret"])


class OwnAccounts(ElsewhereCase):
    """The same for accounts of docxy's own."""

    account = Credential("ann", "hunter2")

    async def setUp(self) -> None:
        await super().setUp()
        self.first.on("blob", Fault(status=500), times=None)

    async def test_basic(self) -> None:
        """An endpoint on another domain that asks for Basic is not told the account."""
        self.second.auth = Auth("basic", accounts={"ann": "hunter2"})
        docxy = self.elsewhere(credentials=(self.account,))
        self.assertNotEqual((await docxy.blob(self.big)).status, 200)
        self.assertEqual(self.told(self.second), [])
        self.assertEqual(self.second.count("blob"), 1)

    async def test_realm(self) -> None:
        """Its own realm is asked as an anonymous client."""
        self.second.auth = Auth("bearer", realm="foreign", accounts={"ann": "hunter2"})
        docxy = self.elsewhere(credentials=(self.account,))
        self.assertEqual((await docxy.blob(self.big)).status, 200)
        (token,) = self.second.select("token")
        self.assertNotIn("authorization", token.headers)
        self.assertNotIn("hunter2", token.raw_query)

    async def test_borrowed_realm(self) -> None:
        """Naming the upstream's own realm gets it an anonymous token, not the account's."""
        self.first.auth = Auth("bearer", realm="port", accounts={"ann": "hunter2"})
        challenge = f'Bearer realm="{self.first.realm}",service="fake-registry"'
        self.second.on("blob", Fault(status=401, headers={"WWW-Authenticate": challenge}), times=1)
        docxy = self.elsewhere(credentials=(self.account,))
        await docxy.blob(self.big)
        accounts = [self.first.auth.tokens[each.removeprefix("Bearer ")].account for each in self.told(self.second)]
        self.assertEqual(accounts, [None])

    async def test_redirect(self) -> None:
        """The content's server, wherever a redirect leads, is told nothing."""
        self.second.auth = Auth("basic", accounts={"ann": "hunter2"})
        self.second.cdn = fakes.Cdn(host="localhost")
        docxy = self.two(credentials=(self.account,))
        self.assertEqual((await docxy.blob(self.big)).status, 200)
        self.assertEqual(self.second.select("blob")[-1].headers["authorization"][:6], "Basic ")
        (cdn,) = self.second.select("cdn")
        self.assertNotIn("authorization", cdn.headers)

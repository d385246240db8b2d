"""Connections to upstreams: how many there are, whom they trust, and which way they go."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseNeverReceived, readBody

from docxy.settings.model import Timeouts, Upstream
from docxy.siblings import LocalSlots
from docxy.upstream.agent import SMALL_READS, Connections, Pool, make_agent
from tests.fakes import Cdn, Fault, Pattern
from tests.fakes import Upstream as Registry
from tests.harness.certificates import Issued, issue
from tests.unit.pull.several import Net

reactor: Any = _reactor
NAME = "team/app"


class ConnectionsCase(TestCase):
    async def registry(self, issued: Issued | None = None) -> Registry:
        """A registry, with TLS when there is a certificate for it."""
        pair = None if issued is None else PrivateCertificate.loadPEM(issued.pem + issued.key_pem())
        registry = Registry(reactor, context_factory=None if pair is None else pair.options())
        await registry.start()
        self.addCleanup(registry.stop)
        registry.add_blob(NAME, b"x")
        return registry

    def agent(self, registry: Registry, net: Any = reactor, **settings: Any) -> Any:
        upstream = Upstream("x.test", registry.url, **{"private": True, **settings})
        agent, pool = make_agent(net, Timeouts(), upstream, LocalSlots, SMALL_READS, lambda: 0.0)
        self.addCleanup(pool.closeCachedConnections)
        return agent

    async def ping(self, agent: Any, url: str) -> int:
        return await self.get(agent, f"{url}/v2/")

    async def get(self, agent: Any, url: str) -> int:
        """The status of an answer whose body came whole."""
        response = await agent.request(b"GET", url.encode())
        await readBody(response)
        return int(response.code)


class Limits(ConnectionsCase):
    async def test_limit(self) -> None:
        """So many connections at once and no more; whoever waits is served when one of them ends."""
        registry = await self.registry()
        agent = self.agent(registry, max_connections=2)
        blob = registry.add_blob(NAME, Pattern(1 << 20))
        rule = registry.on("blob", Fault(stall_after=1000), times=2)
        url = f"{registry.url}/v2/{NAME}/blobs/{blob}"
        slots: list[Deferred[Any]] = []
        acquire = LocalSlots.acquire

        def acquired(local: LocalSlots, key: str) -> Deferred[Any]:
            slots.append(acquire(local, key))
            return slots[-1]

        self.patch(LocalSlots, "acquire", acquired)
        asking = [Deferred.fromCoroutine(self.get(agent, url)) for _ in range(5)]
        await rule.struck(2)
        self.assertEqual([slot.called for slot in slots], [True, True, False, False, False])
        self.assertEqual((registry.open_connections, registry.count("blob")), (2, 2))
        rule.release()
        self.assertEqual(await gatherResults(asking), [200] * 5)
        self.assertEqual(registry.connections, 2, "what waited used the connections that came free")

    async def test_given_back(self) -> None:
        """A connection that ends gives its slot back: by a request that failed, by a refusal, by the peer."""
        registry = await self.registry()
        agent = self.agent(registry, max_connections=1)
        for _ in range(3):
            registry.on("ping", Fault(drop=True))
            with self.assertRaises(ResponseNeverReceived):
                await self.ping(agent, registry.url)
            with self.assertRaises(ConnectionRefusedError):
                await self.ping(agent, registry.origin("closed"))
            self.assertEqual(await self.ping(agent, registry.url), 200)
            await registry.drop_connections()

    async def test_kept_alive(self) -> None:
        """One connection is used again and again."""
        registry = await self.registry()
        agent = self.agent(registry, max_connections=1)
        for _ in range(5):
            self.assertEqual(await self.ping(agent, registry.url), 200)
        self.assertEqual(registry.connections, 1)

    async def test_each_origin(self) -> None:
        """Where blobs come from has slots of its own: a redirect never waits for the connection it came by."""
        registry = await self.registry()
        registry.cdn = Cdn()
        agent = self.agent(registry, max_connections=1)
        rule = registry.on("ping", Fault(stall_headers=True))
        waiting = Deferred.fromCoroutine(self.ping(agent, registry.url))
        await rule.struck()
        response = await agent.request(b"GET", f"{registry.origin('cdn')}/v2/".encode())
        self.assertEqual(response.code, 404)
        await readBody(response)
        rule.release()
        self.assertEqual(await waiting, 200)

    async def test_no_limit(self) -> None:
        """Without a limit there are as many as there are requests."""
        registry = await self.registry()
        agent = self.agent(registry)
        rule = registry.on("ping", Fault(stall_headers=True), times=20)
        asking = [Deferred.fromCoroutine(self.ping(agent, registry.url)) for _ in range(20)]
        await rule.struck(20)
        self.assertEqual(registry.open_connections, 20)
        rule.release()
        self.assertEqual(await gatherResults(asking), [200] * 20)


class SlotsTests(SynchronousTestCase):
    def test_keys(self) -> None:
        """Each key has slots of its own."""
        slots = LocalSlots(2)
        for _ in range(2):
            self.successResultOf(slots.acquire("a"))
            self.successResultOf(slots.acquire("b"))
        waiting = slots.acquire("a")
        slots.release("b")
        self.assertNoResult(waiting)
        slots.release("a")
        self.successResultOf(waiting)

    def test_forgotten(self) -> None:
        """However many hosts redirects lead to, those of which no slot is taken are not remembered."""
        slots = LocalSlots(2)
        for number in range(100):
            self.successResultOf(slots.acquire(str(number)))
        self.assertEqual(len(slots._slots), 100)
        self.successResultOf(slots.acquire("0"))
        waiting = slots.acquire("0")
        for number in range(100):
            slots.release(str(number))
        self.assertEqual([*slots._slots], ["0"])
        self.successResultOf(waiting)
        slots.release("0")
        slots.release("0")
        self.assertEqual(slots._slots, {})


class PoolTests(SynchronousTestCase):
    def test_forgotten(self) -> None:
        """However many hosts redirects lead to, those without an idle connection are not remembered."""
        clock = Clock()
        pool: Any = Pool(clock)

        class Idle:
            state = "QUIESCENT"
            transport = StringTransport()

        for number in range(100):
            pool._putConnection(("https", b"cdn", number), Idle())
        self.assertEqual(len(pool._connections), 100)
        endpoint: Any = None
        self.successResultOf(pool.getConnection(("https", b"cdn", 0), endpoint))
        self.assertEqual(len(pool._connections), 99)
        clock.advance(pool.cachedConnectionTimeout)
        self.assertEqual(pool._connections, {})


class TrustCase(ConnectionsCase):
    """A registry with a certificate of the operator's CA."""

    async def setUp(self) -> None:
        self.ca = issue(common_name="the operator's CA")
        self.theirs = issue("127.0.0.1", by=self.ca)
        self.tls = await self.registry(self.theirs)

    def authorities(self, *authorities: Issued) -> bytes:
        return b"# of the operator\n" + b"".join(each.pem for each in authorities)


class Trust(TrustCase):
    async def test_authorities(self) -> None:
        """A registry whose CA is among them is trusted, wherever it stands."""
        other = issue(common_name="another")
        for authorities in ((self.ca,), (other, self.ca), (self.ca, other)):
            agent = self.agent(self.tls, authorities=self.authorities(*authorities))
            self.assertEqual(await self.ping(agent, self.tls.url), 200)

    async def test_not_trusted(self) -> None:
        """One whose CA is not in it is not, nor is any by the system's CAs alone."""
        for authorities in (None, self.authorities(issue(common_name="another"))):
            agent = self.agent(self.tls, authorities=authorities)
            with self.assertRaises(ResponseNeverReceived):
                await self.ping(agent, self.tls.url)
        self.assertEqual(self.tls.requests, [])

    async def test_other_name(self) -> None:
        """A certificate of the right CA for another host is refused."""
        registry = await self.registry(issue("other.test", by=self.ca))
        agent = self.agent(registry, authorities=self.authorities(self.ca))
        with self.assertRaises(ResponseNeverReceived):
            await self.ping(agent, registry.url)
        self.assertEqual(registry.requests, [])


class Changed(TrustCase):
    """What is trusted changes while docxy runs."""

    def connections(self, **settings: Any) -> tuple[Connections, Upstream]:
        upstream = Upstream("x.test", self.tls.url, private=True, **settings)

        def make(upstream: Upstream) -> Any:
            return make_agent(reactor, Timeouts(), upstream, LocalSlots, SMALL_READS, lambda: 0.0)

        made = Connections(upstream, make)
        self.addCleanup(made.close)
        return made, upstream

    async def test_changes(self) -> None:
        """A CA that is added is trusted; one that is taken away is not, over no connection of before, either."""
        way, upstream = self.connections()
        with self.assertRaises(ResponseNeverReceived):
            await self.ping(way, self.tls.url)
        way.reach(evolve(upstream, authorities=self.authorities(self.ca)))
        for _ in range(2):
            self.assertEqual(await self.ping(way, self.tls.url), 200)
        self.assertEqual(self.tls.connections, 2, "the one that was refused, and one for both")
        way.reach(upstream)
        with self.assertRaises(ResponseNeverReceived):
            await self.ping(way, self.tls.url)

    async def test_the_same(self) -> None:
        """Where nothing of how it is reached changes its connections stay."""
        way, upstream = self.connections(authorities=self.authorities(self.ca))
        for _ in range(2):
            self.assertEqual(await self.ping(way, self.tls.url), 200)
            way.reach(evolve(upstream, deny=("team/*",)))
        self.assertEqual(self.tls.connections, 1)

    async def test_under_way(self) -> None:
        """An answer that comes goes on to its end."""
        way, upstream = self.connections(authorities=self.authorities(self.ca))
        blob = self.tls.add_blob(NAME, Pattern(1 << 20))
        rule = self.tls.on("blob", Fault(stall_after=1000))
        asking = Deferred.fromCoroutine(self.get(way, f"{self.tls.url}/v2/{NAME}/blobs/{blob}"))
        await rule.struck()
        way.reach(upstream)
        rule.release()
        self.assertEqual(await asking, 200)


class Proxies(ConnectionsCase):
    async def test_not_guarded(self) -> None:
        """A proxy may be inside though the registry is public; it resolves the registry's name, docxy does not."""
        registry = await self.registry()
        net = Net()
        net.names["proxy.inside"] = ["10.0.0.1"]
        net.leads["10.0.0.1"] = int(registry.url.rpartition(":")[2])
        agent = self.agent(registry, net, private=False, proxy="http://proxy.inside:3128")
        with self.assertRaises(Exception) as raised:
            await self.ping(agent, "https://nobody-knows.example")
        self.assertIn("the proxy proxy.inside answered 404", str(raised.exception))
        self.assertEqual(net.connected, ["10.0.0.1"])
        (asked,) = registry.requests
        self.assertEqual((asked.method, asked.headers["host"]), ("CONNECT", "nobody-knows.example:443"))

"""Certificates: whose are taken, on every way out, and that nothing is sent to anyone else."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from functools import cache
from ipaddress import ip_address
from random import Random
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from OpenSSL.crypto import X509
from publicsuffixlist import PublicSuffixList
from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, trustRootFromCertificates
from twisted.trial.unittest import SynchronousTestCase, TestCase

from docxy.broadcast import Broadcast, to_nobody
from docxy.errors import UpstreamError
from docxy.names import Tag
from docxy.observe.metrics import NoMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import NoTracer
from docxy.settings.model import Credential, Timeouts, Upstream
from docxy.siblings import LocalSlots
from docxy.upstream.agent import SMALL_READS, make_agent
from docxy.upstream.authorize import Account, OwnAuthorizer
from docxy.upstream.endpoints import Endpoints
from docxy.upstream.failover import Failover
from docxy.upstream.fetch import Fetcher
from docxy.upstream.login import basic
from docxy.upstream.password_file import AccountPassword
from docxy.upstream.quota import Quota
from docxy.upstream.realms import Realms
from docxy.upstream.remote import Remote
from docxy.upstream.retry import Retry
from docxy.upstream.tokens import OwnTokens, TokenService
from docxy.upstream.trust import make_trust, untrusted, wrong_name
from tests.fakes import Fault
from tests.fakes import Upstream as Registry
from tests.fakes.tunnel import TunnelProxy
from tests.harness.certificates import Issued, issue
from tests.unit.pull.several import Net

reactor: Any = _reactor
NAME = "team/app"
HOST = "registry.lab.example"
ACCOUNT = Credential("docxy", "hunter2")


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


class NameTests(SynchronousTestCase):
    def wrong(self, host: str, *general: x509.GeneralName) -> str | None:
        return wrong_name(issue(general=general, common_name="a.example").certificate, host)

    def test_covered(self) -> None:
        """An equal name, a wildcard for the first label, an equal address; letters' case and a last dot say nothing."""
        for host, *names in (
            ("a.example", "a.example"),
            ("A.Example", "a.eXample"),
            ("a.example.", "a.example"),
            ("a.lab.example", "x.test", "*.lab.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("registry", "registry"),
        ):
            self.assertIsNone(self.wrong(host, *dns(*names)), host)
        for address in ("127.0.0.1", "::1", "0:0:0:0:0:0:0:1"):
            self.assertIsNone(self.wrong(address, x509.IPAddress(ip_address(address))))

    def test_not_covered(self) -> None:
        """Anything else is for somebody else, and nothing raises."""
        for host, *names in (
            ("a.example", "b.example"),
            ("a.example", "example"),
            ("a.example", "*.a.example"),
            ("a.lab", "*.lab"),
            ("a.example", "*.example"),
            ("b.a.lab.example", "*.lab.example"),
            (".lab.example", "*.lab.example"),
            ("lab.example", "*.lab.example"),
            ("foo.lab.example", "f*.lab.example"),
            ("foo.lab.example", "*oo.lab.example"),
            ("a.b.example.test", "*.*.example.test"),
            ("a.lab.example", "a.*.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "*.0.0.1"),
            ("::1", "::1"),
            ("a.example", "a.example\0.evil.test"),
            ("a.example", ""),
            ("a.example", "*"),
            ("a.example", "*."),
            ("", "a.example"),
        ):
            self.assertIn("not for", self.wrong(host, *dns(*names)) or "", (host, names))
        self.assertIn("not for", self.wrong("127.0.0.1", x509.IPAddress(ip_address("127.0.0.2"))) or "")
        mail, url = x509.RFC822Name("x@a.example"), x509.UniformResourceIdentifier("https://a.example")
        for general in ((), (mail,), (url,)):
            self.assertIn("names no host", self.wrong("a.example", *general) or "", general)

    def test_unreadable(self) -> None:
        """A certificate whose names cannot be read is for nobody."""

        class Broken:
            @property
            def extensions(self) -> Any:
                raise KeyError("x")

        self.assertIn("cannot be read", wrong_name(Broken(), "a.example") or "")  # type: ignore[arg-type]  # as an impostor's might be

    def test_shown(self) -> None:
        """A refusal names what the certificate is for, a few of many names."""
        many = dns(*(f"{letter}.example" for letter in "bcdefgh"))
        self.assertEqual(
            self.wrong("a.example", *many),
            "its certificate is for b.example, c.example, d.example, e.example, f.example and 2 more, "
            "not for a.example",
        )


class Chains(SynchronousTestCase):
    def test_messages(self) -> None:
        """Each of OpenSSL's refusals says what is the matter and what to do."""
        certificate = X509.from_cryptography(issue("a.example", by=issue(common_name="Lab CA")).certificate)
        for code, words in (
            (10, "expired on 20"),
            (9, "clock of this machine"),
            (18, "ca_file"),
            (19, "ca_file"),
            (20, "(CN=Lab CA)"),
            (23, "was revoked"),
            (79, "verify error 79"),
        ):
            self.assertIn(words, untrusted(certificate, code))


class Given(SynchronousTestCase):
    def test_files(self) -> None:
        """PEM that is none, or a key that is another's, is a ValueError in words."""
        ca, own, other = issue(), issue("a.example"), issue("b.example")
        for arguments, words in (
            ({"authorities": b""}, "no PEM certificate"),
            ({"authorities": ca.pem.replace(b"MII", b"!!!", 1)}, "cannot be read"),
            ({"identity": (b"", own.key_pem())}, "no PEM certificate"),
            ({"identity": (own.pem, b"")}, "client_key"),
            ({"identity": (own.pem, own.key_pem(password=b"x"))}, "passphrase"),
            ({"identity": (own.pem, other.key_pem())}, "does not belong"),
        ):
            self.assertIn(words, str(self.assertRaises(ValueError, make_trust, **arguments)))


class WaysCase(TestCase):
    async def setUp(self) -> None:
        self.ca = issue(common_name="the operator's CA")
        self.net = Net()
        self.net.names.update({HOST: ["127.0.0.1"], "registry.lab": ["127.0.0.1"]})
        self.registries: list[Registry] = []
        self.pools: list[Any] = []
        self.addCleanup(self.close)
        self.proxy = TunnelProxy(reactor)
        self.addCleanup(self.proxy.stop)
        self.plain = await self.registry()

    async def registry(self, issued: Issued | None = None, client_ca: Issued | None = None) -> Registry:
        """A registry, with TLS when there is a certificate for it; `client_ca`: whose certificates clients need."""
        options = None
        if issued is not None:
            pair = PrivateCertificate.loadPEM(issued.pem + issued.key_pem())
            roots = None if client_ca is None else trustRootFromCertificates([Certificate.loadPEM(client_ca.pem)])
            options = CertificateOptions(
                privateKey=pair.privateKey.original,
                certificate=pair.original,
                trustRoot=roots,
                # Without, Twisted refuses clients that name protocols.
                acceptableProtocols=[b"http/1.1"],
            )
        registry = Registry(reactor, context_factory=options)
        registry.add_image(NAME)
        registry.auth.accounts = {ACCOUNT.username: ACCOUNT.password}
        await registry.start()
        self.addCleanup(registry.stop)
        self.registries.append(registry)
        return registry

    async def close(self) -> None:
        """Every connection."""
        await gatherResults([pool.closeCachedConnections() for pool in self.pools])

    def fetcher(self, upstream: Upstream) -> Fetcher:
        agent, pool = make_agent(self.net, Timeouts(), upstream, LocalSlots, SMALL_READS, lambda: 0.0)
        self.pools.append(pool)
        return Fetcher(agent, reactor, Timeouts(), upstream.name, NoMeter(), Notes(time.time), NoTracer(), ())

    def upstream(self, url: str, **settings: Any) -> Upstream:
        defaults = {"private": True, "authorities": self.ca.pem, "credentials": (ACCOUNT,)}
        return Upstream("lab", url, **{**defaults, **settings})

    async def pull(self, upstream: Upstream) -> None:
        """A manifest, with docxy's own account."""
        fetcher, realms = self.fetcher(upstream), Realms(cache(PublicSuffixList))
        retry = Retry(reactor.seconds, 25.0)
        tokens = OwnTokens(TokenService(upstream, fetcher, realms, retry), reactor, AccountPassword(ACCOUNT))
        quota = Quota(reactor.seconds, Broadcast(to_nobody), "quota", lambda limit, remaining: None)
        own = OwnAuthorizer([Account(tokens, quota, AccountPassword(ACCOUNT))], upstream.name)
        endpoints = Endpoints((upstream.url, *upstream.endpoints), reactor.seconds, Random(1))
        failover = Failover(upstream, fetcher, own, endpoints, realms, retry)
        await Remote(upstream, endpoints, failover).manifest(NAME, Tag("latest"), ["*/*"], None)

    # The ways out, each to a URL

    async def as_upstream(self, url: str) -> None:
        await self.pull(self.upstream(url))

    async def as_endpoint(self, url: str) -> None:
        await self.pull(self.upstream(self.plain.origin("closed"), endpoints=(url,), realm_hosts=frozenset({HOST})))

    async def as_realm(self, url: str) -> None:
        upstream = self.upstream(f"https://{urlsplit(url).hostname}")
        service = TokenService(
            upstream, self.fetcher(upstream), Realms(cache(PublicSuffixList)), Retry(reactor.seconds, 25.0)
        )
        await service.ask(f"{url}/token", [("scope", "x")], authorization=basic(ACCOUNT.username, ACCOUNT.password))

    async def as_redirect(self, url: str) -> None:
        target = f"{url}/v2/{NAME}/manifests/latest"
        self.plain.on("manifest", Fault(status=307, body=b"", headers={"Location": target}))
        await self.pull(self.upstream(self.plain.url))

    async def through_proxy(self, url: str) -> None:
        before = len(self.proxy.connects)
        try:
            await self.pull(self.upstream(url, proxy=self.proxy.url))
        finally:
            self.assertEqual(len(self.proxy.connects), before + 1)

    @property
    def ways(self) -> list[Callable[[str], Coroutine[Any, Any, None]]]:
        return [self.as_upstream, self.as_endpoint, self.as_realm, self.as_redirect, self.through_proxy]


class Plain(Protocol):
    """What servers say to TLS on their plain port."""

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
        transport.loseConnection()


class Ways(WaysCase):
    async def test_right(self) -> None:
        """Right certificates are taken on every way: by name, by wildcard, by address."""
        for host, names in ((HOST, [HOST]), (HOST, ["*.lab.example"]), ("127.0.0.1", ["127.0.0.1"])):
            registry = await self.registry(issue(*names, by=self.ca))
            for way in self.ways:
                registry.requests.clear()
                await way(registry.origin(host=host))
                self.assertEqual(len(registry.requests), 1, (names, way))

    async def refused(self, impostor: Issued, words: str, host: str = HOST) -> None:
        """That it is refused on every way, in one line with these words, and gets no byte of a request."""
        registry = await self.registry(impostor)
        for way in self.ways:
            with self.assertRaises(UpstreamError) as raised:
                await way(registry.origin(host=host))
            message = str(raised.exception)
            self.assertIn(words, message, way)
            self.assertTrue(message.startswith(f"https://{host}:"), message)
            self.assertNotIn("\n", message)
            self.assertNotIn("[(", message)
        self.assertEqual(registry.requests, [])

    async def test_no_name(self) -> None:
        """No subjectAltName, though the common name is right; only an e-mail address; only a URL."""
        for general in (
            [],
            [x509.RFC822Name(f"x@{HOST}")],
            [x509.UniformResourceIdentifier(f"https://{HOST}")],
        ):
            await self.refused(issue(general=general, by=self.ca, common_name=HOST), "names no host")

    async def test_other_name(self) -> None:
        """Another name, another address, a partial wildcard, one too wide, one too far up."""
        for names in (["other.lab.example"], ["10.0.0.1"], ["r*.lab.example"], ["*.example"], ["*.x.lab.example"]):
            await self.refused(issue(*names, by=self.ca), f"its certificate is for {names[0]}, not for {HOST}")
        await self.refused(issue("*.lab", by=self.ca), "its certificate is for *.lab, not for", "registry.lab")

    async def test_address_as_name(self) -> None:
        """An IP address written as a DNS name."""
        await self.refused(issue(general=dns("127.0.0.1"), by=self.ca), "is for 127.0.0.1, not for", "127.0.0.1")

    async def test_time(self) -> None:
        """One that has expired, and one whose time has not come."""
        await self.refused(issue(HOST, by=self.ca, days=-1), "expired on")
        await self.refused(issue(HOST, by=self.ca, begins=10), "clock of this machine")

    async def test_unknown_authority(self) -> None:
        """Another CA's, one that signed itself, one by an authority that has expired."""
        await self.refused(issue(HOST, by=issue(common_name="another CA")), "(CN=another CA)")
        await self.refused(issue(HOST), "ca_file")
        old = issue(common_name="old CA", days=-1)
        authorities, self.ca = self.ca, old
        await self.refused(issue(HOST, by=old), "expired on")
        self.ca = authorities

    async def test_no_tls(self) -> None:
        """Who speaks no TLS at all is told of in words."""
        factory: Factory[Any] = Factory.forProtocol(Plain)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        with self.assertRaises(UpstreamError) as raised:
            await self.as_upstream(f"https://127.0.0.1:{port.getHost().port}")
        self.assertIn("TLS failed (", str(raised.exception))
        self.assertNotIn("[(", str(raised.exception))


class Authorities(WaysCase):
    async def test_added(self) -> None:
        """`ca_file` adds to the system's CAs; with `ca_only` it stands alone."""
        system = issue(common_name="one of the system's")
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(system.pem)
        registry = await self.registry(issue(HOST, by=system))
        own = await self.registry(issue(HOST, by=self.ca))
        # Where OpenSSL looks for the system's.
        os.environ["SSL_CERT_FILE"] = path
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        for only, trusted in ((False, [registry, own]), (True, [own])):
            for each in (registry, own):
                upstream = self.upstream(each.origin(host=HOST), ca_only=only)
                if each in trusted:
                    await self.pull(upstream)
                else:
                    with self.assertRaises(UpstreamError):
                        await self.pull(upstream)


class Identity(WaysCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.clients = issue(common_name="CA of clients")
        own = issue("docxy", by=self.clients)
        self.identity = own.pem, own.key_pem()

    async def test_shown(self) -> None:
        """A registry that wants a certificate of its clients gets docxy's; without, the pull fails in words."""
        registry = await self.registry(issue(HOST, by=self.ca), self.clients)
        url = registry.origin(host=HOST)
        await self.pull(self.upstream(url, identity=self.identity))
        self.assertEqual(registry.count("manifest"), 1)
        with self.assertRaises(UpstreamError) as raised:
            await self.pull(self.upstream(url))
        self.assertIn("TLS failed (", str(raised.exception))

    async def test_not_shown_elsewhere(self) -> None:
        """Where a redirect leads nobody sees it."""
        elsewhere = await self.registry(issue(HOST, by=self.ca), self.clients)
        target = f"{elsewhere.origin(host=HOST)}/v2/{NAME}/manifests/latest"
        self.plain.on("manifest", Fault(status=307, body=b"", headers={"Location": target}))
        with self.assertRaises(UpstreamError):
            await self.pull(self.upstream(self.plain.url, identity=self.identity))
        self.assertEqual(elsewhere.requests, [])

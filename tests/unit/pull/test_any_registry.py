"""Registries that only clients name: which they may be, what they may lead to, how many there are at once.

The registry is on loopback behind TLS; the net is the tests': names resolve as they are told, and each connection
is written down.
"""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.ssl import PrivateCertificate

from docxy import registries
from docxy.observe.prometheus import Meter
from docxy.settings.access import parse
from docxy.settings.model import ANY, AuthMode, Upstream
from tests import fakes
from tests.fakes import Fault
from tests.harness.certificates import issue
from tests.unit.pull.harness import REPOSITORY, reactor
from tests.unit.pull.several import Docxy, SeveralCase

PUBLIC, HUB = "93.184.216.34", "1.1.1.1"
NAMES = ("quay.example", "ghcr.example", "other.example", "auth.quay.example", "xn--bcher-kva.example")
CA = issue(common_name="the tests' authority")


class AnyCase(SeveralCase):
    async def setUp(self) -> None:
        await super().setUp()
        leaf = issue(*NAMES, by=CA)
        pair = PrivateCertificate.loadPEM(leaf.pem + leaf.key_pem())
        self.quay = fakes.Upstream(reactor, context_factory=pair.options())
        await self.quay.start()
        self.addCleanup(self.quay.stop)
        self.image = self.quay.add_image(REPOSITORY)
        self.blob = self.quay.add_blob(REPOSITORY, b"public")
        self.net.names.update({name: [PUBLIC] for name in NAMES})
        self.net.names.update({"hub.example": [HUB], "bücher.example": [PUBLIC]})
        self.net.leads[HUB] = int(self.upstream.url.rpartition(":")[2])
        self.net.leads[PUBLIC] = int(self.quay.url.rpartition(":")[2])
        self.path = f"/v2/{REPOSITORY}/manifests/latest"

    def any(self, mirror: dict[str, Any] | None = None, default: dict[str, Any] | None = None, **changed: Any) -> Docxy:
        """A docxy whose default registry is `self.upstream`; `changed`: what holds for all others."""
        star = Upstream(ANY, "https://*", auth=AuthMode.NONE, is_named=False, authorities=CA.pem, **changed)
        hub = Upstream("hub.example", "http://hub.example", **{"library": True, **(default or {})})
        return self.serve(hub, any_registry=star, network=self.net, **(mirror or {}))

    async def digest(self, docxy: Docxy, path: str, **headers: str) -> str | None:
        return (await docxy.ask(path, {"Host": "mirror.test", **headers})).header("Docker-Content-Digest")

    async def status(self, docxy: Docxy, path: str, host: str = "mirror.test", **headers: str) -> int:
        return (await docxy.ask(path, {"Host": host, **headers})).status


class Naming(AnyCase):
    async def test_ways(self) -> None:
        """By ns, by either prefix; another upstream's images never mix with it, and ns is told in the answer."""
        docxy = self.any()
        ours = self.upstream.add_image(REPOSITORY, layers=[b"the hub's"])
        for path in (
            f"{self.path}?ns=quay.example",
            f"{self.path}?ns=QUAY.example:443",
            f"/v2/quay.example/{REPOSITORY}/manifests/latest",
            f"/quay.example/v2/{REPOSITORY}/manifests/latest",
        ):
            self.assertEqual(await self.digest(docxy, path), str(self.image), path)
        self.assertEqual(await self.digest(docxy, self.path), str(ours))
        self.assertEqual(self.net.connected.count(PUBLIC), 1)
        self.assertEqual(await self.status(docxy, "/v2/quay.example/"), 200)

    async def test_hosts(self) -> None:
        """A Host means a registry where the operator said so; else it means the default, whatever it is."""
        self.upstream.add_image(REPOSITORY, layers=[b"the hub's"])
        unsaid, said = self.any(), self.any(hosts=frozenset({"quay.*"}))
        hub = await self.digest(unsaid, self.path)
        for docxy, host, digest in (
            (unsaid, "quay.example", hub),
            (said, "quay.example", str(self.image)),
            (said, "quay.example:5000", str(self.image)),
            (said, "ghcr.example", hub),
        ):
            self.assertEqual(await self.digest(docxy, self.path, Host=host), digest, host)

    async def test_off(self) -> None:
        """Without "*" no other registry is contacted, whatever a client says."""
        docxy = self.serve(Upstream("hub.example", "http://hub.example", library=True), network=self.net)
        for path in (f"{self.path}?ns=quay.example", f"/v2/quay.example/{REPOSITORY}/manifests/latest"):
            self.assertEqual(await self.status(docxy, path), 404)
        self.assertEqual(self.net.connected, [])

    async def test_names(self) -> None:
        """What is not the full name of a host on the internet is refused, and nothing is connected to."""
        docxy = self.any()
        for name in (
            *("localhost", "quay", "quay:5000", "127.0.0.1", "127.1", "0x7f.1", "10.0.0.1:5000", "[::1]", "[::1]:5000"),
            *(
                "2130706433",
                "1.2.3.4.in-addr.arpa",
                "metadata.google.internal",
                "nas.local",
                "router.lan",
                "a.localhost",
            ),
            *("registry.svc", "db.test", "quay.example:22", "quay.example:80", "quay.example:0", "quay.example:65536"),
            *("quay.example.", "quay..example", "-a.example", "a-.example", "a_b.example", f"{'a' * 64}.example"),
            *(f"{'a.' * 130}example", "xn--a-.example", "ab--cd.example", "b%C3%BCcher.example", "quay.example%00.x"),
            *("user@quay.example", "quay.example%2Fx", "quay.example%3Fx", "quay.example%23x", "*", "*.example"),
        ):
            self.assertIn(await self.status(docxy, f"{self.path}?ns={name}"), (400, 404), name)
            self.assertIn(await self.status(docxy, f"/v2/{name}/{REPOSITORY}/manifests/latest"), (400, 404), name)
        self.assertEqual((set(self.net.connected) - {HUB}, [*self.quay.requests]), (set(), []))
        answer = await docxy.ask(f"{self.path}?ns=xn--bcher-kva.example")
        self.assertEqual(answer.status, 200, answer.body)

    async def test_ourselves(self) -> None:
        """docxy's own name is no registry behind it, nor is the address of one that it knows by another name."""
        docxy = self.serve(
            Upstream("hub.example", "https://quay.example", authorities=CA.pem, deny=(REPOSITORY,), library=True),
            any_registry=Upstream(ANY, "https://*", auth=AuthMode.NONE, is_named=False, authorities=CA.pem),
            network=self.net,
        )
        for name in ("quay.example", "quay.example:443", "mirror.test"):
            self.assertIn(await self.status(docxy, f"/v2/{name}/{REPOSITORY}/manifests/latest"), (400, 403, 404), name)
        self.assertEqual(self.net.connected, [])

    async def test_repositories_with_dots(self) -> None:
        """A repository of the default registry may look like a host."""
        docxy = self.any(default={"library": False})
        node = self.upstream.add_image("node.js")
        self.assertEqual(await self.digest(docxy, "/v2/node.js/manifests/latest"), str(node))


class Allowed(AnyCase):
    async def test_lists(self) -> None:
        """`allow` and `deny` are about registry and repository; what they refuse makes no connection."""
        docxy = self.any(allow=("quay.example/team/**", "*.example/pub/*"), deny=("*.example/pub/secret",))
        self.quay.add_image("pub/app")
        for path, status in (
            (f"/v2/quay.example/{REPOSITORY}/manifests/latest", 200),
            (f"/v2/ghcr.example/{REPOSITORY}/manifests/latest", 403),
            ("/v2/ghcr.example/pub/app/manifests/latest", 200),
            ("/v2/ghcr.example/pub/secret/manifests/latest", 403),
            ("/v2/evil.example/x/y/manifests/latest", 403),
        ):
            self.assertEqual(await self.status(docxy, path), status, path)
        self.assertEqual(len(self.net.connected), 2)

    async def test_rules(self) -> None:
        """The rules of [access] hold for them, before anything is connected to."""
        with open(path := self.mktemp(), "w", encoding="ascii") as file:
            # "secret"
            file.write("alice:$2b$04$ABCDEFGHIJKLMNOPQRSTUuQm1jrbZtNlxQpKnKYRM2aKkQ0m9Q0dO\n")
        rules = {"anonymous": ["quay.example/team/**"]}
        table = {
            "htpasswd": path,
            "rules": [{"groups": [group], "repositories": names} for group, names in rules.items()],
        }
        docxy = self.any({"access": parse(table, "docxy.toml")})
        self.assertEqual(await self.status(docxy, f"{self.path}?ns=quay.example"), 200)
        self.net.connected.clear()
        self.assertEqual(await self.status(docxy, f"{self.path}?ns=ghcr.example"), 401)
        self.assertEqual(self.net.connected, [])
        answer = await docxy.ask(f"/auth/token?service=mirror.test&scope=repository:{REPOSITORY}:pull")
        self.assertIn(REPOSITORY, answer.json.get("scope", REPOSITORY))

    async def test_no_login(self) -> None:
        """In transparent mode a client's credentials stay here: it logged in to another registry."""
        docxy = self.any({"auth": AuthMode.TRANSPARENT})
        for secret in ("Bearer hunter2", "Basic aHVudGVyMjpodW50ZXIy"):
            self.assertEqual(await self.status(docxy, f"{self.path}?ns=quay.example", Authorization=secret), 200)
        self.assertEqual([each for each in self.quay.requests if "authorization" in each.headers], [])
        self.assertEqual(await self.status(docxy, f"/auth/token/quay.example?scope=repository:{REPOSITORY}:pull"), 404)


class Attacks(AnyCase):
    async def refused(self, docxy: Docxy, name: str, words: str) -> None:
        answer = await docxy.ask(f"{self.path}?ns={name}")
        self.assertEqual(answer.status, 502, name)
        self.assertIn(words, answer.body.decode(), name)
        self.assertEqual(set(self.net.connected) - {PUBLIC}, set(), name)

    async def test_dns(self) -> None:
        """A public name with an address inside leads nowhere, on any port, nor when it changes its mind."""
        docxy = self.any()
        for address in (
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
        ):
            self.net.names["inside.example"] = [address]
            await self.refused(docxy, "inside.example", "is not on the public internet")
            await self.refused(docxy, "inside.example:5000", "is not on the public internet")
            await docxy.stop()
            docxy = self.any()
        self.assertEqual(await self.status(docxy, f"{self.path}?ns=quay.example"), 200)
        await self.quay.drop_connections()
        await docxy.stop()
        self.net.names["quay.example"] = ["127.0.0.1"]
        answer = await self.any().ask(f"/v2/quay.example/{REPOSITORY}/blobs/{self.blob}")
        self.assertEqual(answer.status, 502)
        self.assertEqual(set(self.net.connected), {PUBLIC})

    async def test_redirects(self) -> None:
        """Nor does a redirect: to an address inside, in any spelling, or to plain http."""
        self.net.names["inside.example"] = ["10.0.0.1"]
        docxy = self.any()
        for host in ("inside.example", "169.254.169.254", "[::1]", "127.1", "0x7f000001", "2130706433"):
            self.quay.on("manifest", Fault(status=307, headers={"Location": f"https://{host}/latest/meta-data/"}))
            self.assertEqual(await self.status(docxy, f"/v2/quay.example/a/{host.strip('[]:')}/manifests/x"), 502, host)
        self.quay.on("manifest", Fault(status=307, headers={"Location": "http://quay.example/"}))
        self.assertEqual(await self.status(docxy, "/v2/quay.example/a/b/manifests/x"), 502)
        self.assertEqual(set(self.net.connected), {PUBLIC})

    async def test_realms(self) -> None:
        """Nor does a token realm: not to another domain, an address inside, or plain http."""
        self.net.names["auth.quay.example"] = ["10.0.0.1"]
        docxy = self.any()
        for realm in (
            "https://auth.quay.example",
            "https://169.254.169.254",
            "http://quay.example",
            "https://evil.example",
        ):
            challenge = {"WWW-Authenticate": f'Bearer realm="{realm}/token",service="x"'}
            self.quay.on(None, Fault(status=401, headers=challenge), times=None)
            self.assertEqual(await self.status(docxy, f"{self.path}?ns=quay.example"), 502, realm)
            self.quay.rules.clear()
        self.assertEqual(set(self.net.connected), {PUBLIC})

    async def test_certificates(self) -> None:
        """Nor to a host with another's certificate."""
        self.net.names["evil.example"] = [PUBLIC]
        await self.refused(self.any(), "evil.example", "certificate")


class Bounds(AnyCase):
    async def test_most(self) -> None:
        """The one asked longest ago goes, with its connections and what was known of it; its cache stays."""
        self.patch(registries, "MOST_UNNAMED", 2)
        docxy = self.any({"tag_ttl": 600.0})
        has = []
        for name in ("quay.example", "ghcr.example", "quay.example", "other.example"):
            self.assertEqual(await self.status(docxy, f"{self.path}?ns={name}"), 200)
            has.append((len([*docxy.served.services]), len(docxy.fills._feeders)))
        self.assertEqual([has[1]] * 2, has[2:])
        self.assertEqual(len(self.net.connected), 3)
        # ghcr.example went; what it has is in the cache, and is found by the next of its name.
        asked = len(self.quay.requests)
        self.assertEqual(await self.status(docxy, f"{self.path}?ns=ghcr.example"), 200)
        self.assertEqual(len(self.quay.requests), asked)
        await docxy.ask(f"/v2/ghcr.example/{REPOSITORY}/blobs/{self.blob}")
        self.assertEqual(len(self.net.connected), 4, "its connections had been closed")

    async def test_counted(self) -> None:
        """Metrics have one label for all of them, whatever clients call them."""
        counted = CollectorRegistry()
        docxy = self.any({"meter": Meter(counted)})
        for name in ("quay.example", "ghcr.example"):
            self.assertEqual(await self.status(docxy, f"{self.path}?ns={name}"), 200)
        labels = {
            sample.labels["upstream"]
            for metric in counted.collect()
            for sample in metric.samples
            if sample.labels.get("upstream")
        }
        self.assertEqual(labels - {"hub.example"}, {ANY})

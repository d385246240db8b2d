"""A registry on the public internet leads nowhere else, whatever its DNS, its redirects or its realm say.

The net is the tests': names resolve as they are told, and each connection is written down.
"""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from docxy.names import Digest
from docxy.settings.model import AuthMode, Upstream
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import REPOSITORY
from tests.unit.pull.several import Docxy, SeveralCase

HUB = "93.184.216.34"
CDN = "1.1.1.1"
INSIDE = {
    "loopback.example": "127.0.0.1",
    "private.example": "10.1.2.3",
    "link-local.example": "169.254.1.1",
    "metadata.example": "169.254.169.254",
    "loopback6.example": "::1",
    "local6.example": "fd00:ec2::254",
    "mapped.example": "::ffff:127.0.0.1",
    "nat64.example": "64:ff9b::a9fe:a9fe",
}
TARGETS = (*INSIDE, "127.0.0.1", "169.254.169.254", "10.1.2.3")
"""As hosts of URLs."""


class SsrfCase(SeveralCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.image = self.upstream.add_image(REPOSITORY)
        self.blob = self.upstream.add_blob(REPOSITORY, b"public")
        number = int(self.upstream.url.rpartition(":")[2])
        self.net.names.update({"hub.example": [HUB], "cdn.example": [CDN], **{k: [v] for k, v in INSIDE.items()}})
        self.net.leads.update({HUB: number, CDN: number})

    def hub(self, **changed: Any) -> Docxy:
        settings: dict[str, Any] = {"url": "http://hub.example", "private": False, **changed}
        return self.serve(Upstream("hub.example", **settings), network=self.net)

    async def refused(self, docxy: Docxy, address: str) -> None:
        """That a blob is not to be had, that the error says why, and that nothing was connected to but the hub."""
        answer = await docxy.blob(self.blob)
        self.assertEqual((answer.status, answer.code), (502, "UNAVAILABLE"), address)
        message = answer.json["errors"][0]["message"]
        self.assertIn(f"its address {address} is not on the public internet", message)
        self.assertIn("private = true", message)
        self.assertEqual(set(self.net.connected) - {HUB, CDN}, set(), address)


class Answers(SsrfCase):
    async def test_public(self) -> None:
        """A name that leads to the internet is connected to, and so is where it redirects to."""
        docxy = self.hub()
        self.upstream.on("blob", Fault(status=307, headers={"Location": f"http://cdn.example/v2/{REPOSITORY}/blobs/x"}))
        await docxy.blob(self.blob)
        self.assertEqual((await docxy.manifest("latest")).status, 200)
        self.assertEqual(self.net.connected, [HUB, CDN])

    async def test_dns(self) -> None:
        """A name that resolves to an address inside is refused before anything is connected to."""
        for name, address in INSIDE.items():
            docxy = self.hub(url=f"http://{name}")
            await self.refused(docxy, address)
            self.assertEqual(self.net.connected, [])
            await docxy.stop()

    async def test_some(self) -> None:
        """Of several addresses the public one alone is tried."""
        self.net.names["hub.example"] = ["10.1.2.3", "::1", HUB, "169.254.169.254"]
        self.assertEqual((await self.hub().blob(self.blob)).status, 200)
        self.assertEqual(self.net.connected, [HUB])

    async def test_changes_its_mind(self) -> None:
        """A name that was public is looked at again with each connection (DNS rebinding)."""
        docxy = self.hub()
        self.assertEqual((await docxy.manifest("latest")).status, 200)
        await self.upstream.drop_connections()
        await docxy.served.services.stopService()
        self.net.names["hub.example"] = ["127.0.0.1"]
        await self.refused(docxy, "127.0.0.1")
        self.assertEqual(self.net.connected, [HUB])

    async def test_unresolved(self) -> None:
        """A name that nobody knows is no matter of addresses."""
        answer = await self.hub(url="http://nowhere.example").blob(self.blob)
        self.assertEqual(answer.status, 502)
        self.assertIn("cannot be resolved", answer.body.decode())

    async def test_endpoint(self) -> None:
        """Another endpoint is no way in either."""
        self.upstream.on("blob", Fault(status=500), times=None)
        docxy = self.hub(endpoints=("http://private.example",))
        await self.refused(docxy, "10.1.2.3")


class Redirects(SsrfCase):
    async def test_redirect(self) -> None:
        """A redirect to an address inside, by name or as it is, is refused; for manifests too."""
        docxy = self.hub()
        for host in TARGETS:
            for kind in ("blob", "manifest"):
                self.upstream.on(kind, Fault(status=307, headers={"Location": f"http://{host}/latest/meta-data/"}))
            await self.refused(docxy, INSIDE.get(host, host))
            answer = await docxy.manifest("latest")
            self.assertEqual(answer.status, 502, host)
            self.assertNotIn("meta-data", answer.body.decode(), "a redirect's path may be a secret")
        self.assertEqual(set(self.net.connected), {HUB})

    async def test_literals(self) -> None:
        """Other ways to write an address inside lead nowhere either."""
        docxy = self.hub()
        for host in ("[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "127.1", "0"):
            self.upstream.on("blob", Fault(status=307, headers={"Location": f"http://{host}/"}))
            self.assertEqual((await docxy.blob(self.blob)).status, 502, host)
        self.assertEqual(set(self.net.connected), {HUB})

    async def test_second_hop(self) -> None:
        """Nor by way of a public one."""
        docxy = self.hub()
        hops = (f"http://cdn.example/v2/{REPOSITORY}/blobs/{self.blob}", "http://metadata.example/")
        for location in hops:
            self.upstream.on("blob", Fault(status=302, headers={"Location": location}))
        await self.refused(docxy, "169.254.169.254")
        self.assertEqual(self.net.connected, [HUB, CDN])

    async def test_schemes(self) -> None:
        """Nor to anything but http and https."""
        docxy = self.hub()
        for location in ("file:///etc/passwd", "gopher://127.0.0.1/", "unix:///run/docker.sock", "http://:80/"):
            self.upstream.on("blob", Fault(status=307, headers={"Location": location}))
            answer = await docxy.blob(self.blob)
            self.assertEqual(answer.status, 502, location)
        self.assertEqual(set(self.net.connected), {HUB})


class TokenRealms(SsrfCase):
    def challenge(self, realm: str) -> None:
        challenge = f'Bearer realm="{realm}",service="x"'
        self.upstream.on(None, Fault(status=401, headers={"WWW-Authenticate": challenge}), times=None)

    async def test_elsewhere(self) -> None:
        """A realm that is an address inside is another host than the registry's: refused, and said so."""
        docxy = self.hub()
        for host in ("127.0.0.1", "169.254.169.254", "metadata.example"):
            self.challenge(f"http://{host}/token")
            answer = await docxy.blob(self.blob)
            self.assertEqual(answer.status, 502)
            self.assertIn(f"its token realm is on {host}", answer.body.decode())
            self.upstream.rules.clear()
        self.assertEqual(set(self.net.connected), {HUB})

    async def test_same_domain(self) -> None:
        """One of the registry's own domain that resolves to an address inside is not connected to."""
        self.net.names.update({"auth.hub.example": ["169.254.169.254"], "hub.hub.example": [HUB]})
        self.challenge("http://auth.hub.example/token")
        await self.refused(self.hub(url="http://hub.hub.example"), "169.254.169.254")

    async def test_relayed(self) -> None:
        """Nor for a client's token request."""
        self.net.names.update({"auth.hub.example": ["10.0.0.1"], "hub.hub.example": [HUB]})
        self.challenge("http://auth.hub.example/token")
        docxy = self.hub(url="http://hub.hub.example", auth=AuthMode.TRANSPARENT)
        answer = await docxy.ask(f"/auth/token?scope=repository:{REPOSITORY}:pull")
        self.assertEqual(answer.status, 502)
        self.assertIn("10.0.0.1 is not on the public internet", answer.body.decode())
        self.assertEqual(self.net.connected, [HUB])


class Allowed(SsrfCase):
    async def test_private(self) -> None:
        """A registry that the operator says is private may be inside, and so may what it leads to."""
        port = self.upstream.url.rpartition(":")[2]
        self.upstream.auth = Auth("bearer")
        self.net.leads["10.1.2.3"] = int(port)
        docxy = self.hub(url=f"http://private.example:{port}", private=True, realm_hosts=frozenset({"127.0.0.1"}))
        self.assertEqual((await docxy.blob(self.blob)).status, 200)
        self.assertEqual(set(self.net.connected), {"10.1.2.3", "127.0.0.1"})

    async def test_each_its_own(self) -> None:
        """That one registry is private opens nothing to another."""
        inside = Upstream("inside.example", self.upstream.url, private=True)
        public = Upstream("hub.example", "http://hub.example")
        docxy = self.serve(public, inside, network=self.net)
        self.upstream.on("blob", Fault(status=307, headers={"Location": f"{self.upstream.url}/v2/"}), times=1)
        await self.refused(docxy, "127.0.0.1")
        self.assertEqual((await docxy.blob(self.blob, repository=f"inside.example/{REPOSITORY}")).status, 200)

    async def test_never_by_request(self) -> None:
        """No `ns`, prefix, Host, repository or reference of a client becomes an address."""
        docxy = self.hub()
        digest = Digest.of(b"x")
        for path in (
            f"/v2/{REPOSITORY}/blobs/{digest}?ns=127.0.0.1",
            f"/v2/127.0.0.1/{REPOSITORY}/blobs/{digest}",
            f"/v2/169.254.169.254:80/{REPOSITORY}/blobs/{digest}",
            f"/127.0.0.1:80/v2/{REPOSITORY}/blobs/{digest}",
            f"/v2/..%2f..%2f127.0.0.1/blobs/{digest}",
            f"/v2/@127.0.0.1/x/blobs/{digest}",
            f"/auth/token?realm=http://127.0.0.1/&scope=repository:127.0.0.1/{REPOSITORY}:pull",
        ):
            await docxy.ask(path, {"Host": "127.0.0.1"})
        self.assertEqual(set(self.net.connected) - {HUB}, set())

"""Several registries behind one docxy: their names, images, tokens and rules never mix."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from docxy.names import OCI_INDEX
from docxy.settings.model import AuthMode, Upstream
from tests.fakes import Auth, Fault, Pattern
from tests.unit.pull.harness import PUBLIC_URL, REPOSITORY, bearer, drain
from tests.unit.pull.several import Docxy, SeveralCase

OTHER = f"other.test/{REPOSITORY}"
"""The second registry's, by prefix."""
BIG = Pattern(2 << 20, "registries")


class RegistriesCase(SeveralCase):
    """Two registries, `hub.test` (the default) and `other.test`, with different images of one name."""

    async def setUp(self) -> None:
        await super().setUp()
        self.hub, self.other = self.upstream, await self.another()
        self.hubs = self.hub.add_image(REPOSITORY, layers=[b"of the hub"])
        self.others = self.other.add_image(REPOSITORY, layers=[b"of the other"])
        self.docxy = self.both()

    def both(self, **second: object) -> Docxy:
        """`second`: changes to the second upstream."""
        first = Upstream(
            "hub.test",
            self.hub.url,
            aliases=frozenset({"index.hub.test", "registry-1.hub.test"}),
            realm_hosts=frozenset({"localhost"}),
            private=True,
        )
        settings: dict[str, Any] = {"hosts": frozenset({"other.mirror.test"}), "private": True, **second}
        return self.serve(first, Upstream("other.test", self.other.url, **settings))

    def asked(self) -> tuple[int, int]:
        """Requests to the first and to the second since the last time."""
        counted = len(self.hub.requests), len(self.other.requests)
        self.hub.requests.clear()
        self.other.requests.clear()
        return counted


class Apart(RegistriesCase):
    async def test_tags(self) -> None:
        """One name and tag in two registries is two images, also once both are cached."""
        for _ in range(2):
            for repository, digest in ((REPOSITORY, self.hubs), (OTHER, self.others)):
                answer = await self.docxy.manifest("latest", repository=repository)
                self.assertEqual(answer.header("Docker-Content-Digest"), str(digest))
        self.assertEqual(self.asked(), (1, 1))

    async def test_digests(self) -> None:
        """What one registry has under a digest is not to be had under the other's name."""
        self.assertEqual((await self.docxy.manifest(self.hubs)).status, 200)
        answer = await self.docxy.manifest(self.hubs, repository=OTHER)
        self.assertEqual((answer.status, answer.code), (404, "MANIFEST_UNKNOWN"))
        blob = self.hub.add_blob(REPOSITORY, b"only here")
        self.assertEqual((await self.docxy.blob(blob)).status, 200)
        answer = await self.docxy.blob(blob, repository=OTHER)
        self.assertEqual((answer.status, answer.code), (404, "BLOB_UNKNOWN"))

    async def test_missing(self) -> None:
        """That one has no such tag says nothing of the other."""
        self.other.add_image(REPOSITORY, "nightly")
        self.assertEqual((await self.docxy.manifest("nightly")).status, 404)
        self.assertEqual((await self.docxy.manifest("nightly", repository=OTHER)).status, 200)
        self.assertEqual((await self.docxy.manifest("nightly")).status, 404)

    async def test_listings(self) -> None:
        """Listings are each registry's own."""
        self.other.add_image(REPOSITORY, "two")
        for _ in range(2):
            self.assertEqual((await self.docxy.ask(f"/v2/{REPOSITORY}/tags/list")).json["tags"], ["latest"])
            self.assertEqual((await self.docxy.ask(f"/v2/{OTHER}/tags/list")).json["tags"], ["latest", "two"])

    async def test_down(self) -> None:
        """One that is down does not keep anyone from the other."""
        self.hub.on(None, Fault(status=503), times=None)
        self.assertEqual((await self.docxy.manifest("latest")).status, 503)
        self.assertEqual((await self.docxy.manifest("latest", repository=OTHER)).status, 200)

    async def test_one_fill(self) -> None:
        """An equal blob is fetched once for both, while it is fetched and after; the other is asked to confirm."""
        digest = self.hub.add_blob(REPOSITORY, BIG)
        self.other.add_blob(REPOSITORY, BIG)
        rule = self.hub.on("blob", Fault(stall_after=1_000_000))
        first = await self.docxy.stream(f"/v2/{REPOSITORY}/blobs/{digest}")
        await rule.struck()
        second = await self.docxy.stream(f"/v2/{OTHER}/blobs/{digest}")
        rule.release()
        await gatherResults([first.client.ended, second.client.ended])
        for client in (first.client, second.client):
            self.assertEqual(client.body, BIG.read(0, BIG.size))
        await drain(self.docxy, digest)
        self.assertEqual((self.hub.count("blob"), self.hub.blob_bytes_sent), (1, BIG.size))
        (confirmed,) = self.other.select("blob")
        self.assertEqual((confirmed.headers.get("range"), confirmed.sent), ("bytes=0-0", 1))
        self.asked()
        for repository in (REPOSITORY, OTHER):
            self.assertEqual((await self.docxy.blob(digest, repository=repository)).cache_status, "docxy; hit")
        self.assertEqual(self.asked(), (0, 0))

    async def test_at_once(self) -> None:
        """Clients of both registries, by all three routings, at once."""
        paths = [
            (f"/v2/{REPOSITORY}/manifests/latest", {}, self.hubs),
            (f"/v2/hub.test/{REPOSITORY}/manifests/latest", {}, self.hubs),
            (f"/v2/{REPOSITORY}/manifests/latest?ns=other.test", {}, self.others),
            (f"/v2/{OTHER}/manifests/latest", {}, self.others),
            (f"/other.test/v2/{REPOSITORY}/manifests/latest", {}, self.others),
            (f"/v2/{REPOSITORY}/manifests/latest", {"Host": "other.mirror.test:5000"}, self.others),
        ]
        asking = [Deferred.fromCoroutine(self.docxy.ask(path, dict(headers))) for path, headers, _ in paths * 3]
        for answer, (path, headers, digest) in zip(await gatherResults(asking), paths * 3, strict=True):
            self.assertEqual(answer.header("Docker-Content-Digest"), str(digest), f"{path} {headers}")
        self.assertEqual(self.asked(), (1, 1))


class Names(RegistriesCase):
    async def test_aliases(self) -> None:
        """All names of a registry are one cache, and containerd is told which."""
        for name in ("hub.test", "index.hub.test", "registry-1.hub.test", "HUB.test"):
            for path in (
                f"/v2/{REPOSITORY}/manifests/latest?ns={name}",
                f"/v2/{name}/{REPOSITORY}/manifests/latest",
                f"/{name}/v2/{REPOSITORY}/manifests/latest",
            ):
                answer = await self.docxy.ask(path, {"Accept": "*/*"})
                self.assertEqual(answer.header("Docker-Content-Digest"), str(self.hubs), path)
                self.assertEqual(answer.header("OCI-Namespace"), "hub.test" if "ns=" in path else None)
        self.assertEqual(self.asked(), (1, 0))

    async def test_ourselves(self) -> None:
        """An `ns` that is docxy itself says nothing: the default is meant, or what Host or prefix says."""
        for ns in ("mirror.test", "MIRROR.test"):
            answer = await self.docxy.ask(f"/v2/{REPOSITORY}/manifests/latest?ns={ns}")
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.hubs))
            self.assertIsNone(answer.header("OCI-Namespace"))
            answer = await self.docxy.ask(f"/v2/{OTHER}/manifests/latest?ns={ns}")
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.others))

    async def test_order(self) -> None:
        """A prefix counts more than `ns`, and that more than Host."""
        host = {"Host": "other.mirror.test"}
        for path, digest in (
            (f"/v2/hub.test/{REPOSITORY}/manifests/latest?ns=other.test", self.hubs),
            (f"/v2/{REPOSITORY}/manifests/latest?ns=hub.test", self.hubs),
            (f"/v2/{REPOSITORY}/manifests/latest", self.others),
        ):
            answer = await self.docxy.ask(path, dict(host))
            self.assertEqual(answer.header("Docker-Content-Digest"), str(digest), path)

    async def test_not_configured(self) -> None:
        """What is not configured is refused and nobody asked for it, whatever way it is named."""
        addresses = (
            "evil.test",
            "127.0.0.1",
            "169.254.169.254",
            "localhost:5000",
            "[::1]",
            "other.test.evil.test",
            "@",
        )
        for name in addresses:
            answer = await self.docxy.ask(f"/v2/{REPOSITORY}/manifests/latest?ns={name}")
            self.assertEqual((answer.status, answer.code), (404, "NAME_UNKNOWN"), name)
            answer = await self.docxy.ask(f"/{name}/v2/{REPOSITORY}/manifests/latest")
            self.assertEqual(answer.status, 404, name)
        # By Host nothing is named that is not configured: it is docxy's own name then, whatever it is.
        answer = await self.docxy.ask("/v2/nothing/here/manifests/latest", {"Host": "evil.test"})
        self.assertEqual((answer.status, self.other.requests), (404, []))
        self.assertEqual(self.asked(), (1, 0))


class Tokens(RegistriesCase):
    """Transparent: clients answer each registry's challenge, at docxy."""

    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:
        await super().setUp()
        for registry in (self.hub, self.other):
            registry.auth = Auth("bearer", realm="port", accounts={"ann": "hunter2"})

    async def challenge(self, repository: str) -> str:
        answer = await self.docxy.manifest("latest", repository=repository)
        self.assertEqual(answer.status, 401)
        return answer.header("WWW-Authenticate") or ""

    async def test_realms(self) -> None:
        """Each registry has a realm of its own; the default's is the plain one."""
        for repository, realm in ((REPOSITORY, "/auth/token"), (OTHER, "/auth/token/other.test")):
            challenge = await self.challenge(repository)
            self.assertIn(f'realm="{PUBLIC_URL}{realm}"', challenge)
            self.assertIn(f'scope="repository:{REPOSITORY}:pull"', challenge)

    async def test_answered(self) -> None:
        """A client that answers a challenge as it stands gets the token of that registry, and the image."""
        for repository, digest in ((REPOSITORY, self.hubs), (OTHER, self.others)):
            parts = dict(re.findall(r'(\w+)="([^"]*)"', await self.challenge(repository)))
            self.asked()
            path = parts["realm"].removeprefix(PUBLIC_URL)
            answer = await self.docxy.ask(f"{path}?service={parts['service']}&scope={parts['scope']}")
            counts = self.hub.count("token"), self.other.count("token")
            self.assertEqual(counts, (1, 0) if repository == REPOSITORY else (0, 1))
            token = answer.json["token"]
            pulled = await self.docxy.manifest("latest", token, repository=repository)
            self.assertEqual((pulled.status, pulled.header("Docker-Content-Digest")), (200, str(digest)))

    async def test_prefixed_scope(self) -> None:
        """Classic clients write the scope themselves, as they see the name: its prefix says the registry."""
        for path in ("/auth/token", "/auth/token/other.test"):
            self.asked()
            answer = await self.docxy.ask(f"{path}?scope=repository:{OTHER}:pull")
            self.assertEqual(answer.status, 200)
            self.assertEqual(self.hub.count("token"), 0)
            (asked,) = self.other.select("token")
            self.assertEqual(asked.query["scope"], [f"repository:{REPOSITORY}:pull"])

    async def test_credentials(self) -> None:
        """A password goes to the one registry it is for."""
        basic = {"Authorization": "Basic YW5uOmh1bnRlcjI="}
        await self.docxy.ask(f"/auth/token/other.test?scope=repository:{REPOSITORY}:pull", dict(basic))
        self.assertEqual(
            [each.headers.get("authorization") for each in self.other.select("token")], list(basic.values())
        )
        self.assertEqual(self.asked()[0], 0)

    async def test_unknown(self) -> None:
        """A realm of a registry that is not configured is none, and nobody is asked."""
        for name in ("evil.test", "%2e%2e", "other.test/more"):
            answer = await self.docxy.ask(f"/auth/token/{name}?scope=repository:{REPOSITORY}:pull")
            self.assertEqual(answer.status, 404, name)
        self.assertEqual(self.asked(), (0, 0))

    async def test_scope_of_another(self) -> None:
        """A scope of one registry is not asked of another's token service."""
        path = f"/auth/token/hub.test?scope=repository:{OTHER}:pull&scope=repository:{REPOSITORY}:pull"
        self.assertEqual((await self.docxy.ask(path)).status, 200)
        self.assertEqual(self.other.requests, [])
        self.assertEqual(self.hub.select("token")[0].query["scope"], [f"repository:{REPOSITORY}:pull"])

    async def test_access(self) -> None:
        """That a token opens a name at one registry opens nothing of the same name at the other."""
        self.hub.auth.private = self.other.auth.private = {REPOSITORY}
        token = self.hub.auth.add_token("ann", frozenset({REPOSITORY}), self.hub.now() + 300)
        self.assertEqual((await self.docxy.manifest("latest", token)).status, 200)
        answer = await self.docxy.manifest("latest", token, repository=OTHER)
        self.assertEqual((answer.status, self.other.count("manifest")), (401, 1))

    async def test_modes(self) -> None:
        """One registry may be docxy's to answer for, while clients answer the other's."""
        docxy = self.both(auth=AuthMode.NONE)
        self.assertEqual((await docxy.manifest("latest")).status, 401)
        self.asked()
        answer = await docxy.ask(f"/v2/{OTHER}/manifests/latest", bearer("a client's"))
        self.assertEqual(answer.status, 200)
        self.assertNotIn("a client's", str([each.headers for each in self.other.requests]))


class Rules(RegistriesCase):
    async def test_tag_ttl(self) -> None:
        """Each registry's tags age by their own time."""
        docxy = self.both(tag_ttl=5.0)
        for repository in (REPOSITORY, OTHER):
            await docxy.manifest("latest", repository=repository)
        self.asked()
        self.seconds.advance(10)
        for repository in (REPOSITORY, OTHER):
            await docxy.manifest("latest", repository=repository)
        self.assertEqual(self.asked(), (0, 1))

    async def test_allow_and_deny(self) -> None:
        """What the operator does not allow is 403, the registry never asked; a deny wins, cached or not."""
        await self.docxy.manifest("latest", repository=OTHER)
        self.other.add_image("team/secret")
        self.other.add_image("else/app")
        self.asked()
        docxy = self.both(allow=("team/*",), deny=("team/s*", "team/app"))
        for repository in ("else/app", "team/secret", "team/app", "team/deep/app"):
            for rest in ("manifests/latest", "tags/list", f"blobs/{self.others}", f"referrers/{self.others}"):
                answer = await docxy.ask(f"/v2/other.test/{repository}/{rest}")
                self.assertEqual((answer.status, answer.code), (403, "DENIED"), f"{repository}/{rest}")
        self.assertEqual(self.asked(), (0, 0))
        self.assertEqual((await docxy.manifest("latest")).status, 200, "another registry's rules")

    async def test_allowed(self) -> None:
        """What is allowed is served."""
        docxy = self.both(allow=("team/*",), deny=("team/s*",))
        self.assertEqual((await docxy.manifest("latest", repository=OTHER)).status, 200)


class Referrers(RegistriesCase):
    async def test_fallback(self) -> None:
        """Where the API is missing, the index under the fallback tag is served; nothing was filtered."""
        self.hub.referrers = False
        listed = self.hub.add_referrer(REPOSITORY, self.hubs)
        index = self.hub.add_index(REPOSITORY, f"sha256-{self.hubs.hex}", {"signature": listed})
        answer = await self.docxy.ask(f"/v2/{REPOSITORY}/referrers/{self.hubs}?artifactType=application/example")
        self.assertEqual((answer.status, answer.header("Content-Type")), (200, OCI_INDEX))
        self.assertEqual(answer.body, self.hub.repositories[REPOSITORY].manifests[str(index)].body)
        self.assertIsNone(answer.header("OCI-Filters-Applied"))

    async def test_both_missing(self) -> None:
        """When there is neither, an empty index."""
        self.hub.referrers = False
        answer = await self.docxy.ask(f"/v2/{REPOSITORY}/referrers/{self.hubs}")
        self.assertEqual((answer.status, answer.json["manifests"]), (200, []))

    async def test_no_index(self) -> None:
        """Something else under the fallback tag is no list of referrers."""
        self.hub.referrers = False
        self.hub.add_image(REPOSITORY, f"sha256-{self.hubs.hex}")
        answer = await self.docxy.ask(f"/v2/{REPOSITORY}/referrers/{self.hubs}")
        self.assertEqual((answer.status, answer.json["manifests"]), (200, []))

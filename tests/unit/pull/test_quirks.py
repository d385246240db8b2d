"""Registries as they are: each test is one registry's way of doing things, and a pull that works all the same."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from docxy.settings.model import AuthMode, Credential, Upstream
from tests.fakes import Auth, Cdn, Fault
from tests.unit.pull.harness import REPOSITORY
from tests.unit.pull.several import Docxy, SeveralCase


class QuirksCase(SeveralCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.image = self.upstream.add_image(REPOSITORY)
        self.blobs = [self.upstream.add_blob(REPOSITORY, b"%d" % n) for n in range(9)]

    def registry(self, **changed: Any) -> Docxy:
        settings: dict[str, Any] = {"realm_hosts": frozenset({"localhost"}), "private": True, **changed}
        return self.serve(Upstream("quirky.test", self.upstream.url, **settings))

    async def pulls(self, docxy: Docxy) -> None:
        """A client's sequence: HEAD and GET of the tag, HEAD and GET of a blob that nobody asked for before."""
        blob = self.blobs.pop()
        for method in ("HEAD", "GET"):
            answer = await docxy.manifest("latest", method=method)
            self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(self.image)))
            self.assertEqual((await docxy.blob(blob, method=method)).status, 200)

    def challenged(self, challenge: str, kind: str | None = None, times: int | None = 1) -> None:
        self.upstream.on(kind, Fault(status=401, headers={"WWW-Authenticate": challenge}), times=times)


class Registries(QuirksCase):
    async def test_docker_hub(self) -> None:
        """A realm on another host than the registry, blobs from a third that refuses Authorization."""
        self.upstream.auth = Auth("bearer", realm="foreign", service="registry.docker.io")
        self.upstream.cdn = Cdn(status=307, host="localhost")
        await self.pulls(self.registry())
        self.assertEqual(self.upstream.count("manifest", "HEAD"), 2, "once challenged, once free of quota")
        self.assertEqual({each.query["service"][0] for each in self.upstream.select("token")}, {"registry.docker.io"})

    async def test_ghcr_missing(self) -> None:
        """What is missing or private is refused by the token service itself: 404, and no internal error."""
        for refuses in (401, 403):
            self.upstream.auth = Auth("bearer", accounts={"ann": "x"}, private={"team/none"}, refuses=refuses)
            answer = await self.registry().manifest("latest", repository="team/none")
            self.assertEqual((answer.status, answer.code), (404, "MANIFEST_UNKNOWN"), refuses)

    async def test_ghcr_denied(self) -> None:
        """A 403 DENIED may come without a challenge; so may a 401."""
        for status in (403, 401):
            self.upstream.on("manifest", Fault(status=status))
            answer = await self.registry(auth=AuthMode.NONE).manifest("latest")
            self.assertIn((answer.status, answer.code), ((403, "DENIED"), (404, "MANIFEST_UNKNOWN")), status)

    async def test_k8s(self) -> None:
        """Nobody is challenged, and manifests are redirected as blobs are."""
        self.upstream.cdn = Cdn(status=307, kinds=frozenset({"blob", "manifest"}), host="localhost", hops=2)
        await self.pulls(self.registry())
        self.assertEqual(self.upstream.count("token"), 0)

    async def test_k8s_transparent(self) -> None:
        """Nor is a client that asks in transparent mode."""
        self.upstream.cdn = Cdn(status=302, kinds=frozenset({"blob", "manifest"}))
        docxy = self.registry(auth=AuthMode.TRANSPARENT)
        self.assertEqual((await docxy.ask("/v2/")).status, 200)
        await self.pulls(docxy)

    async def test_artifact_registry(self) -> None:
        """The ping's challenge has a realm and nothing else; service and scope come with a repository's."""
        self.upstream.auth = Auth("bearer", realm="port", service="quirky-docker.pkg.dev")
        self.challenged(f'Bearer realm="{self.upstream.realm}"', "ping", None)
        docxy = self.registry(auth=AuthMode.TRANSPARENT)
        answer = await docxy.ask("/v2/")
        self.assertEqual(
            (answer.status, answer.header("WWW-Authenticate")), (401, 'Bearer realm="https://mirror.test/auth/token"')
        )
        token = (await docxy.token()).json["token"]
        self.assertEqual((await docxy.manifest("latest", token)).status, 200)
        await self.pulls(self.registry(auth=AuthMode.NONE))

    async def test_ecr_public(self) -> None:
        """HEAD of a blob is always 401, and an expired token is a 400 without a challenge."""
        self.upstream.auth = Auth("bearer", realm="port", expired_status=400)
        self.upstream.on("blob", Fault(status=401), method="HEAD", times=None)
        docxy = self.registry()
        await self.pulls(docxy)
        self.upstream.auth.revoke()
        self.seconds.advance(61)
        await self.pulls(docxy)
        self.assertEqual(self.upstream.count("blob", "HEAD"), 0)

    async def test_nvcr(self) -> None:
        """No service; and a token that expired is answered with a realm that leads nowhere."""
        self.upstream.auth = Auth("bearer", realm="port", service=None)
        self.upstream.auth.expired_realm = "https://dead-end.invalid/proxy_auth"
        docxy = self.registry()
        await self.pulls(docxy)
        self.assertNotIn("service", self.upstream.select("token")[0].query)
        self.upstream.auth.revoke()
        self.seconds.advance(61)
        await self.pulls(docxy)

    async def test_mcr_and_quay(self) -> None:
        """Without auth, or with it, blobs come from another host."""
        for auth in (Auth(), Auth("bearer", realm="same")):
            self.upstream.auth, self.upstream.cdn = auth, Cdn(status=302, host="localhost")
            await self.pulls(self.registry())
        self.assertEqual([each for each in self.upstream.select("cdn") if "authorization" in each.headers], [])

    async def test_gitlab(self) -> None:
        """The token service is on the main domain, which the preset vouches for: an account gets its token there."""
        self.upstream.auth = Auth("bearer", realm="foreign", service="container_registry", accounts={"ann": "x"})
        self.upstream.auth.private = {REPOSITORY}
        await self.pulls(self.registry(credentials=(Credential("ann", "x"),)))

    async def test_basic_beside_bearer(self) -> None:
        """Several challenges in one header: the Bearer one is answered."""
        self.upstream.auth = Auth("bearer", realm="port", also='Basic realm="Registry, with a comma"')
        await self.pulls(self.registry())

    async def test_token_dialects(self) -> None:
        """`token` or `access_token`, a lifetime or none, a scope in the challenge or none."""
        for fields in (("token",), ("access_token",), ("token", "access_token")):
            for expires_in in (None, 60, 0):
                for scope in (True, False):
                    self.upstream.auth = Auth("bearer", realm="port", token_fields=fields, scope=scope)
                    self.upstream.auth.expires_in = expires_in
                    docxy = self.serve(Upstream("quirky.test", self.upstream.url, private=True), cached=False)
                    answer = await docxy.manifest("latest")
                    self.assertEqual(answer.status, 200, f"{fields} {expires_in} {scope}")
                    await docxy.stop()

    async def test_signatures_expire(self) -> None:
        """A signed URL is never used twice: after an interruption the registry's own is asked again."""
        self.upstream.cdn = Cdn()
        blob = self.blobs.pop()
        self.upstream.on("cdn", Fault(cut_after=0))
        self.assertEqual((await self.registry().blob(blob)).status, 200)
        self.assertEqual((self.upstream.count("blob"), self.upstream.count("cdn")), (2, 2))

"""The upstream is off: what is cached is pulled, by those who may."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import jwt
from twisted.trial.unittest import SynchronousTestCase

from docxy.config import AuthMode
from docxy.pull.passes import LIFETIME, PUBLIC_FOR, Passes
from docxy.storage.catalog import Catalog
from docxy.storage.records import UpstreamCatalog
from tests.fakes import Auth, Fault
from tests.pull.harness import NAME, PUBLIC_URL, REPOSITORY, Mirror, MirrorCase, Seconds, bearer, drain, reactor

PRIVATE = "ann/secret"


class OffCase(MirrorCase):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        await super().setUp()
        self.path = self.mktemp()
        self.catalog = self.make_catalog(self.path)
        self.upstream.add_two_platforms(REPOSITORY)
        self.mirror = self.start()

    async def pull(self, mirror: Mirror, token: str | None = None) -> None:
        """As a client does: tag, platform's manifest, config, layer."""
        index = await mirror.manifest("latest", token)
        self.assertEqual(index.status, 200)
        manifest = await mirror.manifest(index.json["manifests"][0]["digest"], token)
        self.assertEqual(manifest.status, 200)
        for each in (manifest.json["config"], *manifest.json["layers"]):
            blob = await mirror.blob(each["digest"], token)
            self.assertEqual((blob.status, len(blob.body)), (200, each["size"]))
            await drain(mirror, each["digest"])

    def restarted(self) -> Mirror:
        """Another process on the same cache."""
        return self.start(catalog=self.make_catalog(self.path))


class Off(OffCase):
    async def test_none(self) -> None:
        """In none mode the image is pulled wholly, after a restart and a day too."""
        await self.pull(self.mirror)
        await self.upstream.stop()
        self.seconds.advance(24 * 3600)
        await self.pull(self.mirror)
        await self.pull(self.restarted())

    async def test_not_cached(self) -> None:
        """What is not cached is an error that says who is down."""
        await self.upstream.stop()
        answer = await self.mirror.manifest("latest")
        self.assertEqual((answer.status, answer.code), (502, "UNAVAILABLE"))


class TransparentOff(OffCase):
    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts={"ann": "pw"}, private={PRIVATE})
        self.upstream.add_image(PRIVATE)

    async def stranger(self) -> str:
        return str((await self.mirror.token()).json["token"])

    async def test_verified_lately(self) -> None:
        """A token that the upstream lately accepted goes on; one it never saw does not."""
        token = await self.stranger()
        await self.pull(self.mirror, token)
        await self.upstream.stop()
        self.seconds.advance(600)
        await self.pull(self.mirror, token)
        await self.pull(self.restarted(), token)
        self.assertEqual((await self.mirror.manifest("latest", "another")).status, 502)
        self.seconds.advance(3600)
        self.assertEqual((await self.mirror.manifest("latest", token)).status, 502)

    async def passed(self, mirror: Mirror) -> str:
        """What a stranger's client does: ping, token."""
        ping = await mirror.ask("/v2/")
        self.assertEqual(ping.status, 401)
        self.assertIn(f'realm="{PUBLIC_URL}/auth/token"', ping.header("WWW-Authenticate") or "")
        answer = await mirror.token()
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json["token"], answer.json["access_token"])
        self.assertGreaterEqual(answer.json["expires_in"], 60)
        return str(answer.json["token"])

    async def test_stranger(self) -> None:
        """A stranger gets a pass, after a restart too, and the image with it, wholly."""
        await self.pull(self.mirror, await self.stranger())
        await self.mirror.ask("/v2/")
        await self.upstream.stop()
        self.seconds.advance(3600)
        mirror = self.restarted()
        given = await self.passed(mirror)
        self.assertEqual((await mirror.ask("/v2/", bearer(given))).status, 200)
        await self.pull(mirror, given)

    async def test_reach(self) -> None:
        """A pass reaches only what strangers were lately let read, and what is asked for."""
        await self.pull(self.mirror, await self.stranger())
        ann = self.upstream.auth.add_token("ann", frozenset({PRIVATE}), reactor.seconds() + 300)
        self.assertEqual((await self.mirror.manifest("latest", ann, PRIVATE)).status, 200)
        self.upstream.on("token", Fault(status=503), times=None)
        self.assertEqual((await self.mirror.token(PRIVATE)).status, 503)
        given = str((await self.mirror.token(f"{PRIVATE}:pull&scope=repository:{REPOSITORY}")).json["token"])
        for answer in (
            await self.mirror.manifest("latest", given, PRIVATE),
            await self.mirror.blob(self.upstream.layers(PRIVATE, "latest")[0], given, PRIVATE),
            await self.mirror.ask(f"/v2/{PRIVATE}/tags/list", bearer(given)),
        ):
            self.assertEqual(answer.status, 401)
            # Without a challenge a client would not know how to come by a better token.
            self.assertIn("/auth/token", answer.header("WWW-Authenticate") or "")
        self.assertEqual((await self.mirror.manifest("latest", given)).status, 200)
        self.seconds.advance(PUBLIC_FOR + 1)
        self.assertEqual((await self.mirror.token()).status, 503)

    async def test_never_upstream(self) -> None:
        """A pass never goes upstream: good, expired or forged, whatever is asked with it, the registry being up."""
        await self.pull(self.mirror, await self.stranger())
        self.upstream.on("token", Fault(status=503), times=None)
        given = str((await self.mirror.token()).json["token"])
        claims = jwt.decode(given, options={"verify_signature": False})
        forged = jwt.encode({**claims, "repositories": [PRIVATE]}, "x" * 64, algorithm="HS256")
        other = Passes(self.catalog, "other.test").issue([REPOSITORY])
        evicted = self.upstream.layers(REPOSITORY, (await self.index())[0])[1]
        await self.store.delete(evicted)
        unknown = self.upstream.add_image(REPOSITORY, "unknown")
        for token in (given, forged, other):
            for path in (
                "",
                f"{REPOSITORY}/manifests/latest",
                f"{REPOSITORY}/manifests/unknown",
                f"{REPOSITORY}/manifests/{unknown}",
                f"{REPOSITORY}/blobs/{evicted}",
                f"{REPOSITORY}/tags/list",
                f"{PRIVATE}/manifests/latest",
            ):
                for method in ("GET", "HEAD"):
                    answer = await self.mirror.ask(f"/v2/{path}", bearer(token), method)
                    if token is not given:
                        self.assertEqual(answer.status, 401, path)
            self.seconds.advance(1)
        self.seconds.advance(LIFETIME)
        expired = await self.mirror.manifest("latest", given)
        self.assertEqual(expired.status, 401)
        self.assertEqual((await self.mirror.ask("/v2/", bearer(given))).status, 401)
        self.assertIn("/auth/token", expired.header("WWW-Authenticate") or "")
        seen = str([each.headers for each in self.upstream.requests])
        for token in (given, forged, other):
            self.assertNotIn(token, seen)

    async def index(self) -> list[str]:
        manifests = self.upstream.repositories[REPOSITORY].manifests.values()
        return [str(each.digest) for each in manifests if b'"layers"' in each.body]

    async def test_not_for_credentials(self) -> None:
        """Who comes with a password gets no pass, but what the token service says."""
        await self.pull(self.mirror, await self.stranger())
        await self.upstream.stop()
        path = f"/auth/token?scope=repository:{REPOSITORY}:pull"
        self.assertEqual((await self.mirror.ask(path, {"Authorization": "Basic YW5uOnB3"})).status, 502)

    async def test_refused_is_no_failure(self) -> None:
        """A token service that refuses is not down."""
        await self.pull(self.mirror, await self.stranger())
        self.upstream.auth.refuses = 403
        self.upstream.auth.private.add(REPOSITORY)
        self.assertEqual((await self.mirror.token()).status, 403)

    async def test_made_private(self) -> None:
        """A repository that strangers are refused now is out of a pass's reach."""
        token = await self.stranger()
        await self.pull(self.mirror, token)
        self.upstream.auth.private.add(REPOSITORY)
        self.seconds.advance(70)
        self.assertEqual((await self.mirror.manifest("latest", token)).status, 401)
        await self.upstream.stop()
        self.assertEqual((await self.mirror.token()).status, 502)


class PassesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.seconds = Seconds()
        self.catalog = Catalog(":memory:", self.seconds)
        self.addCleanup(self.catalog.close)
        self.passes = Passes(self.catalog, NAME)

    def test_read(self) -> None:
        """A pass is read until it ends; another's Authorization is none of ours."""
        given = f"Bearer {self.passes.issue(['b', 'a'])}"
        self.assertEqual(self.passes.read(given), {"a", "b"})
        self.assertEqual(Passes(self.catalog, NAME).read(given), {"a", "b"})
        self.seconds.advance(LIFETIME + 1)
        self.assertEqual(self.passes.read(given), frozenset())
        other = jwt.encode({"iss": "auth.docker.io"}, "k" * 32, algorithm="HS256")
        for authorization in (None, "", "Bearer", "Bearer x", "Bearer a.b.c", "Basic YTpi", f"Bearer {other}"):
            self.assertIsNone(self.passes.read(authorization), authorization)

    def test_forged(self) -> None:
        """A pass of another upstream, another key, no algorithm, no end or odd claims reaches nothing."""
        now = int(self.seconds())
        good = {"iss": "docxy", "aud": NAME, "exp": now + 60, "repositories": ["a"]}
        key = self.catalog.fact("pass key") or self.passes._key()
        self.assertEqual(self.passes.read(f"Bearer {jwt.encode(good, key, 'HS256')}"), {"a"})
        for token in (
            Passes(self.catalog, "other.test").issue(["a"]),
            jwt.encode(good, "k" * 64, "HS256"),
            jwt.encode(good, "", "none"),
            jwt.encode(good, key, "HS512"),
            jwt.encode({name: value for name, value in good.items() if name != "exp"}, key, "HS256"),
            jwt.encode({name: value for name, value in good.items() if name != "aud"}, key, "HS256"),
            jwt.encode({**good, "repositories": 5}, key, "HS256"),
            jwt.encode({**good, "exp": now - 1}, key, "HS256"),
        ):
            self.assertEqual(self.passes.read(f"Bearer {token}"), frozenset(), token)

    def test_public(self) -> None:
        """A repository is public for a while after a stranger was let in, until one is refused."""
        known = UpstreamCatalog(self.catalog, NAME)
        self.assertFalse(self.passes.is_public(known, "a"))
        known.publish("a")
        self.assertTrue(self.passes.is_public(known, "a"))
        self.assertFalse(self.passes.is_public(UpstreamCatalog(self.catalog, "other.test"), "a"))
        self.seconds.advance(PUBLIC_FOR)
        self.assertFalse(self.passes.is_public(known, "a"))
        known.publish("a")
        known.unpublish("a")
        self.assertFalse(self.passes.is_public(known, "a"))

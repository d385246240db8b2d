"""The upstream is off: what is cached is pulled, by those who may."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import base64

import jwt
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.catalog.memory import MemoryCatalog
from docxy.moments import LEEWAY
from docxy.pull.rights.login import account_of
from docxy.pull.rights.offline_tokens import LIFETIME, PUBLIC_FOR, OfflineTokens
from docxy.settings.model import AuthMode
from tests.fakes import Auth, Fault
from tests.unit.pull.harness import NAME, PUBLIC_URL, REPOSITORY, Mirror, MirrorCase, Seconds, bearer, drain, reactor

PRIVATE = "ann/secret"


class OffCase(MirrorCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.path = self.mktemp()
        self.catalog = self.open_catalog(self.path)
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

    async def restarted(self) -> Mirror:
        """Another process on the same cache."""
        await self.catalog.flushed()
        return self.start(catalog=self.open_catalog(self.path))


class Off(OffCase):
    async def test_none(self) -> None:
        """In none mode the image is pulled wholly, after a restart and a day too."""
        await self.pull(self.mirror)
        await self.upstream.stop()
        self.seconds.advance(24 * 3600)
        await self.pull(self.mirror)
        await self.pull(await self.restarted())

    async def test_not_cached(self) -> None:
        """What is not cached is an error that says who is down."""
        await self.upstream.stop()
        answer = await self.mirror.manifest("latest")
        self.assertEqual((answer.status, answer.code), (502, "UNAVAILABLE"))


class TransparentOff(OffCase):
    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts={"ann": "pw"}, private={PRIVATE})
        self.upstream.add_image(PRIVATE)

    async def anonymous(self) -> str:
        return str((await self.mirror.token()).json["token"])

    async def test_verified_lately(self) -> None:
        """A token that the upstream lately accepted goes on; one it never saw does not."""
        token = await self.anonymous()
        await self.pull(self.mirror, token)
        await self.upstream.stop()
        self.seconds.advance(600)
        await self.pull(self.mirror, token)
        await self.pull(await self.restarted(), token)
        self.assertEqual((await self.mirror.manifest("latest", "another")).status, 502)
        self.seconds.advance(3600)
        self.assertEqual((await self.mirror.manifest("latest", token)).status, 502)

    async def passed(self, mirror: Mirror) -> str:
        """What an anonymous client does: ping, token."""
        ping = await mirror.ask("/v2/")
        self.assertEqual(ping.status, 401)
        self.assertIn(f'realm="{PUBLIC_URL}/auth/token"', ping.header("WWW-Authenticate") or "")
        answer = await mirror.token()
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json["token"], answer.json["access_token"])
        self.assertGreaterEqual(answer.json["expires_in"], 60)
        return str(answer.json["token"])

    async def test_anonymous(self) -> None:
        """An anonymous client gets an offline token, after a restart too, and the image with it, wholly."""
        await self.pull(self.mirror, await self.anonymous())
        await self.mirror.ask("/v2/")
        await self.upstream.stop()
        self.seconds.advance(3600)
        mirror = await self.restarted()
        given = await self.passed(mirror)
        self.assertEqual((await mirror.ask("/v2/", bearer(given))).status, 200)
        await self.pull(mirror, given)

    async def test_without_ping(self) -> None:
        """Who asks for an image at once, without a ping, is challenged too, and goes on with the pass."""
        await self.pull(self.mirror, await self.anonymous())
        await self.mirror.ask("/v2/")
        await self.upstream.stop()
        self.seconds.advance(3600)
        layer = self.upstream.layers(REPOSITORY, (await self.index())[0])[0]
        for path in ("manifests/latest", f"blobs/{layer}", "tags/list", f"referrers/{layer}"):
            for method in ("GET", "HEAD") if path[0] in "mb" else ("GET",):
                answer = await self.mirror.ask(f"/v2/{REPOSITORY}/{path}", method=method)
                self.assertEqual(answer.status, 401, path)
                self.assertIn(f'realm="{PUBLIC_URL}/auth/token"', answer.header("WWW-Authenticate") or "")
        await self.pull(self.mirror, str((await self.mirror.token()).json["token"]))

    async def test_reach(self) -> None:
        """An offline token reaches only what anonymous clients were lately let read, and what is asked for."""
        await self.pull(self.mirror, await self.anonymous())
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
        """An offline token never goes upstream, though the registry is up: good, expired, forged, for any request."""
        await self.pull(self.mirror, await self.anonymous())
        self.upstream.on("token", Fault(status=503), times=None)
        given = str((await self.mirror.token()).json["token"])
        claims = jwt.decode(given, options={"verify_signature": False})
        forged = jwt.encode({**claims, "repositories": [PRIVATE]}, "x" * 64, algorithm="HS256")
        other = OfflineTokens(
            lambda: (self.catalog.secret.derive("offline tokens"),),
            "other.test",
            self.catalog.upstream("other.test").verdicts,
            self.seconds,
        ).issue([REPOSITORY])
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
        self.seconds.advance(LIFETIME + LEEWAY)
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
        """Who comes with a password gets no offline token, but what the token service says."""
        await self.pull(self.mirror, await self.anonymous())
        await self.upstream.stop()
        path = f"/auth/token?scope=repository:{REPOSITORY}:pull"
        self.assertEqual((await self.mirror.ask(path, {"Authorization": "Basic YW5uOnB3"})).status, 502)

    async def test_refused_is_no_failure(self) -> None:
        """A token service that refuses is not down."""
        await self.pull(self.mirror, await self.anonymous())
        self.upstream.auth.refuses = 403
        self.upstream.auth.private.add(REPOSITORY)
        self.assertEqual((await self.mirror.token()).status, 403)

    async def test_made_private(self) -> None:
        """A repository that anonymous clients are refused now is out of an offline token's reach."""
        token = await self.anonymous()
        await self.pull(self.mirror, token)
        self.upstream.auth.private.add(REPOSITORY)
        self.seconds.advance(70)
        self.assertEqual((await self.mirror.manifest("latest", token)).status, 401)
        await self.upstream.stop()
        self.assertEqual((await self.mirror.token()).status, 502)


class RegistryDown(OffCase):
    """The registry is off, its token service is not: each client comes with a token that no verdict knows."""

    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts={"ann": "pw", "eve": "pw2"}, private={PRIVATE})
        self.upstream.add_image(PRIVATE)

    async def token(self, repository: str = REPOSITORY, user: str = "") -> str:
        """A fresh one, through the mirror."""
        headers: dict[str, str | list[str]] = {}
        if user:
            pair = base64.b64encode(f"{user}:{self.upstream.auth.accounts[user]}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        answer = await self.mirror.ask(f"/auth/token?scope=repository:{repository}:pull", headers)
        self.assertEqual(answer.status, 200)
        return str(answer.json["token"])

    def registry_off(self) -> None:
        for kind in ("ping", "manifest", "blob", "tags"):
            self.upstream.on(kind, Fault(status=503), times=None)

    async def test_anonymous(self) -> None:
        """Fresh anonymous tokens read what anonymous clients read within the hour, a stale tag and blobs too."""
        await self.pull(self.mirror, await self.token())
        self.registry_off()
        for _ in range(2):
            self.seconds.advance(1700)
            token = await self.token()
            self.assertEqual((await self.mirror.ask("/v2/", bearer(token))).status, 200)
            await self.pull(self.mirror, token)
        self.seconds.advance(300)
        self.assertEqual((await self.mirror.manifest("latest", await self.token())).status, 503)

    async def test_account(self) -> None:
        """An account's fresh tokens reach what its older ones reached, and nobody else's do."""
        ann = await self.token(PRIVATE, "ann")
        self.assertEqual((await self.mirror.manifest("latest", ann, PRIVATE)).status, 200)
        self.registry_off()
        self.seconds.advance(70)
        ann = await self.token(PRIVATE, "ann")
        self.assertEqual((await self.mirror.manifest("latest", ann, PRIVATE)).status, 200)
        for other in (await self.token(PRIVATE, "eve"), await self.token(PRIVATE), "made-up", None):
            for method in ("GET", "HEAD"):
                status = (await self.mirror.manifest("latest", other, PRIVATE, method)).status
                self.assertEqual(status, 401 if other is None else 503)

    async def test_scope(self) -> None:
        """A token reaches only the repositories that it was asked for."""
        ann = await self.token(PRIVATE, "ann")
        self.assertEqual((await self.mirror.manifest("latest", ann, PRIVATE)).status, 200)
        self.registry_off()
        elsewhere = await self.token(REPOSITORY, "ann")
        self.assertEqual((await self.mirror.manifest("latest", elsewhere, PRIVATE)).status, 503)

    async def test_refused_since(self) -> None:
        """A refusal of one of an account's tokens ends what its late verdicts allow."""
        ann = await self.token(PRIVATE, "ann")
        self.assertEqual((await self.mirror.manifest("latest", ann, PRIVATE)).status, 200)
        rule = self.upstream.on("manifest", Fault(status=403), times=None)
        self.seconds.advance(70)
        self.assertEqual((await self.mirror.manifest("latest", ann, PRIVATE)).status, 403)
        rule.cancel()
        self.registry_off()
        self.assertEqual((await self.mirror.manifest("latest", await self.token(PRIVATE, "ann"), PRIVATE)).status, 503)

    async def test_refused_elsewhere(self) -> None:
        """A refused token that was asked for another repository takes nothing from anonymous clients."""
        await self.pull(self.mirror, await self.token())
        elsewhere = await self.token("some/thing")
        rule = self.upstream.on("manifest", Fault(status=403), times=None)
        self.assertEqual((await self.mirror.manifest("latest", elsewhere)).status, 403)
        rule.cancel()
        self.registry_off()
        await self.pull(self.mirror, await self.token())

    async def test_upstream_asked(self) -> None:
        """While the registry answers, a fresh token is asked about however lately its owner was let in."""
        await self.pull(self.mirror, await self.token())
        layer = self.upstream.layers(REPOSITORY, (await self.index())[0])[0]
        for path in ("manifests/latest", f"blobs/{layer}"):
            token = await self.token()
            rule = self.upstream.on("manifest", Fault(status=403), times=None)
            self.assertEqual((await self.mirror.ask(f"/v2/{REPOSITORY}/{path}", bearer(token))).status, 403)
            rule.cancel()

    async def index(self) -> list[str]:
        manifests = self.upstream.repositories[REPOSITORY].manifests.values()
        return [str(each.digest) for each in manifests if b'"layers"' in each.body]


class Owners(SynchronousTestCase):
    def test_keys(self) -> None:
        """An account has one key by GET and by form; another password, no password and no account have others."""
        basic = "Basic " + base64.b64encode("ann:pä:ss".encode()).decode()
        form = [("grant_type", "password"), ("username", "ann"), ("password", "pä:ss")]
        self.assertEqual(account_of([], basic), account_of(form, None))
        keys = {
            account_of(form, None),
            account_of([*form[:2], ("password", "x")], None),
            account_of([*form[:2], ("password", "")], None),
            account_of([("grant_type", "refresh_token"), ("refresh_token", "r")], None),
            account_of([], None),
        }
        self.assertEqual(len(keys), 5)
        self.assertEqual(account_of([("scope", "repository:a:pull"), ("service", "s")], None), None)


class OfflineTokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.seconds = Seconds()
        self.catalog = MemoryCatalog(Clock(), self.seconds)
        self.tokens = self.of(NAME)

    def of(self, upstream: str) -> OfflineTokens:
        """The offline tokens of an upstream."""
        return OfflineTokens(lambda: (b"k" * 32,), upstream, self.catalog.upstream(upstream).verdicts, self.seconds)

    def is_public(self, upstream: str, repository: str) -> bool:
        return bool(self.successResultOf(Deferred.fromCoroutine(self.of(upstream).is_public(repository))))

    def test_read(self) -> None:
        """An offline token is read until it ends; another's Authorization is none of ours."""
        given = f"Bearer {self.tokens.issue(['b', 'a'])}"
        self.assertEqual(self.tokens.read(given), {"a", "b"})
        self.assertEqual(self.of(NAME).read(given), {"a", "b"})
        self.seconds.advance(LIFETIME + LEEWAY + 1)
        self.assertEqual(self.tokens.read(given), frozenset())
        other = jwt.encode({"iss": "auth.docker.io"}, "k" * 32, algorithm="HS256")
        for authorization in (None, "", "Bearer", "Bearer x", "Bearer a.b.c", "Basic YTpi", f"Bearer {other}"):
            self.assertIsNone(self.tokens.read(authorization), authorization)

    def test_forged(self) -> None:
        """An offline token of another upstream, another key, no algorithm, no end or odd claims reaches nothing."""
        now = int(self.seconds())
        good = {"iss": "docxy", "aud": NAME, "exp": now + 60, "repositories": ["a"]}
        key = b"k" * 32
        self.assertEqual(self.tokens.read(f"Bearer {jwt.encode(good, key, 'HS256')}"), {"a"})
        for token in (
            self.of("other.test").issue(["a"]),
            jwt.encode(good, "x" * 64, "HS256"),
            jwt.encode(good, "", "none"),
            jwt.encode(good, key, "HS512"),
            jwt.encode({name: value for name, value in good.items() if name != "exp"}, key, "HS256"),
            jwt.encode({name: value for name, value in good.items() if name != "aud"}, key, "HS256"),
            jwt.encode({**good, "repositories": 5}, key, "HS256"),
            jwt.encode({**good, "exp": now - LEEWAY - 1}, key, "HS256"),
        ):
            self.assertEqual(self.tokens.read(f"Bearer {token}"), frozenset(), token)

    def test_keys(self) -> None:
        """Where there are two keys the first signs, and both are read."""
        known = self.catalog.upstream(NAME).verdicts
        old, new = b"o" * 32, b"n" * 32
        by_old, by_both = (
            OfflineTokens(lambda keys=keys: keys, NAME, known, self.seconds) for keys in ((old,), (new, old))
        )
        self.assertEqual(by_both.read(f"Bearer {by_old.issue(['a'])}"), {"a"})
        self.assertEqual(by_old.read(f"Bearer {by_both.issue(['a'])}"), frozenset())

    def test_public(self) -> None:
        """A repository is public for a while after an anonymous client was let in, until one is refused."""
        known = self.catalog.upstream(NAME).verdicts
        self.assertFalse(self.is_public(NAME, "a"))
        known.publish("a")
        self.assertTrue(self.is_public(NAME, "a"))
        self.assertFalse(self.is_public("other.test", "a"))
        self.seconds.advance(PUBLIC_FOR)
        self.assertFalse(self.is_public(NAME, "a"))
        known.publish("a")
        known.unpublish("a")
        self.assertFalse(self.is_public(NAME, "a"))

"""docxy's own tokens: the whole daemon in `none` mode."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from docxy.settings.model import Credential, Upstream
from tests.fakes import Auth, Cdn, Fault
from tests.harness.mirror import BLOB, NAME
from tests.unit.web.login import PASSWORD, LoginCase, basic


class OwnTests(LoginCase):
    """`none` mode: docxy fetches tokens."""

    async def test_client_is_never_asked(self) -> None:
        """No challenge on any path; a token request gets an empty token, and no upstream hears of it."""
        for path in ("/v2/", self.manifest_path, self.blob_path, f"/v2/{NAME}/tags/list"):
            answer = await self.ask(path)
            self.assertEqual((answer.status, answer.header("WWW-Authenticate")), (200, None))
        self.upstream.requests.clear()
        for answer in (
            await self.token("service=x&scope=repository:a/b:pull", basic("ann", PASSWORD)),
            await self.post({"grant_type": "password", "username": "ann", "password": PASSWORD}),
        ):
            self.assertEqual((answer.status, answer.json["token"], answer.json["access_token"]), (200, "", ""))
            self.assertGreaterEqual(answer.json["expires_in"], 60)
        self.assertEqual(self.upstream.requests, [])

    async def test_authorization_is_ignored(self) -> None:
        """A client's Authorization, as Docker's Hub credentials, is neither looked at nor sent anywhere."""
        for headers in (basic("ann", PASSWORD), {"Authorization": "Bearer x"}, {"Authorization": "\t?"}):
            self.assertEqual((await self.ask("/v2/", headers)).status, 200)
            self.assertEqual((await self.ask(self.manifest_path, headers)).status, 200)
            answer = await self.ask("/v2/ann/app/manifests/latest", headers)
            self.assertEqual((answer.status, answer.code), (404, "MANIFEST_UNKNOWN"))
        sent = [each.headers.get("authorization", "") for each in self.upstream.requests]
        self.assertTrue(all(value == "" or value.startswith("Bearer token-") for value in sent), sent)

    async def test_one_token_request(self) -> None:
        """Many requests at once for one repository cost one token request; later ones none."""
        rule = self.upstream.on("token", Fault(stall_headers=True))
        asked = [Deferred.fromCoroutine(self.ask(self.manifest_path)) for _ in range(20)]
        await self.upstream.received("manifest", count=20)
        await rule.struck()
        rule.release()
        self.assertEqual({answer.status for answer in await gatherResults(asked)}, {200})
        await self.ask(self.blob_path)
        self.assertEqual(self.upstream.count("token"), 1)

    async def test_failed_token_request_is_not_kept(self) -> None:
        """A token request that failed fails who waited for it, and the next request makes another."""
        self.upstream.on("token", Fault(status=500), times=2)
        self.assertEqual((await self.ask(self.manifest_path)).status, 502)
        self.assertEqual((await self.ask(self.manifest_path)).status, 200)

    async def test_refused_token(self) -> None:
        """A kept token that is refused, with 401, 400 or a realm that leads nowhere, is replaced at once."""
        for name, value in (("expired_status", 401), ("expired_status", 400), ("expired_realm", "http://0.0.0.0:1/x")):
            self.assertEqual((await self.ask(self.manifest_path)).status, 200)
            setattr(self.upstream.auth, name, value)
            self.upstream.auth.revoke()
            self.assertEqual((await self.ask(self.manifest_path)).status, 200, (name, value))
            self.assertEqual((await self.ask(self.blob_path)).body, BLOB)

    async def test_dialects(self) -> None:
        """Challenges without service or scope, among others, on repositories only; tokens spelled and dated any way."""
        for changed in (
            {"service": None},
            {"scope": False},
            {"service": None, "scope": False},
            {"also": 'Basic realm="x, y", Negotiate'},
            {"also": "Negotiate dG9rZW42OA=="},
            {"ping_open": True},
            {"realm": "port"},
            {"token_fields": ("access_token",)},
            {"expires_in": None},
            {"expires_in": 0},
        ):
            auth = Auth("bearer", **changed)
            self.upstream.auth = auth
            for path in (self.manifest_path, self.blob_path):
                self.assertEqual((await self.ask(path)).status, 200, changed)
            for request in self.upstream.select("token"):
                self.assertEqual(request.query["scope"], [f"repository:{NAME}:pull"])
            self.upstream.requests.clear()

    async def test_refused(self) -> None:
        """What the token service refuses (GHCR), or grants a token without, is a 404 with its code to the client."""
        for auth in (
            Auth("bearer", private={"ann/app"}, refuses=401),
            Auth("bearer", private={"ann/app"}, refuses=403),
            Auth("bearer", private={"ann/app"}, denied_status=401),
            Auth("bearer", private={"ann/app"}, denied_status=404),
        ):
            self.upstream.auth = auth
            await self.assert_error("/v2/ann/app/manifests/latest", 404, "MANIFEST_UNKNOWN")
            await self.assert_error("/v2/ann/app/blobs/sha256:" + "0" * 64, 404, "BLOB_UNKNOWN")
            await self.assert_error("/v2/ann/app/tags/list", 404, "NAME_UNKNOWN")

    async def test_basic_upstream(self) -> None:
        """An upstream that wants Basic, which a stranger has not, has nothing here: 404, and no challenge."""
        self.upstream.auth.scheme = "basic"
        answer = await self.assert_error(self.manifest_path, 404, "MANIFEST_UNKNOWN")
        self.assertIsNone(answer.header("WWW-Authenticate"))

    async def test_foreign_realm(self) -> None:
        """A token is not asked for at a host that nobody vouches for."""
        self.upstream.auth.realm = "foreign"
        await self.assert_error(self.manifest_path, 502, "UNAVAILABLE")
        self.assertEqual(self.upstream.count("token"), 0)

    async def test_own_token_does_not_cross_origins(self) -> None:
        """docxy's own token does not go to the CDN either, nor to anything behind it."""
        self.upstream.cdn = Cdn(hops=3, kinds=frozenset({"blob", "manifest"}))
        for path in (self.manifest_path, self.blob_path):
            self.assertEqual((await self.ask(path)).status, 200)
        self.assertTrue(all("authorization" not in each.headers for each in self.upstream.select("cdn")))

    async def test_no_secrets_in_the_log(self) -> None:
        """docxy's tokens are in no event that is logged."""
        await self.ask(self.manifest_path, basic("ann", PASSWORD))
        self.upstream.on("token", Fault(body=b'{"token": ["sesame"]}'))
        self.upstream.auth.revoke()
        await self.ask(self.manifest_path)
        for secret in ("token-1", "sesame", PASSWORD, basic("ann", PASSWORD)["Authorization"]):
            self.assertNotIn(secret, self.logged.text)


class AccountTests(LoginCase):
    """`none` mode with an account of docxy's own."""

    def make_upstream(self) -> Upstream:
        return evolve(super().make_upstream(), credentials=(Credential("ann", PASSWORD),))

    async def test_account(self) -> None:
        """docxy reads what its account may read, by Bearer and by Basic; the password goes to the realm alone."""
        self.assertEqual((await self.ask("/v2/ann/app/manifests/latest")).status, 200)
        expected = basic("ann", PASSWORD)["Authorization"]
        self.assertEqual(self.sent("token").headers["authorization"], expected)
        self.assertTrue(all(each.headers.get("authorization") != expected for each in self.upstream.select("manifest")))
        self.upstream.auth.scheme = "basic"
        self.assertEqual((await self.ask("/v2/ann/app/manifests/latest")).status, 200)
        self.assertNotIn(PASSWORD, self.logged.text)

    async def test_basic_does_not_cross_origins(self) -> None:
        """The account's Basic does not follow a redirect to another origin."""
        self.upstream.auth.scheme = "basic"
        self.upstream.cdn = Cdn()
        self.assertEqual((await self.ask(self.blob_path)).body, BLOB)
        self.assertNotIn("authorization", self.sent("cdn").headers)

    async def test_vouched_realm_is_not_told(self) -> None:
        """A foreign realm that nobody vouches for hears nothing of the account."""
        self.upstream.auth.realm = "foreign"
        self.assertEqual((await self.ask("/v2/ann/app/manifests/latest")).status, 502)
        self.assertEqual(self.upstream.count("token"), 0)

"""Clients' logins and tokens through the whole daemon, in transparent mode."""

from __future__ import annotations

from urllib.parse import urlencode

from attrs import evolve

from docxy.settings.model import AuthMode, Config, Upstream
from tests.fakes import Cdn, Fault
from tests.harness.mirror import BLOB, NAME, PUBLIC_URL
from tests.unit.web.login import FORM, PASSWORD, LoginCase, basic, bearer


class TransparentTests(LoginCase):
    auth = AuthMode.TRANSPARENT

    async def test_challenge(self) -> None:
        """The upstream's challenge comes down with our realm and its service, scope and error, ping and all."""
        answer = await self.ask("/v2/")
        expected = f'Bearer realm="{PUBLIC_URL}/auth/token",service="fake-registry"'
        self.assertEqual((answer.status, answer.header("WWW-Authenticate")), (401, expected))
        self.assertEqual(answer.code, "UNAUTHORIZED")
        expected += f',scope="repository:{NAME}:pull"'
        for path in (self.manifest_path, self.blob_path, f"/v2/{NAME}/tags/list"):
            answer = await self.ask(path)
            self.assertEqual((answer.status, answer.header("WWW-Authenticate")), (401, expected), path)
        answer = await self.ask(self.blob_path, {"Authorization": "Bearer old"})
        self.assertIn('error="invalid_token"', answer.header("WWW-Authenticate") or "")

    async def test_realm_is_not_from_the_host(self) -> None:
        """Neither Host nor forwarding headers get into the realm (CVE-2025-63761)."""
        headers = {"Host": "evil.test", "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "gopher"}
        for path in ("/v2/", self.manifest_path):
            answer = await self.ask(path, headers)
            self.assertNotIn("evil", repr(answer))
            self.assertIn(f'realm="{PUBLIC_URL}/auth/token"', answer.header("WWW-Authenticate") or "")

    async def test_ping_without_challenge_upstream(self) -> None:
        """Where the upstream lets strangers in, so do we, and a token request gets an empty token."""
        self.upstream.auth.scheme = "none"
        self.assertEqual((await self.ask("/v2/")).status, 200)
        answer = await self.token(f"scope=repository:{NAME}:pull")
        self.assertEqual((answer.status, answer.json["token"]), (200, ""))

    async def test_anonymous_pull(self) -> None:
        """A stranger's token lets it read, docxy asks for none in its name, and the body is told twice."""
        answer = await self.token(f"service=fake-registry&scope=repository:{NAME}:pull")
        self.assertEqual((answer.status, answer.header("Content-Type")), (200, "application/json"))
        self.assertEqual(answer.json["token"], answer.json["access_token"])
        self.assertEqual(answer.json["expires_in"], 300)
        self.assertRegex(answer.json["issued_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertEqual((await self.ask(self.manifest_path, bearer(answer))).body, self.manifest.body)
        self.assertEqual((await self.ask(self.blob_path, bearer(answer))).body, BLOB)
        self.assertEqual((await self.ask("/v2/", bearer(answer))).status, 200)
        self.assertEqual(self.upstream.count("token"), 1)

    async def test_bad_token_at_the_ping(self) -> None:
        """`docker login` ends with a ping that carries the token: one that is no good is refused."""
        self.assertEqual((await self.ask("/v2/", {"Authorization": "Bearer forged"})).status, 401)

    async def test_login(self) -> None:
        """Basic credentials are relayed as they are, with account, client and offline token; the grant comes back."""
        query = "account=ann&client_id=docker&offline_token=true&service=fake-registry&scope=repository:ann/app:pull"
        answer = await self.token(query, basic("ann", PASSWORD))
        self.assertEqual((answer.status, answer.json["refresh_token"]), (200, "refresh-2"))
        self.assertEqual(self.sent("token").raw_query, query.replace(":", "%3A").replace("/", "%2F"))
        self.assertEqual((await self.ask("/v2/ann/app/manifests/latest", bearer(answer))).status, 200)
        answer = await self.token("scope=repository:ann/app:pull")
        self.assertEqual((await self.ask("/v2/ann/app/manifests/latest", bearer(answer))).status, 401)

    async def test_wrong_password(self) -> None:
        """The token service's refusal of a password is passed on as 401."""
        answer = await self.token("service=fake-registry", basic("ann", "wrong"))
        self.assertEqual((answer.status, answer.code), (401, "UNAUTHORIZED"))
        answer = await self.post({"grant_type": "password", "username": "ann", "password": "wrong"})
        self.assertEqual((answer.status, answer.code), (401, "UNAUTHORIZED"))

    async def test_refused_scope(self) -> None:
        """A token service that refuses with 401 or 403 (GHCR) is passed on, no 5xx is made of it."""
        for status in (401, 403):
            self.upstream.auth.refuses = status
            answer = await self.token("scope=repository:ann/app:pull")
            self.assertEqual(answer.status, status)

    async def test_post(self) -> None:
        """OAuth2's POST is relayed: password and refresh token, several scopes in one parameter."""
        form = {
            "grant_type": "password",
            "username": "ann",
            "password": PASSWORD,
            "client_id": "containerd-client",
            "access_type": "offline",
            "service": "fake-registry",
            "scope": f"repository:ann/app:pull repository:{NAME}:pull",
        }
        answer = await self.post(form)
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.sent("token").body, urlencode(form).encode())
        self.assertEqual(self.sent("token").raw_query, "")
        refresh = {"grant_type": "refresh_token", "refresh_token": answer.json["refresh_token"]}
        again = await self.post({**refresh, "scope": "repository:ann/app:pull"})
        for granted in (answer, again):
            self.assertEqual((await self.ask("/v2/ann/app/manifests/latest", bearer(granted))).status, 200)

    async def test_post_not_supported(self) -> None:
        """Where the token service has no POST, the client is told by a status that makes it use GET."""
        for fault, status in (
            (None, 405),
            (Fault(status=404), 404),
            (Fault(status=400), 400),
            (Fault(status=401), 401),
        ):
            if fault is None:
                self.upstream.auth.post = False
            else:
                self.upstream.on("token", Fault(status=status))
            answer = await self.post({"grant_type": "password", "username": "ann", "password": PASSWORD})
            self.assertEqual(answer.status, status)

    async def test_posted_otherwise(self) -> None:
        """A POST that is no form is 400; one that is too large for a form is refused and kept nowhere."""
        for headers, body, status in (
            ({"Content-Type": "application/json"}, b"{}", 400),
            ({}, b"a=b", 400),
            (FORM, b"scope=" + b"x" * (1 << 20), 413),
            (FORM, b"&".join(b"a=%d" % n for n in range(1000)), 400),
            (FORM, b"a=\xff\xfe", 400),
        ):
            answer = await self.ask("/auth/token", headers, "POST", body)
            self.assertEqual(answer.status, status, body[:20])
            self.assertIn("errors", answer.json)
        self.assertEqual(self.upstream.count("token"), 0)

    async def test_methods(self) -> None:
        """Other methods are 405 with what is allowed."""
        for method in ("PUT", "DELETE"):
            answer = await self.ask("/auth/token", method=method)
            self.assertEqual((answer.status, answer.header("Allow")), (405, "GET, HEAD, POST"))

    async def test_scopes(self) -> None:
        """Scopes are repeated, unknown resources pass, malformed names and other upstreams' are left out."""
        scopes = [
            f"repository:{NAME}:pull",
            "repository:fake.test/x/y:pull,push",
            "registry:catalog:*",
            "repository(plugin):a/b:pull",
            "repository:ghcr.io:443/UPPER:pull",
            "repository:../x:pull",
            "nonsense",
        ]
        answer = await self.token(urlencode([("scope", scope) for scope in scopes]))
        self.assertEqual(answer.status, 200)
        expected = [scopes[0], "repository:x/y:pull,push", *scopes[2:4], "nonsense"]
        self.assertEqual(self.sent("token").query["scope"], expected)

    async def test_parameters(self) -> None:
        """Only parameters of the token specification are relayed; the service is added where it is missing."""
        await self.token("account=ann&realm=http://evil.test&redirect_uri=x&ns=docker.io&X=1")
        self.assertEqual(self.sent("token").query, {"service": ["fake-registry"], "account": ["ann"]})

    async def test_service_answers(self) -> None:
        """`access_token` alone, a missing or short lifetime: clients get both spellings and at least 60 s."""
        for fields, lifetime, told in ((("access_token",), None, 60), (("token",), 5, 60), (("token",), 3600, 3600)):
            self.upstream.auth.token_fields = fields
            self.upstream.auth.expires_in = lifetime
            answer = (await self.token(f"scope=repository:{NAME}:pull")).json
            self.assertEqual((answer["token"], answer["expires_in"]), (answer["access_token"], told))
            self.assertTrue(answer["token"])

    async def test_service_failing(self) -> None:
        """A token service that fails is told with its name, 429 with Retry-After; its nonsense is a 502."""
        for fault, status in (
            (Fault(status=500), 502),
            (Fault(status=503), 503),
            (Fault(drop=True), 502),
            (Fault.too_many_requests("9"), 429),
            (Fault.html_page(), 502),
            (Fault(body=b"[]"), 502),
            (Fault(body=b"{}"), 502),
            (Fault(body=b'{"token": 1}'), 502),
            (Fault(body=b"[" * 100_000), 502),
            (Fault(body=b'{"token": "' + b"x" * (1 << 20) + b'"}'), 502),
        ):
            # A connection that was kept and then dropped is tried again with a new one.
            rule = self.upstream.on("token", fault, times=None)
            answer = await self.token(f"scope=repository:{NAME}:pull")
            rule.cancel()
            self.assertEqual(answer.status, status, fault)
            if status == 429:
                self.assertEqual(answer.header("Retry-After"), "9")
            else:
                self.assertIn(self.upstream.url, answer.json["errors"][0]["message"])

    async def test_odd_lifetimes(self) -> None:
        """Whatever a token service says of a token's life, the client gets a number of seconds."""
        for lifetime in ('"300"', "-1", "null", "true", "1e400", "NaN", "[]", "12.7", "1e300"):
            self.upstream.on("token", Fault(body=b'{"token": "t", "expires_in": %s}' % lifetime.encode()))
            answer = await self.token(f"scope=repository:{NAME}:pull")
            self.assertEqual(answer.status, 200, lifetime)
            self.assertGreaterEqual(answer.json["expires_in"], 60)
            self.assertIsInstance(answer.json["expires_in"], int)

    async def test_foreign_realm(self) -> None:
        """A realm on another host than the operator vouches for is refused, and nothing at all is sent there."""
        self.upstream.auth.realm = "foreign"
        answer = await self.token(f"scope=repository:{NAME}:pull", basic("ann", PASSWORD))
        self.assertEqual((answer.status, answer.code), (502, "UNAVAILABLE"))
        self.assertEqual(self.upstream.count("token"), 0)

    async def test_realm_on_another_port(self) -> None:
        """A realm on another port of the upstream's host is fine."""
        self.upstream.auth.realm = "port"
        answer = await self.token(f"scope=repository:{NAME}:pull", basic("ann", PASSWORD))
        self.assertEqual(answer.status, 200)

    async def test_redirected_token_request(self) -> None:
        """A token request follows a redirect within the upstream's host, unless it was posted."""
        for status in (301, 302, 303, 307, 308):
            location = f"{self.upstream.origin('auth', 'localhost')}/token"
            self.upstream.on("token", Fault(status=status, headers={"Location": location}))
            answer = await self.token(f"scope=repository:{NAME}:pull", basic("ann", PASSWORD))
            self.assertEqual(answer.status, 502)
            location = f"{self.upstream.origin('auth')}/token"
            self.upstream.on("token", Fault(status=status, headers={"Location": location}))
            answer = await self.post({"grant_type": "password", "username": "ann", "password": "wrong"})
        self.assertTrue(all(each.origin == "registry" for each in self.upstream.select("token")))

    async def test_authorization_does_not_cross_origins(self) -> None:
        """The client's token goes to the registry and not to the CDN that it redirects to."""
        self.upstream.cdn = Cdn(hops=2)
        granted = await self.token(f"scope=repository:{NAME}:pull")
        answer = await self.ask(self.blob_path, bearer(granted))
        self.assertEqual((answer.status, answer.body), (200, BLOB))
        self.assertIn("authorization", self.sent("blob").headers)
        self.assertTrue(all("authorization" not in each.headers for each in self.upstream.select("cdn")))

    async def test_basic_upstream(self) -> None:
        """An upstream that asks for Basic gets the client's, and the client sees its challenge."""
        self.upstream.auth.scheme = "basic"
        answer = await self.ask(self.manifest_path)
        self.assertEqual((answer.status, answer.header("WWW-Authenticate")), (401, 'Basic realm="fake"'))
        self.assertEqual((await self.ask(self.manifest_path, basic("ann", PASSWORD))).status, 200)

    async def test_no_secrets_in_the_log(self) -> None:
        """Neither passwords, tokens nor queries are in any field of any event that is logged, errors included."""
        self.upstream.cdn = Cdn()
        granted = await self.token(
            f"scope=repository:ann/app:pull%20repository:{NAME}:pull&offline_token=true", basic("ann", PASSWORD)
        )
        await self.ask("/v2/ann/app/manifests/latest?secretquery=1", bearer(granted))
        await self.ask(self.blob_path, bearer(granted))
        await self.post({"grant_type": "password", "username": "ann", "password": "hunter2"})
        await self.token("account=secretaccount", basic("ann", "wrong"))
        await self.post({"grant_type": "refresh_token", "refresh_token": granted.json["refresh_token"]})
        self.upstream.on(None, Fault(drop=True), times=2)
        await self.token("account=secretaccount", basic("ann", PASSWORD))
        await self.ask(self.manifest_path, bearer(granted))
        self.upstream.on("cdn", Fault(cut_after=10))
        await self.cut(self.blob_path, bearer(granted))
        text = self.logged.text
        self.assertIn("/auth/token", text)
        encoded = basic("ann", PASSWORD)["Authorization"].partition(" ")[2]
        for secret in (
            PASSWORD,
            encoded,
            basic("ann", "wrong")["Authorization"].partition(" ")[2],
            granted.json["token"],
            granted.json["refresh_token"],
            "hunter2",
            "secretquery",
            "secretaccount",
            "X-Signature",
        ):
            self.assertNotIn(secret, text)


class LibraryTests(LoginCase):
    auth = AuthMode.TRANSPARENT
    library = True

    async def test_scope(self) -> None:
        """A scope of a single component gets `library/`, as its path does; others keep what they have."""
        for asked, relayed in (
            ("repository:busybox:pull", "repository:library/busybox:pull"),
            ("repository:fake.test/busybox:pull", "repository:library/busybox:pull"),
            ("repository:library/busybox:pull", "repository:library/busybox:pull"),
            ("repository:ann/app:pull", "repository:ann/app:pull"),
        ):
            self.upstream.requests.clear()
            await self.token(urlencode({"scope": asked}))
            self.assertEqual(self.sent("token").query["scope"], [relayed])


class TwoUpstreams(LoginCase):
    auth = AuthMode.TRANSPARENT

    def make_config(self) -> Config:
        config = super().make_config()
        closed = Upstream("closed.test", self.upstream.origin("closed"), private=True)
        return evolve(config, upstreams=(*config.upstreams, closed))

    async def test_scope_leads(self) -> None:
        """A scope with another upstream's prefix leads there and to nobody else."""
        answer = await self.token("scope=repository:closed.test/x:pull", basic("ann", PASSWORD))
        self.assertEqual(answer.status, 502)
        self.assertIn(self.upstream.origin("closed"), answer.json["errors"][0]["message"])
        self.assertEqual(self.upstream.requests, [])

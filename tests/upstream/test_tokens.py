"""Token services: which realms are asked and told, and how long a token is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from publicsuffixlist import PublicSuffixList
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.config import Credential, Timeouts, Upstream
from docxy.errors import Denied, Unauthorized, UpstreamError
from docxy.upstream.challenge import Challenge
from docxy.upstream.fetch import Fetcher
from docxy.upstream.tokens import Access, Realms, Tokens, TokenService, basic, relayed
from tests.upstream.scripted import Answer, Asked, Scripted, ScriptedAgent

REALMS = Realms(cache(PublicSuffixList))
HUB = Upstream("docker.io", "https://registry-1.docker.io")
REALM = "https://auth.docker.io/token"
ACCESS = Access(HUB.url, "repository:a/b:pull", "GET manifests")


class RealmTests(SynchronousTestCase):
    def refused(self, upstream: Upstream, realm: str) -> str:
        return str(self.assertRaises(UpstreamError, REALMS.check, upstream, realm))

    def test_good(self) -> None:
        """The upstream's own host, on any port, and hosts of its registrable domain."""
        for url, realm in (
            (HUB.url, REALM),
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://ghcr.io", "https://GHCR.io:8443/token"),
            ("https://gitlab.example.co.uk", "https://auth.example.co.uk/jwt"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token"),
            ("http://registry:5000", "http://registry/token"),
            ("http://[::1]:5000", "http://[::1]:5001/token"),
            ("http://registry:5000", "https://registry/token"),
        ):
            self.assertEqual(REALMS.check(Upstream("x", url), realm), realm)

    def test_foreign(self) -> None:
        """Any other host is refused: other domains, neighbours under a public suffix, addresses alike."""
        for url, realm in (
            (HUB.url, "https://evil.test/token"),
            (HUB.url, "https://docker.io.evil.test/token"),
            (HUB.url, "https://evildocker.io/token"),
            ("https://a.github.io", "https://b.github.io/token"),
            ("https://a.co.uk", "https://b.co.uk/token"),
            ("http://10.0.0.1", "http://10.0.0.2/token"),
            ("http://10.0.0.1", "http://169.254.169.254/token"),
            ("http://registry", "http://metadata/token"),
            ("http://127.0.0.1", "http://localhost/token"),
        ):
            self.assertIn("another domain", self.refused(Upstream("x", url), realm))

    def test_vouched_for(self) -> None:
        """A host that the operator lists is fine."""
        upstream = Upstream("x", HUB.url, realm_hosts=frozenset({"id.test"}))
        self.assertEqual(REALMS.check(upstream, "https://ID.test/token"), "https://ID.test/token")
        self.refused(upstream, "https://a.id.test/token")

    def test_plain(self) -> None:
        """An https upstream's realm must be https."""
        self.assertIn("plain http", self.refused(HUB, "http://auth.docker.io/token"))

    def test_no_url(self) -> None:
        """What is no http or https URL, or has credentials in it, is refused; its query is not shown."""
        for realm in (
            "",
            "/token",
            "ftp://auth.docker.io/",
            "file:///etc/passwd",
            "https://",
            "https://[::1",
            "https://auth.docker.io:0/",
            "https://auth.docker.io:99999/",
            "https://user@auth.docker.io/",
            "javascript:x",
        ):
            self.assertNotIn("sesame", self.refused(HUB, realm + "?sesame"))

    def test_endpoints(self) -> None:
        """A mirror of the upstream may name a realm of its own, but credentials are not for it."""
        upstream = Upstream("x", HUB.url, endpoints=("https://copy.test",))
        self.assertEqual(REALMS.check(upstream, "https://auth.copy.test/t"), "https://auth.copy.test/t")
        self.assertFalse(REALMS.may_know(upstream, "https://auth.copy.test/t"))
        self.assertTrue(REALMS.may_know(upstream, REALM))


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.granted = 0
        self.fields: dict[str, Any] = {"expires_in": 300}
        self.answers: list[Answer] = []
        self.agent = ScriptedAgent(self.answer)
        self.fetcher = Fetcher(self.agent, self.clock, Timeouts())
        self.service = TokenService(HUB, self.fetcher, REALMS)

    def answer(self, asked: Asked) -> Answer:
        if self.answers:
            return self.answers.pop(0)
        self.granted += 1
        return Scripted(body=json.dumps({"token": f"t{self.granted}", **self.fields}).encode())

    def query(self, asked: Asked) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(asked.url).query)


class ServiceTests(Case):
    def ask(self, parameters: Sequence[tuple[str, str]] = (), realm: str = REALM, **options: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.service.ask(realm, parameters, **options))

    def test_get(self) -> None:
        """A GET has the parameters in its query, behind what the realm has already."""
        parameters = [("service", "a&b"), ("scope", "r:x:pull"), ("scope", "r:y:pull")]
        self.successResultOf(self.ask(parameters, REALM + "?tenant=1", authorization="Basic x"))
        (asked,) = self.agent.asked
        self.assertEqual(self.query(asked), [("tenant", "1"), *parameters])
        self.assertEqual((asked.method, asked.header("Authorization")), ("GET", "Basic x"))
        self.successResultOf(self.ask())
        self.assertEqual(self.agent.asked[1].url, REALM)

    def test_post(self) -> None:
        """A POST has them in its body and nowhere else."""
        self.successResultOf(self.ask([("password", "ä &")], post=True))
        (asked,) = self.agent.asked
        self.assertEqual((asked.method, asked.url, asked.body), ("POST", REALM, b"password=%C3%A4+%26"))
        self.assertEqual(asked.header("Content-Type"), "application/x-www-form-urlencoded")

    def test_foreign_realm(self) -> None:
        """Nothing is sent to a realm that nothing vouches for."""
        self.failureResultOf(self.ask(realm="https://evil.test/token", authorization="Basic x"), UpstreamError)
        self.assertEqual(self.agent.asked, [])

    def test_not_told(self) -> None:
        """A realm that may be asked and not told gets no Authorization, and no form at all."""
        upstream = Upstream("x", HUB.url, endpoints=("https://copy.test",))
        self.service = TokenService(upstream, self.fetcher, REALMS)
        realm = "https://auth.copy.test/t"
        self.successResultOf(self.ask(realm=realm, authorization="Basic x"))
        self.assertIsNone(self.agent.asked[0].header("Authorization"))
        self.failureResultOf(self.ask([("password", "x")], realm=realm, post=True), UpstreamError)
        self.assertEqual(len(self.agent.asked), 1)

    def test_redirect(self) -> None:
        """A redirect is not followed, by its own host neither."""
        self.answers = [Scripted(307, {"Location": "/elsewhere"})]
        self.failureResultOf(self.ask(authorization="Basic x"), UpstreamError)
        self.assertEqual(len(self.agent.asked), 1)

    def test_statuses(self) -> None:
        """Refusals stay refusals; what is the service's own failure is told as that."""
        for status, ours in (
            (400, 400),
            (401, 401),
            (403, 403),
            (404, 404),
            (405, 405),
            (429, 429),
            (500, 502),
            (503, 503),
            (302, 502),
            (201, 502),
        ):
            self.answers = [Scripted(status, {"Retry-After": "7"}, b"sesame")]
            error = self.failureResultOf(self.ask()).value
            self.assertEqual(getattr(error, "status", None), ours)
            self.assertIn("the token service of docker.io", str(error))
            self.assertNotIn("sesame", str(error))
            if status in (429, 503):
                self.assertEqual(error.retry_after, 7.0)

    def test_empty_token(self) -> None:
        """`access_token` counts where `token` is empty or missing; without either there is no token."""
        for document, token in (
            ({"token": "", "access_token": "a"}, "a"),
            ({"access_token": "a"}, "a"),
            ({"token": "t", "access_token": "a"}, "t"),
        ):
            self.answers = [Scripted(body=json.dumps(document).encode())]
            answer = self.successResultOf(self.ask())
            self.assertEqual((answer["token"], answer["access_token"], answer["expires_in"]), (token, token, 60))
        for body in (b"{}", b'{"token": null}', b'{"token": 5}', b"[]", b"null", b"x", b"", b"\xff"):
            self.answers = [Scripted(body=body)]
            self.failureResultOf(self.ask(), UpstreamError)


class TokensTests(Case):
    challenge = Challenge("bearer", {"realm": REALM, "service": "s", "scope": "repository:a/b:pull"})

    def setUp(self) -> None:
        super().setUp()
        self.tokens = Tokens(self.service, self.clock)

    def get(self, challenge: Challenge | None = None, access: Access = ACCESS) -> Deferred[str]:
        return Deferred.fromCoroutine(self.tokens.get(challenge or self.challenge, access))

    def test_kept(self) -> None:
        """A token is kept for what it was got for, until shortly before it ends."""
        self.assertIsNone(self.tokens.kept(ACCESS))
        self.assertEqual(self.successResultOf(self.get()), "t1")
        self.clock.advance(289)
        self.assertEqual(self.tokens.kept(ACCESS), "t1")
        self.assertEqual(self.successResultOf(self.get()), "t1")
        self.clock.advance(2)
        self.assertIsNone(self.tokens.kept(ACCESS))
        self.assertEqual(self.successResultOf(self.get()), "t2")

    def test_short_lived(self) -> None:
        """A token of a few seconds is used for half of them."""
        self.fields = {"expires_in": 4}
        self.successResultOf(self.get())
        self.clock.advance(1.9)
        self.assertEqual(self.tokens.kept(ACCESS), "t1")
        self.clock.advance(0.2)
        self.assertIsNone(self.tokens.kept(ACCESS))

    def test_default_lifetime(self) -> None:
        """Where nothing is said, a token is one of 60 s."""
        self.fields = {}
        self.successResultOf(self.get())
        self.clock.advance(49)
        self.assertEqual(self.tokens.kept(ACCESS), "t1")
        self.clock.advance(2)
        self.assertIsNone(self.tokens.kept(ACCESS))

    def test_keys(self) -> None:
        """Realm, service and scope each make another token; a challenge without scope gets that of the access."""
        for changed in ({"realm": REALM + "2"}, {"service": "other"}, {"scope": "repository:c/d:pull"}):
            self.successResultOf(self.get())
            self.successResultOf(self.get(Challenge("bearer", {**self.challenge.parameters, **changed})))
        self.assertEqual(self.granted, 4)
        self.successResultOf(self.get(Challenge("bearer", {"realm": REALM, "service": "s"})))
        self.assertEqual(self.granted, 4)
        self.successResultOf(self.get(Challenge("bearer", {"realm": REALM})))
        self.assertEqual(self.query(self.agent.asked[-1]), [("scope", "repository:a/b:pull")])

    def test_one_in_flight(self) -> None:
        """Those who ask while a request runs wait for it; one who leaves takes nobody along."""
        self.answers = [None]
        asked = [self.get() for _ in range(5)]
        asked[0].cancel()
        self.failureResultOf(asked[0])
        self.assertEqual(len(self.agent.asked), 1)
        self.clock.advance(25)
        for each in asked[1:]:
            self.failureResultOf(each, UpstreamError)
        self.assertEqual(self.successResultOf(self.get()), "t1")

    def test_forget(self) -> None:
        """A refused token is not used again; one that came since is."""
        self.successResultOf(self.get())
        self.tokens.forget(ACCESS, "other")
        self.assertEqual(self.tokens.kept(ACCESS), "t1")
        self.tokens.forget(ACCESS, "t1")
        self.tokens.forget(ACCESS, "t1")
        self.assertIsNone(self.tokens.kept(ACCESS))
        self.assertEqual(self.successResultOf(self.get()), "t2")

    def test_empty_is_not_kept(self) -> None:
        """An empty token is none to keep."""
        self.answers = [Scripted(body=b'{"token": "", "access_token": ""}')]
        self.successResultOf(self.get())
        self.assertIsNone(self.tokens.kept(ACCESS))

    def test_account(self) -> None:
        """With an account, Basic goes along; without, nothing."""
        self.successResultOf(self.get())
        self.assertIsNone(self.agent.asked[-1].header("Authorization"))
        credential = Credential("ann", "pä:ss")
        self.tokens = Tokens(self.service, self.clock, credential)
        self.successResultOf(self.get())
        self.assertEqual(self.agent.asked[-1].header("Authorization"), basic(credential))
        self.assertNotIn("pä", repr(credential))

    def test_refused(self) -> None:
        """A refusal is passed on and not kept."""
        self.answers = [Scripted(401), Scripted(403)]
        self.failureResultOf(self.get(), Unauthorized)
        self.failureResultOf(self.get(), Denied)
        self.assertEqual(self.successResultOf(self.get()), "t1")

    def test_expired_ones_are_dropped(self) -> None:
        """What is over takes no memory for ever."""
        for number in range(50):
            scope = f"repository:x/{number}:pull"
            access = Access(HUB.url, scope, "GET manifests")
            self.successResultOf(self.get(Challenge("bearer", {"realm": REALM, "scope": scope}), access))
            self.clock.advance(100)
        self.assertLess(len(self.tokens._tokens), 5)
        self.assertLess(len(self.tokens._answers), 5)


class RelayedTests(SynchronousTestCase):
    def test_relayed(self) -> None:
        """Clients get both spellings, at least 60 s, a date, and of the rest what the specification names."""
        answer = {"token": "t", "access_token": "t", "expires_in": 5, "refresh_token": "r", "scope": "s", "x": "secret"}
        expected = {"token": "t", "access_token": "t", "expires_in": 60, "issued_at": "now"}
        self.assertEqual(relayed(answer, "now"), {**expected, "refresh_token": "r", "scope": "s"})
        answer = {"token": "t", "access_token": "t", "expires_in": 300, "issued_at": "then", "refresh_token": 5}
        self.assertEqual(relayed(answer, "now"), {**expected, "expires_in": 300, "issued_at": "then"})

"""Token services: which realms are asked and told, and how long a token is used."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from attrs import evolve
from publicsuffixlist import PublicSuffixList
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived

from docxy.errors import Denied, Unauthorized, UpstreamError
from docxy.observe.metrics import NoMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import NoTracer
from docxy.settings.model import Credential, Timeouts, Upstream
from docxy.upstream import tokens
from docxy.upstream.challenge import Challenge
from docxy.upstream.fetch import Fetcher
from docxy.upstream.login import basic
from docxy.upstream.password_file import AccountPassword
from docxy.upstream.question import Destination
from docxy.upstream.realms import Realms
from docxy.upstream.retry import Retry
from docxy.upstream.tokens import OwnTokens, TokenService, relayed
from tests.unit.upstream.scripted import Answer, Asked, Scripted, ScriptedAgent

REALMS = Realms(cache(PublicSuffixList))
HUB = Upstream("docker.io", "https://registry-1.docker.io", realm_hosts=frozenset({"auth.docker.io"}))
REALM = "https://auth.docker.io/token"
BROKE = ResponseNeverReceived([Failure(ConnectionLost())])
ACCESS = Destination(HUB.url, "repository:a/b:pull", "GET manifests")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.granted = 0
        self.fields: dict[str, Any] = {"expires_in": 300}
        self.answers: list[Answer] = []
        self.takes = 0.0
        """Seconds for each answer."""
        self.agent = ScriptedAgent(self.answer)
        self.fetcher = Fetcher(
            self.agent, self.clock, Timeouts(), "docker.io", NoMeter(), Notes(self.clock.seconds), NoTracer(), ()
        )
        self.retry = Retry(self.clock.seconds, 25.0)
        self.service = TokenService(HUB, self.fetcher, REALMS, self.retry)

    def answer(self, asked: Asked) -> Answer:
        self.clock.advance(self.takes)
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
        upstream = evolve(HUB, endpoints=("https://copy.test",))
        self.service = TokenService(upstream, self.fetcher, REALMS, self.retry)
        realm = "https://auth.copy.test/t"
        self.successResultOf(self.ask(realm=realm, authorization="Basic x"))
        self.assertIsNone(self.agent.asked[0].header("Authorization"))
        self.failureResultOf(self.ask([("password", "x")], realm=realm, post=True), UpstreamError)
        self.assertEqual(len(self.agent.asked), 1)

    def test_redirect(self) -> None:
        """A redirect leads where a realm may be, with the credentials only where they may go, and not for ever."""
        self.answers = [Scripted(307, {"Location": "/elsewhere?a=1"})]
        self.successResultOf(self.ask(authorization="Basic x"))
        self.assertEqual(self.agent.asked[1].url, "https://auth.docker.io/elsewhere?a=1")
        self.assertEqual(self.agent.asked[1].header("Authorization"), "Basic x")
        for target in ("https://evil.test/token", "https://other.docker.io/token", "http://auth.docker.io/token"):
            self.agent.asked.clear()
            self.answers = [Scripted(302, {"Location": target})]
            self.failureResultOf(self.ask(authorization="Basic x"), UpstreamError)
            self.assertEqual(len(self.agent.asked), 1, target)
        self.answers = [Scripted(307, {"Location": "/token"}) for _ in range(20)]
        self.failureResultOf(self.ask(), UpstreamError)
        self.answers = [Scripted(307, {"Location": "/elsewhere"})]
        self.failureResultOf(self.ask([("password", "x")], post=True), UpstreamError)

    def test_neighbour_with_credentials(self) -> None:
        """A service on another host of the domain gives strangers tokens; where a login would go there, it fails."""
        self.service = TokenService(Upstream("x", "https://registry.example.com"), self.fetcher, REALMS, self.retry)
        realm = "https://gitlab.example.com/jwt/auth"
        self.successResultOf(self.ask(realm=realm))
        error = self.failureResultOf(self.ask(realm=realm, authorization="Basic x"), UpstreamError)
        self.assertIn("list it in realm_hosts", error.getErrorMessage())
        self.assertEqual(len(self.agent.asked), 1)

    def test_again(self) -> None:
        """A service that stumbles is asked once more, whatever the method; one that says when to come back is not."""
        for post in (False, True):
            for stumbles in (Scripted(500), Scripted(502), Scripted(503), BROKE):
                self.answers = [stumbles]
                self.successResultOf(self.ask(post=post))
                self.answers = [stumbles, stumbles]
                self.failureResultOf(self.ask(post=post), UpstreamError)
                self.assertEqual(self.answers, [])
        self.answers = [Scripted(503, {"Retry-After": "7"})]
        self.failureResultOf(self.ask(), UpstreamError)

    def test_again_in_time(self) -> None:
        """A service that takes long to stumble is not asked again: by then clients have given up."""
        for seconds, asked in ((19.0, 2), (20.0, 1)):
            self.agent.asked.clear()
            self.service = TokenService(HUB, self.fetcher, REALMS, Retry(self.clock.seconds, 20.0))
            self.answers, self.takes = [Scripted(500), Scripted(500)], seconds
            self.failureResultOf(self.ask(), UpstreamError)
            self.assertEqual(len(self.agent.asked), asked)

    def test_created(self) -> None:
        """201 grants as 200 does."""
        self.answers = [Scripted(201, body=b'{"token":"x"}')]
        self.assertEqual(self.successResultOf(self.ask())["token"], "x")
        self.assertEqual((self.service.granted, self.service.refused), (1, 0))

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
            (204, 502),
        ):
            self.answers = [Scripted(status, {"Retry-After": "7"}, b"sesame") for _ in range(2)]
            before = self.service.refused
            error = self.failureResultOf(self.ask()).value
            self.assertEqual(getattr(error, "status", None), ours)
            self.assertIn("the token service of docker.io", str(error))
            self.assertNotIn("sesame", str(error))
            self.answers.clear()
            self.assertGreater(self.service.refused, before)
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
        self.tokens = OwnTokens(self.service, self.clock)

    def get(self, challenge: Challenge | None = None, access: Destination = ACCESS) -> Deferred[str]:
        getting = Deferred.fromCoroutine(self.tokens.get(challenge or self.challenge, access))
        return getting.addCallback(lambda got: got[0])

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
        self.tokens = OwnTokens(self.service, self.clock, AccountPassword(credential))
        self.successResultOf(self.get())
        self.assertEqual(self.agent.asked[-1].header("Authorization"), basic("ann", "pä:ss"))
        self.assertNotIn("pä", repr(credential))

    def test_refused(self) -> None:
        """A refusal is passed on, and the service not asked the same again for a moment."""
        for status, kind in ((401, Unauthorized), (403, Denied)):
            self.answers = [Scripted(status)]
            for _ in range(3):
                self.failureResultOf(self.get(), kind)
            self.clock.advance(11)
        self.assertEqual(len(self.agent.asked), 2)
        self.assertEqual(self.successResultOf(self.get()), "t1")

    def test_refusals_are_bounded(self) -> None:
        """However many scopes are refused."""
        self.patch(tokens, "_MOST_REFUSALS", 20)
        self.tokens = OwnTokens(self.service, self.clock)
        for number in range(30):
            self.answers = [Scripted(401)]
            challenge = Challenge("bearer", {"realm": REALM, "scope": f"repository:x/{number}:pull"})
            self.failureResultOf(self.get(challenge), Unauthorized)
        self.assertEqual(len(self.tokens._refusals), 20)

    def test_new_password(self) -> None:
        """A password whose file has changed is used at once, after a refusal too; a file that is gone is no loss."""
        path = Path(self.mktemp())
        path.write_text("old\n")
        self.tokens = OwnTokens(self.service, self.clock, AccountPassword(Credential("ann", "old", str(path))))
        self.successResultOf(self.get())
        self.clock.advance(1000)
        path.write_text("newer\n")
        self.successResultOf(self.get())
        self.assertEqual(self.agent.asked[-1].header("Authorization"), basic("ann", "newer"))
        path.unlink()
        self.clock.advance(1000)
        self.successResultOf(self.get())
        self.assertEqual(self.agent.asked[-1].header("Authorization"), basic("ann", "newer"))
        self.clock.advance(1000)

        def renewed(asked: Asked) -> Answer:
            path.write_text("newest\n")
            self.agent.script = self.answer
            return Scripted(401)

        self.agent.script = renewed
        self.successResultOf(self.get())
        self.assertEqual(self.agent.asked[-1].header("Authorization"), basic("ann", "newest"))

    def test_reloaded(self) -> None:
        """Told to read the password again, docxy asks at once with the new one, though it was just refused."""
        path = Path(self.mktemp())
        path.write_text("old\n")
        self.tokens = OwnTokens(self.service, self.clock, AccountPassword(Credential("ann", "old", str(path))))
        self.answers = [Scripted(401)]
        self.failureResultOf(self.get(), Unauthorized)
        self.failureResultOf(self.get(), Unauthorized)
        self.assertEqual(len(self.agent.asked), 1)
        before = path.stat()
        path.write_text("new\n")
        # Nothing but the bytes tells it from the old one.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.tokens.reload()
        self.successResultOf(self.get())
        self.assertEqual(self.agent.asked[-1].header("Authorization"), basic("ann", "new"))

    def test_refusal_reloaded(self) -> None:
        """An account that was mended at the registry is tried again at once, too."""
        self.answers = [Scripted(401)]
        self.failureResultOf(self.get(), Unauthorized)
        self.tokens.reload()
        self.assertEqual(self.successResultOf(self.get()), "t1")

    def test_started_again(self) -> None:
        """A worker that starts with the password of days ago has the one that is in the file now."""
        path = Path(self.mktemp())
        path.write_text("new\n")
        for password in ("new", "old"):
            login = self.successResultOf(AccountPassword(Credential("ann", "old", str(path))).login())
            self.assertEqual(login.authorization, basic("ann", password))
            path.unlink(missing_ok=True)

    def test_bounded(self) -> None:
        """However many repositories there are, the tokens of those used last are kept."""
        self.patch(tokens, "_MOST_TOKENS", 40)
        self.tokens = OwnTokens(self.service, self.clock)
        for number in range(50):
            scope = f"repository:x/{number}:pull"
            access = Destination(HUB.url, scope, "GET manifests")
            self.successResultOf(self.get(Challenge("bearer", {"realm": REALM, "scope": scope}), access))
        self.assertIsNotNone(self.tokens.kept(access))
        self.assertEqual((len(self.tokens._tokens), len(self.tokens._answers)), (40, 40))


class RelayedTests(SynchronousTestCase):
    def test_relayed(self) -> None:
        """Clients get both spellings, at least 60 s, a date, and of the rest what the specification names."""
        answer = {"token": "t", "access_token": "t", "expires_in": 5, "refresh_token": "r", "scope": "s", "x": "secret"}
        expected = {"token": "t", "access_token": "t", "expires_in": 60, "issued_at": "now"}
        self.assertEqual(relayed(answer, "now"), {**expected, "refresh_token": "r", "scope": "s"})
        answer = {"token": "t", "access_token": "t", "expires_in": 300, "issued_at": "then", "refresh_token": 5}
        self.assertEqual(relayed(answer, "now"), {**expected, "expires_in": 300, "issued_at": "then"})

"""Which endpoints one question goes to, and how often, as each of them fails."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from random import Random
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from zope.interface import implementer

from docxy.errors import RegistryError, TooManyRequests, UpstreamBroke, UpstreamError
from docxy.names import Digest
from docxy.settings.model import Upstream
from docxy.upstream.authorize import IAuthorizer, Send
from docxy.upstream.endpoints import Endpoints
from docxy.upstream.failover import Failover
from docxy.upstream.question import Destination
from docxy.upstream.realms import Realms
from docxy.upstream.remote import Remote
from docxy.upstream.retry import Retry

FIRST, SECOND = "http://hub.test:1", "http://hub.test:2"
URLS = {"first": FIRST, "second": SECOND}
NAME, DIGEST = "team/app", Digest.of(b"x")
BROKE, WRONG = UpstreamBroke("broke off"), UpstreamError("led nowhere")
LIMITED = TooManyRequests("not asked again for 1 s", headers=(("Retry-After", "1"),))


@define(eq=False)
class Good:
    """A response that is right."""

    status: int = 200
    length: int = 10
    source: str = "http://upstream"
    redirected: bool = False

    def header(self, name: str) -> None:
        return None

    async def drain(self) -> None:
        return


class TokenService(UpstreamError):
    """What the fake authorizer raises before the registry is asked."""


NO_TOKEN = TokenService("the token service failed twice")


@implementer(IAuthorizer)
@define(eq=False)
class Scripted:
    """An authorizer that is challenged by nobody, and a fetcher; each request fails as it is told."""

    clock: Clock
    failures: dict[str, list[RegistryError]] = field(factory=dict)
    """By endpoint, in their order; behind them all is well."""
    asked: list[str] = field(factory=list)
    takes: float = 0.0
    """Seconds that pass with each failure."""

    async def send(self, send: Send, access: Destination, authorization: str | None) -> Any:
        self.asked.append(access.endpoint)
        if isinstance(next(iter(self.failures.get(access.endpoint, [])), None), TooManyRequests | TokenService):
            self.clock.advance(self.takes)
            raise self.failures[access.endpoint].pop(0)
        return await send(None)

    async def request(self, method: str, url: str, headers: Headers) -> Any:
        failures = next((each for endpoint, each in self.failures.items() if url.startswith(endpoint)), [])
        if failures:
            self.clock.advance(self.takes)
            raise failures.pop(0)
        return Good()


class Retries(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.scripted = Scripted(self.clock)
        self.endpoints = Endpoints((FIRST,), self.clock.seconds, Random(1))

    def ask(self, *urls: str, **failures: list[RegistryError]) -> list[str] | RegistryError:
        """Which endpoints are asked until one answers; or the error."""
        self.scripted.asked.clear()
        self.scripted.failures = {URLS[name]: list(each) for name, each in failures.items()}
        self.endpoints = Endpoints(urls, self.clock.seconds, Random(1)) if urls else self.endpoints
        upstream = Upstream("hub.test", FIRST, endpoints=(SECOND,))
        realms, retry = Realms(cast(Any, None)), Retry(self.clock.seconds, 25.0)
        scripted = cast(Any, self.scripted)
        self.failover = Failover(upstream, scripted, self.scripted, self.endpoints, realms, retry)
        got = Deferred.fromCoroutine(Remote(upstream, self.endpoints, self.failover).blob(NAME, DIGEST, None, None))
        if got.called and not hasattr(got.result, "value"):
            self.successResultOf(got)
            return list(self.scripted.asked)
        return cast(RegistryError, self.failureResultOf(got).value)

    def test_alone(self) -> None:
        """The only endpoint is asked once more where it broke off, and only once; nothing else is asked again."""
        self.assertEqual(self.ask(FIRST, first=[BROKE]), [FIRST, FIRST])
        self.assertIs(self.ask(FIRST, first=[BROKE, BROKE]), BROKE)
        self.assertEqual(len(self.scripted.asked), 2)
        for error in (WRONG, LIMITED):
            self.assertIs(self.ask(FIRST, first=[error]), error)
            self.assertEqual(len(self.scripted.asked), 1)

    def test_two(self) -> None:
        """Another endpoint is asked in its place; when both failed that is all."""
        for error in (BROKE, WRONG, LIMITED):
            self.assertEqual(self.ask(FIRST, SECOND, first=[error]), [FIRST, SECOND])
        self.assertIs(self.ask(FIRST, SECOND, first=[BROKE], second=[WRONG]), WRONG)
        self.assertEqual(len(self.scripted.asked), 2)

    def test_other_is_limited(self) -> None:
        """One that broke off is asked again where no request may go to the other one, and only once."""
        self.assertEqual(self.ask(FIRST, SECOND, first=[BROKE], second=[LIMITED]), [FIRST, SECOND, FIRST])
        self.assertEqual(self.ask(FIRST, SECOND, first=[LIMITED], second=[BROKE]), [FIRST, SECOND, SECOND])
        self.assertIs(self.ask(FIRST, SECOND, first=[LIMITED], second=[BROKE, BROKE]), BROKE)
        self.assertEqual(len(self.scripted.asked), 3)
        self.assertIs(self.ask(FIRST, SECOND, first=[BROKE, LIMITED], second=[LIMITED]), LIMITED)
        self.assertEqual(len(self.scripted.asked), 3)
        self.assertIs(self.ask(FIRST, SECOND, first=[WRONG], second=[LIMITED]), LIMITED)
        self.assertEqual(len(self.scripted.asked), 2)

    def test_other_comes_back(self) -> None:
        """One that had asked to be left alone is asked when its time came to an end while the first failed."""
        for takes, asked in ((0.5, WRONG), (2.0, [FIRST, SECOND])):
            self.setUp()
            self.scripted.takes = takes
            self.endpoints = Endpoints((FIRST, SECOND), self.clock.seconds, Random(1))
            self.endpoints.failed(self.endpoints.order()[1], 1.0)
            self.assertEqual(self.ask(first=[WRONG]), asked)

    def test_token_service(self) -> None:
        """Where the token service failed the registry still gets two requests; none is asked three times."""
        self.assertEqual(self.ask(FIRST, SECOND, first=[NO_TOKEN], second=[BROKE]), [FIRST, SECOND, SECOND])
        self.assertEqual(self.ask(FIRST, SECOND, first=[NO_TOKEN], second=[WRONG]), [FIRST, SECOND, FIRST])
        self.assertEqual(self.ask(FIRST, SECOND, first=[BROKE], second=[NO_TOKEN]), [FIRST, SECOND, SECOND])
        cases: list[dict[str, list[RegistryError]]] = [
            {"first": [NO_TOKEN]},
            {"first": [BROKE, NO_TOKEN]},
            {"first": [NO_TOKEN], "second": [NO_TOKEN]},
            {"first": [NO_TOKEN, NO_TOKEN], "second": [WRONG]},
            {"first": [BROKE], "second": [NO_TOKEN, NO_TOKEN]},
        ]
        for failures in cases:
            urls = [URLS[name] for name in failures]
            self.assertIs(self.ask(*urls, **failures), NO_TOKEN)
            self.assertEqual(len(self.scripted.asked), sum(map(len, failures.values())))

    def test_in_time(self) -> None:
        """One that took long to break off is not asked again: by then clients have given up."""
        for takes, asked in ((24.0, [FIRST, FIRST]), (25.0, BROKE)):
            self.setUp()
            self.scripted.takes = takes
            self.assertEqual(self.ask(FIRST, first=[BROKE]), asked)

    def test_ping(self) -> None:
        """A ping that broke off is sent once more."""
        self.ask(FIRST)
        for failures, asked in (([BROKE], None), ([BROKE, BROKE], BROKE), ([WRONG], WRONG)):
            self.scripted.failures = {FIRST: list(failures)}
            got = Deferred.fromCoroutine(self.failover.ping(None))
            if asked is None:
                self.successResultOf(got)
            else:
                self.assertIs(self.failureResultOf(got).value, asked)
            self.assertEqual(self.scripted.failures, {FIRST: []})

"""Docker Hub login through us: the client's token requests, relayed to the upstream's realm.

The law: the realm is the one the upstream itself names in its challenge, never one a
client names; only parameters of the token specification go there, and what is refused
there is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from zope.interface import Interface, implementer

from docxy import __version__
from docxy.broadcast import Broadcast
from docxy.errors import UpstreamBroke, UpstreamError
from docxy.settings.model import Upstream
from docxy.single_flight import SingleFlight
from docxy.upstream.api_url import ApiUrl
from docxy.upstream.authorize import challenges
from docxy.upstream.challenge import Challenge, bearer, parse
from docxy.upstream.fetch import Fetcher
from docxy.upstream.question import BROKEN
from docxy.upstream.retry import Retry
from docxy.upstream.tokens import TokenService

PARAMETERS = frozenset(
    {
        "service",
        "scope",
        "account",
        "client_id",
        "offline_token",
        "access_type",
        "grant_type",
        "refresh_token",
        "username",
        "password",
    }
)
"""What may be relayed (distribution token specification, token and OAuth2 forms)."""
FRESH = 60.0
"""Seconds for which an upstream's challenge is not asked for again."""


class IChallengeMemory(Interface):
    """Keeps an upstream's challenge over restarts, for when the upstream is down."""

    def recall() -> Sequence[str]:
        """The values of `WWW-Authenticate` that were remembered."""

    def remember(values: Sequence[str]) -> None:
        """Replace them."""


@implementer(IChallengeMemory)
class NoMemory:
    """Keeps nothing."""

    def recall(self) -> Sequence[str]:
        return []

    def remember(self, values: Sequence[str]) -> None:
        return


class TokenRelay:
    """Knows the challenge of one upstream and passes token requests on."""

    _log = Logger()

    def __init__(
        self,
        upstream: Upstream,
        fetcher: Fetcher,
        service: TokenService,
        clock: IReactorTime,
        memory: IChallengeMemory,
        broadcast: Broadcast,
        retry: Retry,
    ) -> None:
        """`broadcast`: to processes that have not asked the upstream yet, and may find it down when they do."""
        self._tell = broadcast.topic(f"challenge of {upstream.name}", self._heard)
        self._retry = retry
        self._upstream = upstream
        self._fetcher = fetcher
        self._service = service
        self._clock = clock
        self._memory = memory
        self._known: list[Challenge] = parse(memory.recall())
        self._asked_at: float | None = None
        self._asking: SingleFlight[None, None] = SingleFlight()

    async def challenge(self) -> list[Challenge]:
        """What the upstream asks of clients without credentials; empty when it lets them in.  Raises UpstreamError.

        Kept for FRESH seconds; after that asked for again while the one known before serves.
        """
        now = self._clock.seconds()
        if self._asked_at is None or now - self._asked_at >= FRESH:
            asking = self._asking.do(None, lambda: self._retry.of(self._discover))
            if self._known:
                # Clients do not wait for what is most likely the same, nor for an upstream that is down.
                asking.addErrback(lambda why: self._log.info("{why}", why=why.getErrorMessage()))
            else:
                await asking
        return self._known

    async def _discover(self) -> None:
        response = await self._fetcher.request(
            "GET", ApiUrl.of(self._upstream.url).ping, Headers({"User-Agent": [f"docxy/{__version__}"]})
        )
        await response.drain()
        if response.status == 401:
            self._learn(challenges(response))
        elif response.status == 200:
            self._learn([])
        else:
            kind = UpstreamBroke if response.status in BROKEN else UpstreamError
            raise kind(f"{self._upstream.name} ({response.source}) answered {response.status} for /v2/")
        self._asked_at = self._clock.seconds()

    def saw(self, asked: Sequence[Challenge]) -> None:
        """A repository challenged a client without credentials; some upstreams challenge only there."""
        if bearer(self._known) is None and bearer(asked) is not None:
            self._learn(list(asked))

    def _learn(self, asked: list[Challenge]) -> None:
        if asked != self._known:
            self._known = asked
            values = [str(challenge) for challenge in asked]
            self._memory.remember(values)
            self._tell(*values)

    def _heard(self, *values: str) -> None:
        self._known = parse(values)

    async def ask(
        self, parameters: Sequence[tuple[str, str]], authorization: str | None, *, post: bool
    ) -> dict[str, object]:
        """The answer of the upstream's token service; an empty token when it has none.

        Raises Unauthorized, Denied, TooManyRequests, UpstreamError as the service does.
        """
        challenge = bearer(await self.challenge())
        if challenge is None:
            return {"token": "", "access_token": "", "expires_in": int(FRESH)}
        base = ApiUrl.of(self._upstream.url)
        relayed = [
            (name, base.scoped(value) if name == "scope" else value) for name, value in parameters if name in PARAMETERS
        ]
        service = challenge.parameters.get("service")
        if service and not any(name == "service" for name, _ in relayed):
            relayed.insert(0, ("service", service))
        return await self._service.ask(challenge.parameters["realm"], relayed, authorization=authorization, post=post)

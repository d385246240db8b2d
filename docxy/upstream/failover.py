"""Which endpoints one question goes to, and how often, as each of them fails.

The law: before a client is failed the registry is asked twice: at another endpoint where there is one, else at the
same one if it broke off.  What its token service did wrong counts as none of the two, for that one has a
retry of its own (`docxy.upstream.tokens`).  No endpoint is asked more than twice, and no retry begins later than
`Retry` lets it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from attrs import define
from twisted.web.http_headers import Headers

from docxy import __version__
from docxy.errors import (
    AccountRefused,
    BadRequest,
    Denied,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    UpstreamBroke,
    UpstreamError,
    UpstreamUnavailable,
)
from docxy.observe import trail
from docxy.settings.model import Upstream
from docxy.upstream.api_url import ApiUrl
from docxy.upstream.authorize import IAuthorizer, Send
from docxy.upstream.endpoints import Endpoint, Endpoints
from docxy.upstream.fetch import Fetcher
from docxy.upstream.question import BROKEN, REFUSING, Destination, Question
from docxy.upstream.realms import Realms
from docxy.upstream.response import Response
from docxy.upstream.retry import Retry

T = TypeVar("T")


@define
class _Turn:
    """One endpoint's turn to answer."""

    failed: bool = False
    """Whether the endpoint itself gave no answer."""


class Failover:
    """Asks one upstream's endpoints."""

    def __init__(
        self,
        upstream: Upstream,
        fetcher: Fetcher,
        authorizer: IAuthorizer,
        endpoints: Endpoints,
        realms: Realms,
        retry: Retry,
    ) -> None:
        self._upstream = upstream
        self._fetcher = fetcher
        self._authorizer = authorizer
        self._endpoints = endpoints
        self._realms = realms
        self._retry = retry

    async def ask(
        self, question: Question, authorization: str | None, take: Callable[[Response, Endpoint], Awaitable[T]]
    ) -> T:
        """What `take` makes of a response that is 200, 206 or 416, of the first endpoint that answers as it should.

        An endpoint whose answer `take` refuses with an UpstreamError did not.
        """
        order = self._endpoints.order()
        alone = len(order) == 1
        in_time = self._retry.begin()
        sent = 0
        """Requests that the registry itself failed."""
        tried: list[Endpoint] = []
        again: list[Endpoint] = []
        failed: RegistryError | None = None
        while order:
            endpoint = order.pop(0)
            if tried and tried[-1] is not endpoint:
                trail.failed_over()
            tried.append(endpoint)
            base = ApiUrl.of(endpoint.url)
            trusted = self._realms.may_share(self._upstream, endpoint.url)
            access = Destination(endpoint.url, base.scope(question.repository), question.kind, trusted)
            turn = _Turn()
            send = self._sender(question.method, base.url(question.repository, question.rest), question.headers, turn)
            known = authorization if trusted else None
            response: Response | None = None
            try:
                response = await self._authorized(send, access, known, question)
                if response.status not in (200, 206, 416):
                    raise await self._failure(response, question)
                taken = await take(response, endpoint)
            except (UpstreamError, TooManyRequests) as error:
                failed = error
                limits = isinstance(error, TooManyRequests)
                own = response is not None or turn.failed or isinstance(error, AccountRefused)
                sent += own
                broke = own and sent == 1 and isinstance(error, UpstreamBroke)
                if broke or not (own or limits or endpoint in tried[:-1]):
                    again = [endpoint]
                if isinstance(error, AccountRefused) or (limits and response is not None and response.redirected):
                    # Neither docxy's password nor a storage that limits one blob is the endpoint's fault.
                    self._endpoints.answered(endpoint)
                elif not (broke and alone):
                    self._endpoints.failed(endpoint, error.retry_after)
                if not order and sent < 2:
                    order, again = self._endpoints.spare(tried) or (again if sent and in_time() else []), []
            except RegistryError as error:
                self._endpoints.answered(endpoint)
                if not isinstance(error, Unauthorized) or known == authorization:
                    raise
                # Another endpoint, which may not know who the client is.
                failed = UpstreamError(f"{endpoint.url} asks for credentials that are for {self._upstream.url}")
            else:
                self._endpoints.answered(endpoint)
                return taken
        assert failed is not None
        raise failed

    async def ping(self, authorization: str | None) -> None:
        """GET /v2/ in the client's name; raises Unauthorized with a challenge, UpstreamError…"""
        access = Destination(self._upstream.url, "", "GET ping")
        send = self._sender("GET", ApiUrl.of(self._upstream.url).ping, (), _Turn())

        async def ask() -> None:
            response = await self._authorizer.send(send, access, authorization)
            if response.status != 200:
                raise await self._failure(response, Question("GET", "", "v2/", NameUnknown))
            await response.drain()

        await self._retry.of(ask)

    async def _authorized(
        self, send: Send, access: Destination, authorization: str | None, question: Question
    ) -> Response:
        try:
            return await self._authorizer.send(send, access, authorization)
        except Denied as error:
            # Registries say the same of what is private and of what is not there.
            raise question.unknown(
                f"{question.asked} is not on {self._upstream.name}, or is private: {error.message}"
            ) from error

    def _sender(self, method: str, url: str, headers: Sequence[tuple[str, Sequence[str]]], turn: _Turn) -> Send:
        async def send(credentials: str | None) -> Response:
            sent = Headers({"User-Agent": [f"docxy/{__version__}"]})
            for name, values in headers:
                sent.setRawHeaders(name, values)
            if credentials is not None:
                sent.setRawHeaders("Authorization", [credentials])
            try:
                return await self._fetcher.request(method, url, sent)
            except UpstreamError:
                turn.failed = True
                raise

        return send

    async def _failure(self, response: Response, question: Question) -> RegistryError:
        status, name, asked = response.status, self._upstream.name, question.asked
        told = await response.said()
        headers = response.retry_after
        if status in question.absent:
            return question.unknown(f"{asked} is not on {name}{told}")
        if status == 403:
            return Denied(f"{name} denies access to {asked}{told}")
        if status == 429:
            return TooManyRequests(f"{name} limits requests{told}", headers=headers or (("Retry-After", "60"),))
        if status == 503:
            return UpstreamUnavailable(f"{name} ({response.source}) is unavailable (503){told}", headers=headers)
        if status in REFUSING:
            return BadRequest(f"{name} refused the request for {asked} ({status}){told}")
        kind = UpstreamBroke if status in BROKEN else UpstreamError
        return kind(f"{name} ({response.source}) answered {status} for {asked}{told}")

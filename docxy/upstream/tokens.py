"""Tokens of an upstream's token service (the distribution token specification).

The law: a credential goes where `docxy.upstream.realms` lets it go, also behind a redirect.  No token,
password or query is ever part of an error or a log line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from attrs import frozen
from cachetools import LRUCache, TTLCache
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from docxy.errors import (
    BadRequest,
    Denied,
    NotFound,
    RegistryError,
    TooManyTokens,
    Unauthorized,
    Unsupported,
    UpstreamBroke,
    UpstreamError,
    UpstreamUnavailable,
)
from docxy.settings.model import Upstream
from docxy.single_flight import SingleFlight
from docxy.upstream.challenge import Challenge
from docxy.upstream.fetch import REDIRECTS, Fetcher, redirect_target
from docxy.upstream.login import IAccountSecret
from docxy.upstream.question import BROKEN, Destination
from docxy.upstream.realms import Realms
from docxy.upstream.response import Response
from docxy.upstream.retry import Retry, stumbled

MAX_TOKEN = 1024 * 1024
"""Bytes of a token service's answer."""
DEFAULT_LIFETIME = 60
"""Seconds a token lives when its service does not say (token specification)."""
_LONGEST_LIFETIME = 365 * 24 * 3600
"""Seconds that are believed at most."""
_MAX_HOPS = 5
_REFUSED_FOR = 10.0
"""Seconds for which a service that refused is not asked the same again: some lock accounts."""
_MOST_REFUSALS = 1024
_MOST_TOKENS = 4096
"""Of one account: one or two a repository."""
_MARGIN = 10
"""Seconds before its end from which a token is not used any more."""


@frozen
class KeptToken:
    """What a token service granted."""

    value: str
    expires: float
    """On the clock's seconds."""


class TokenService:
    """Asks one upstream's token service."""

    def __init__(self, upstream: Upstream, fetcher: Fetcher, realms: Realms, retry: Retry) -> None:
        self._upstream = upstream
        self._fetcher = fetcher
        self._realms = realms
        self._retry = retry
        self.granted = self.refused = 0
        """Answers."""

    async def ask(
        self,
        realm: str,
        parameters: Sequence[tuple[str, str]],
        *,
        authorization: str | None = None,
        post: bool = False,
    ) -> dict[str, object]:
        """The service's answer to a token request, a JSON object with a token in it; one that stumbles is asked again.

        Raises what the service's refusal means (see `refusal`), UpstreamError.
        """
        encoded = urlencode(parameters)
        url = realm
        if encoded and not post:
            url = f"{realm}{'&' if '?' in realm else '?'}{encoded}"

        async def once() -> dict[str, object]:
            if post:
                return await self._granted(await self._request("POST", url, authorization, encoded.encode("ascii")))
            return await self._granted(await self._follow(url, authorization))

        return await self._retry.of(once, stumbled)

    async def _follow(self, url: str, authorization: str | None) -> Response:
        """The answer to a GET; each place it is redirected to is checked as a realm is."""
        for _ in range(_MAX_HOPS + 1):
            response = await self._request("GET", url, authorization)
            location = response.header("Location")
            if response.status not in REDIRECTS or location is None:
                return response
            await response.drain()
            url = redirect_target(url, location)
        raise UpstreamError(f"the token service of {self._upstream.name} redirected more than {_MAX_HOPS} times")

    async def _request(self, method: str, url: str, authorization: str | None, form: bytes | None = None) -> Response:
        """One exchange; credentials go only to whom the upstream or the operator vouches for."""
        self._realms.check(self._upstream, url)
        headers = Headers({"Accept": ["application/json"]})
        trusted = self._realms.may_know(self._upstream, url)
        if (form is not None or authorization is not None) and not trusted:
            self._realms.refuse(self._upstream, url, form is not None)
        if authorization is not None and trusted:
            headers.setRawHeaders("Authorization", [authorization])
        if form is not None:
            headers.setRawHeaders("Content-Type", ["application/x-www-form-urlencoded"])
        return await self._fetcher.request(method, url, headers, data=form, follow=False)

    async def _granted(self, response: Response) -> dict[str, object]:
        name = f"the token service of {self._upstream.name} ({response.source})"
        if response.status not in (200, 201):
            await response.drain()
            self.refused += 1
            raise refusal(response, name)
        try:
            answer = json.loads(await response.read(MAX_TOKEN))
        except (ValueError, RecursionError):
            raise UpstreamError(f"{name} answered something that is not JSON") from None
        if not isinstance(answer, dict):
            raise UpstreamError(f"{name} answered JSON that is not an object")
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise UpstreamError(f"{name} answered without a token")
        self.granted += 1
        return {**answer, "token": token, "access_token": token, "expires_in": _lifetime(answer.get("expires_in"))}


def _lifetime(told: object) -> int:
    """Seconds that a token lives; what a service says may be anything that JSON has, infinity too."""
    if not isinstance(told, (int, float)) or isinstance(told, bool) or not told > 0:
        return DEFAULT_LIFETIME
    return int(min(told, _LONGEST_LIFETIME))


def refusal(response: Response, name: str) -> RegistryError:
    """What a token service's status other than 200 means; pure."""
    headers = response.retry_after
    status = response.status
    if status == 401:
        return Unauthorized(f"{name} refused these credentials")
    if status == 403:
        return Denied(f"{name} refused access")
    # 400, 404 and 405 make a client that posted (OAuth2) ask again by GET, as no other status does.
    if status == 400:
        return BadRequest(f"{name} did not understand the request")
    if status == 404:
        return NotFound(f"{name} has nothing there")
    if status == 405:
        return Unsupported(f"{name} does not support this method", headers=(("Allow", "GET, HEAD"),))
    if status == 429:
        return TooManyTokens(f"{name} limits its requests", headers=headers or (("Retry-After", "60"),))
    if status == 503:
        return UpstreamUnavailable(f"{name} answered 503", headers=headers)
    if status in BROKEN:
        return UpstreamBroke(f"{name} answered {status}")
    return UpstreamError(f"{name} answered {status}")


def _place(access: Destination) -> tuple[str, str]:
    """What a challenge holds for: manifests and blobs of a repository are behind the same one."""
    return access.endpoint, access.scope


_Key = tuple[str, str, str]
"""Realm, service, scope as the challenge asked for it."""


class OwnTokens:
    """Tokens of docxy's own, kept until shortly before they expire.

    One request is in flight for each realm, service and scope.
    """

    def __init__(self, service: TokenService, clock: IReactorTime, secret: IAccountSecret | None = None) -> None:
        self._service = service
        self._secret = secret
        self._clock = clock
        self._tokens: LRUCache[_Key, KeptToken] = LRUCache(_MOST_TOKENS)
        self._answers: LRUCache[tuple[str, str], _Key] = LRUCache(_MOST_TOKENS)
        self._asking: SingleFlight[_Key, str] = SingleFlight()
        self._refusals: TTLCache[_Key, RegistryError] = TTLCache(_MOST_REFUSALS, _REFUSED_FOR, clock.seconds)

    def kept(self, access: Destination) -> str | None:
        """A token that is still good for what was accessed before."""
        return self._good(self._answers.get(_place(access)))

    def _good(self, key: _Key | None) -> str | None:
        token = None if key is None else self._tokens.get(key)
        return token.value if token is not None and token.expires > self._clock.seconds() else None

    def forget(self, access: Destination, value: str) -> None:
        """This token was refused; another one that came in the meantime stays."""
        key = self._answers.get(_place(access))
        if key is not None and self._good(key) == value:
            del self._tokens[key]

    async def get(self, challenge: Challenge, access: Destination) -> tuple[str, bool]:
        """A token that answers the challenge, and whether it is one from before; raises like `TokenService.ask`."""
        parameters = challenge.parameters
        key = (parameters["realm"], parameters.get("service", ""), parameters.get("scope") or access.scope)
        kept = self._good(key)
        value = kept or await self._asking.do(key, lambda: self._fetch(key))
        self._answers[_place(access)] = key
        return value, kept is not None

    def reload(self) -> str | None:
        """The operator may have changed the account's password: ask at once with what its file holds now.

        Why the file cannot be used, None when it can.
        """
        self._refusals.clear()
        if self._secret is None:
            return None
        return self._secret.reload()

    async def _fetch(self, key: _Key) -> str:
        realm, service, scope = key
        asked = [(name, value) for name, value in (("service", service), ("scope", scope)) if value]
        refused = self._refusals.get(key)
        if refused is not None and (self._secret is None or not await self._secret.renew()):
            raise type(refused)(refused.message)
        try:
            answer = await self._ask(realm, asked)
        except (Unauthorized, Denied) as error:
            # The password may have been changed in the meantime, at both ends.
            if self._secret is None or not await self._secret.renew():
                self._refusals[key] = error
                raise
            answer = await self._ask(realm, asked)
        value, lifetime = answer["token"], answer["expires_in"]
        assert isinstance(value, str) and isinstance(lifetime, int)
        if value:
            self._tokens[key] = KeptToken(value, self._clock.seconds() + max(lifetime - _MARGIN, lifetime / 2))
        return value

    async def _ask(self, realm: str, asked: Sequence[tuple[str, str]]) -> dict[str, object]:
        login = None if self._secret is None else await self._secret.login()
        if login is None:
            return await self._service.ask(realm, asked)
        if login.is_identity:
            # OAuth2, as clients do that were told an identity token (token specification).
            granting = [("grant_type", "refresh_token"), ("client_id", "docxy"), ("refresh_token", login.secret)]
            return await self._service.ask(realm, [*granting, *asked], post=True)
        return await self._service.ask(realm, asked, authorization=login.authorization)


def relayed(answer: Mapping[str, object], issued_at: str) -> dict[str, object]:
    """A token service's answer as clients are given it; pure.

    Both spellings of the token, a lifetime of at least 60 s for clients that would
    otherwise raise it themselves, and what else the token specification names.
    """
    lifetime = answer["expires_in"]
    assert isinstance(lifetime, int)
    out: dict[str, object] = {
        "token": answer["token"],
        "access_token": answer["access_token"],
        "expires_in": max(lifetime, 60),
        "issued_at": answer.get("issued_at") or issued_at,
    }
    refresh = answer.get("refresh_token")
    if isinstance(refresh, str):
        out["refresh_token"] = refresh
    scope = answer.get("scope")
    if isinstance(scope, str):
        out["scope"] = scope
    return out

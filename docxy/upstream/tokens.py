"""Tokens of an upstream's token service (the distribution token specification).

The law: a credential goes to a realm only when the upstream's own host, its registrable
domain or the operator vouches for the realm's host (CVE-2026-33540, CVE-2020-15157), never
through a redirect, and over https unless the upstream itself is plain http.  No token,
password or query is ever part of an error or a log line.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlencode, urlsplit

from attrs import frozen
from publicsuffixlist import PublicSuffixList
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from docxy.config import Credential, Upstream
from docxy.errors import (
    BadRequest,
    Denied,
    NotFound,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    Unsupported,
    UpstreamError,
    UpstreamUnavailable,
)
from docxy.flight import SingleFlight
from docxy.upstream.challenge import Challenge
from docxy.upstream.fetch import Fetcher, Response, origin

MAX_TOKEN = 1024 * 1024
"""Bytes of a token service's answer."""
DEFAULT_LIFETIME = 60
"""Seconds a token lives when its service does not say (token specification)."""
_LONGEST_LIFETIME = 365 * 24 * 3600
"""Seconds that are believed at most."""
_MARGIN = 10
"""Seconds before its end from which a token is not used any more."""


@frozen
class Realms:
    """Which realms may be asked for tokens, and told credentials."""

    suffixes: Callable[[], PublicSuffixList]
    """The list of public suffixes, which is large and not needed for many upstreams."""

    def check(self, upstream: Upstream, realm: str) -> str:
        """The realm's URL; raises UpstreamError when nothing vouches for its host."""
        try:
            theirs = urlsplit(realm)
            host = (theirs.hostname or "").lower()
            port_is_valid = theirs.port is None or theirs.port > 0
        except ValueError:
            host, port_is_valid = "", False
        if not host or not port_is_valid or theirs.scheme not in ("http", "https") or theirs.username:
            raise UpstreamError(f"{upstream.name}: its token realm is not an http or https URL")
        urls = (upstream.url, *upstream.endpoints)
        if theirs.scheme == "http" and all(url.startswith("https:") for url in urls):
            raise UpstreamError(f"{upstream.name}: its token realm {origin(realm)} is plain http; refused")
        if host not in upstream.realm_hosts and not any(self.related(url, realm) for url in urls):
            raise UpstreamError(
                f"{upstream.name}: its token realm is on {host}, another domain than {upstream.url}; "
                f"list it in realm_hosts if it is right"
            )
        return realm

    def may_know(self, upstream: Upstream, url: str) -> bool:
        """Whether credentials for the upstream may be told to a realm or another endpoint of it."""
        host = (urlsplit(url).hostname or "").lower()
        return host in upstream.realm_hosts or self.related(upstream.url, url)

    def related(self, one: str, other: str) -> bool:
        """Whether two URLs are of the same host or the same registrable domain."""
        hosts = [(urlsplit(url).hostname or "").lower() for url in (one, other)]
        if hosts[0] == hosts[1]:
            return True
        if any(_is_address(host) for host in hosts):
            return False
        registrable = self.suffixes().privatesuffix(hosts[0])
        return registrable is not None and registrable == self.suffixes().privatesuffix(hosts[1])


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@frozen
class Token:
    """What a token service granted."""

    value: str
    expires: float
    """On the clock's seconds."""


class TokenService:
    """Asks one upstream's token service."""

    def __init__(self, upstream: Upstream, fetcher: Fetcher, realms: Realms) -> None:
        self._upstream = upstream
        self._fetcher = fetcher
        self._realms = realms

    async def ask(
        self,
        realm: str,
        parameters: Sequence[tuple[str, str]],
        *,
        authorization: str | None = None,
        post: bool = False,
    ) -> dict[str, object]:
        """The service's answer to a token request, a JSON object with a token in it.

        Raises what the service's refusal means (see `refusal`), UpstreamError.
        """
        url = self._realms.check(self._upstream, realm)
        headers = Headers({"Accept": ["application/json"]})
        trusted = self._realms.may_know(self._upstream, url)
        if post and not trusted:
            # A form holds a password or a refresh token.
            raise UpstreamError(f"{origin(url)} is not told credentials for {self._upstream.url}")
        if authorization is not None and trusted:
            headers.setRawHeaders("Authorization", [authorization])
        encoded = urlencode(parameters)
        if post:
            headers.setRawHeaders("Content-Type", ["application/x-www-form-urlencoded"])
            response = await self._fetcher.request("POST", url, headers, data=encoded.encode("ascii"), follow=False)
        else:
            joined = f"{url}{'&' if '?' in url else '?'}{encoded}" if encoded else url
            response = await self._fetcher.request("GET", joined, headers, follow=False)
        return await self._granted(response)

    async def _granted(self, response: Response) -> dict[str, object]:
        name = f"the token service of {self._upstream.name} ({response.source})"
        if response.status != 200:
            await response.drain()
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
        return {**answer, "token": token, "access_token": token, "expires_in": _lifetime(answer.get("expires_in"))}


def _lifetime(told: object) -> int:
    """Seconds that a token lives; what a service says may be anything that JSON has, infinity too."""
    if not isinstance(told, (int, float)) or isinstance(told, bool) or not told > 0:
        return DEFAULT_LIFETIME
    return int(min(told, _LONGEST_LIFETIME))


def refusal(response: Response, name: str) -> RegistryError:
    """What a token service's status other than 200 means; pure."""
    retry = response.header("Retry-After")
    headers = (("Retry-After", retry),) if retry else ()
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
        return TooManyRequests(f"{name} limits its requests", headers=headers or (("Retry-After", "60"),))
    if status == 503:
        return UpstreamUnavailable(f"{name} answered 503", headers=headers)
    return UpstreamError(f"{name} answered {status}")


@frozen
class Access:
    """What a request wants to reach."""

    endpoint: str
    """Base URL."""
    scope: str
    """To ask a token service for where a challenge names none."""
    kind: str
    """What upstreams count separately: method and kind of content."""
    trusted: bool = True
    """Whether the endpoint may be told who we are."""

    @property
    def limited(self) -> str:
        """What a 429 is about: an endpoint's says nothing of another's."""
        return f"{self.kind} {self.endpoint}"


def basic(credential: Credential) -> str:
    """An account as an Authorization header."""
    pair = f"{credential.username}:{credential.password}".encode()
    return "Basic " + b64encode(pair).decode("ascii")


def _place(access: Access) -> tuple[str, str]:
    """What a challenge holds for: manifests and blobs of a repository are behind the same one."""
    return access.endpoint, access.scope


_Key = tuple[str, str, str]
"""Realm, service, scope as the challenge asked for it."""


class Tokens:
    """Tokens of docxy's own, kept until shortly before they expire.

    One request is in flight for each realm, service and scope.
    """

    def __init__(self, service: TokenService, clock: IReactorTime, credential: Credential | None = None) -> None:
        self._service = service
        self._authorization = None if credential is None else basic(credential)
        self._clock = clock
        self._tokens: dict[_Key, Token] = {}
        self._answers: dict[tuple[str, str], _Key] = {}
        self._asking: SingleFlight[_Key, str] = SingleFlight()

    def kept(self, access: Access) -> str | None:
        """A token that is still good for what was accessed before."""
        return self._good(self._answers.get(_place(access)))

    def _good(self, key: _Key | None) -> str | None:
        token = None if key is None else self._tokens.get(key)
        return token.value if token is not None and token.expires > self._clock.seconds() else None

    def forget(self, access: Access, value: str) -> None:
        """This token was refused; another one that came in the meantime stays."""
        key = self._answers.get(_place(access))
        if key is not None and self._good(key) == value:
            del self._tokens[key]

    async def get(self, challenge: Challenge, access: Access) -> str:
        """A token that answers the challenge; raises like `TokenService.ask`."""
        parameters = challenge.parameters
        key = (parameters["realm"], parameters.get("service", ""), parameters.get("scope") or access.scope)
        value = self._good(key) or await self._asking.do(key, lambda: self._fetch(key))
        self._answers[_place(access)] = key
        return value

    async def _fetch(self, key: _Key) -> str:
        realm, service, scope = key
        asked = [(name, value) for name, value in (("service", service), ("scope", scope)) if value]
        answer = await self._service.ask(realm, asked, authorization=self._authorization)
        value, lifetime = answer["token"], answer["expires_in"]
        assert isinstance(value, str) and isinstance(lifetime, int)
        if value:
            self._drop_expired()
            self._tokens[key] = Token(value, self._clock.seconds() + max(lifetime - _MARGIN, lifetime / 2))
        return value

    def _drop_expired(self) -> None:
        now = self._clock.seconds()
        self._tokens = {key: token for key, token in self._tokens.items() if token.expires > now}
        self._answers = {access: key for access, key in self._answers.items() if key in self._tokens}


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

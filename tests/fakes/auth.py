"""The fake upstream's dialect of authentication, and its token service.

The law: a token reaches what it was granted, for as long as the injected clock says, and no
longer than until `revoke`; what a registry says of it (`expires_in`) is another matter.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Literal
from urllib.parse import parse_qs

from attrs import define, field, frozen

from tests.fakes.wire import Answer, Received, oci_error


@frozen
class Grant:
    account: str | None
    repositories: frozenset[str] | None
    """None: all that the account may read."""
    expires: float


@define
class Auth:
    """How an upstream authenticates; every field may be changed at any time.

    What its token endpoint does wrong is said by faults of the kind "token".
    """

    scheme: Literal["none", "bearer", "basic"] = "none"
    accounts: dict[str, str] = field(factory=dict)
    """Name -> password."""
    private: set[str] = field(factory=set)
    """Repositories that only accounts may read."""

    realm: Literal["same", "port", "foreign"] = "same"
    """The token service is on the registry's own origin, on another port, or on another host (localhost)."""
    service: str | None = "fake-registry"
    scope: bool = True
    """Whether challenges name a scope.  Without, a token reaches all that its account may read."""
    also: str = ""
    """Challenges in the same header before ours: `Basic realm="x"`."""
    ping_open: bool = False
    """`/v2/` is 200 for anyone."""
    denied_status: Literal[401, 403, 404] = 401
    """To a good token that does not reach the repository."""
    expired_status: Literal[400, 401] = 401
    """To an expired or unknown token; 400 comes without a challenge, as ECR Public's does."""
    expired_realm: str | None = None
    """Realm of the challenge to an expired or unknown token, as nvcr's that dead-ends."""

    token_fields: tuple[str, ...] = ("token", "access_token")
    lifetime: float = 300.0
    """Seconds that tokens are good for."""
    expires_in: int | None = 300
    """What is said of it; None: nothing."""
    refuses: Literal[None, 401, 403] = None
    """The token service's own answer to a scope that is out of reach (GHCR); None: a token without it."""
    post: bool = True
    """Whether POST is understood; else 405."""

    tokens: dict[str, Grant] = field(factory=dict, init=False)
    refresh_tokens: dict[str, str] = field(factory=dict, init=False)
    """Refresh token -> account."""
    _numbers: Iterator[int] = field(factory=lambda: itertools.count(1), init=False)

    def revoke(self) -> None:
        """Make every token unknown, refresh tokens too."""
        self.tokens.clear()
        self.refresh_tokens.clear()

    def may_read(self, account: str | None, repository: str) -> bool:
        return account is not None or repository not in self.private

    # The registry's side

    def refusal(self, request: Received, now: float, realm: str) -> Answer | None:
        """The answer to a request that may not be served; None: serve it."""
        repository = request.repository
        if self.scheme == "none" or (repository is None and self.ping_open):
            return None
        given = request.headers.get("authorization")
        if self.scheme == "basic":
            if self._account(given) is not None:
                return None
            return oci_error(401, "UNAUTHORIZED", headers={"WWW-Authenticate": 'Basic realm="fake"'})
        if given is None:
            return self._challenge(repository, realm)
        kind, _, token = given.partition(" ")
        grant = self.tokens.get(token) if kind.lower() == "bearer" else None
        if grant is None or grant.expires <= now:
            if self.expired_status == 400:
                return oci_error(400, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
            return self._challenge(repository, self.expired_realm or realm, "invalid_token")
        if repository is None:
            return None
        granted = grant.repositories is None or repository in grant.repositories
        if granted and self.may_read(grant.account, repository):
            return None
        if self.denied_status == 401:
            return self._challenge(repository, realm, "insufficient_scope")
        return oci_error(self.denied_status, "DENIED" if self.denied_status == 403 else "NAME_UNKNOWN")

    def _challenge(self, repository: str | None, realm: str, error: str = "") -> Answer:
        parameters = {"realm": realm, "service": self.service, "error": error}
        if self.scope and repository is not None:
            parameters["scope"] = f"repository:{repository}:pull"
        bearer = "Bearer " + ",".join(f'{name}="{value}"' for name, value in parameters.items() if value)
        value = f"{self.also}, {bearer}" if self.also else bearer
        return oci_error(401, "UNAUTHORIZED", headers={"WWW-Authenticate": value})

    def _account(self, authorization: str | None) -> str | None:
        kind, _, encoded = (authorization or "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return None
        return name if self._good(name, password) else None

    def _good(self, name: str, password: str) -> bool:
        return name in self.accounts and self.accounts[name] == password

    # The token service's side

    def issue(self, request: Received, now: float) -> Answer:
        """Answer a token request, GET or POST."""
        if request.method == "POST":
            return self._issue_posted(request, now)
        account = self._account(request.headers.get("authorization"))
        if account is None and "authorization" in request.headers:
            return oci_error(401, "UNAUTHORIZED", "incorrect username or password")
        offline = request.query.get("offline_token") == ["true"]
        return self._grant(account, request.query.get("scope", []), offline, now)

    def _issue_posted(self, request: Received, now: float) -> Answer:
        if not self.post:
            return oci_error(405, "UNSUPPORTED", headers={"Allow": "GET"})
        form = parse_qs(request.body.decode())
        first = {name: values[0] for name, values in form.items()}
        account: str | None = None
        if first.get("grant_type") == "refresh_token":
            account = self.refresh_tokens.get(first.get("refresh_token", ""))
        elif first.get("grant_type") == "password" and self._good(first.get("username", ""), first.get("password", "")):
            account = first["username"]
        if account is None:
            return oci_error(401, "UNAUTHORIZED", "invalid grant")
        return self._grant(account, form.get("scope", []), first.get("access_type") == "offline", now)

    def _grant(self, account: str | None, scopes: list[str], offline: bool, now: float) -> Answer:
        asked = {part.split(":")[1] for scope in scopes for part in scope.split() if part.count(":") >= 2}
        reached = frozenset(name for name in asked if self.may_read(account, name))
        if self.refuses is not None and reached != asked:
            return oci_error(self.refuses, "DENIED", "requested access to the resource is denied")
        token = self.add_token(account, reached if self.scope else None, now + self.lifetime)
        document: dict[str, str | int] = dict.fromkeys(self.token_fields, token)
        if self.expires_in is not None:
            document["expires_in"] = self.expires_in
        if offline and account is not None:
            document["refresh_token"] = f"refresh-{next(self._numbers)}"
            self.refresh_tokens[str(document["refresh_token"])] = account
        return Answer.of(json.dumps(document).encode(), {"Content-Type": "application/json"})

    def add_token(self, account: str | None, repositories: frozenset[str] | None, expires: float) -> str:
        """A token that is good from now on, without a request for it."""
        token = f"token-{next(self._numbers)}"
        self.tokens[token] = Grant(account, repositories, expires)
        return token

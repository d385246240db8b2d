"""Token requests to docxy's own accounts (the distribution token specification, GET and POST).

The law: a repository that the user may not pull is left out of the token, without an error.
A wrong password is an error, and so is a refresh token that is not valid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from itertools import islice

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from docxy.access import credentials
from docxy.access.audit import refused
from docxy.access.htpasswd import HtpasswdFile
from docxy.access.passwords import Passwords
from docxy.access.scopes import Readings, asked
from docxy.access.signer import LIFETIME, MAX_NAMES, Signer
from docxy.errors import BadRequest, Denied, TooManyRequests, Unauthorized
from docxy.settings.rules import Rules

_WHAT = "token"


@frozen
class _Account:
    """A user who showed the right password or a valid refresh token."""

    user: str
    stored: str
    """The password's hash at that moment; the file may have changed since."""


@frozen
class TokenRequests:
    """Answers token requests."""

    rules: Callable[[], Rules]
    """Those in force."""
    file: HtpasswdFile
    passwords: Passwords
    signer: Signer
    readings: Readings
    clock: IReactorTime

    async def answer(
        self,
        said: credentials.Credentials | None,
        parameters: Sequence[tuple[str, str]],
        post: bool,
        address: str,
    ) -> dict[str, object]:
        """The document for a client.  Raises Unauthorized, TooManyRequests or BadRequest."""
        given = dict(reversed(parameters))
        offline = given.get("offline_token", "").lower() in ("true", "1") or given.get("access_type") == "offline"
        grant_type = given.get("grant_type") if post else None
        if grant_type == "refresh_token":
            # The client keeps its refresh token: a new one would last longer each time.
            return self._issue(self._refreshed(given.get("refresh_token", ""), address), parameters, offline=False)
        if grant_type == "password":
            said = credentials.Password(given.get("username", ""), given.get("password", ""))
        elif post:
            raise BadRequest("grant_type is neither password nor refresh_token")
        if said is None:
            if not self.rules().anonymous:
                raise refused(_unauthorized("authentication is required", self.signer), None, address, _WHAT)
            return self._issue(None, parameters, offline=False)
        if not isinstance(said, credentials.Password):
            raise refused(_unauthorized("a user name and password are needed", self.signer), None, address, _WHAT)
        return self._issue(await self._check(said, address), parameters, offline)

    async def _check(self, said: credentials.Password, address: str) -> _Account:
        try:
            stored = await self.passwords.verify(address, said.user, said.password)
        except TooManyRequests as error:
            raise refused(error, said.user, address, _WHAT) from None
        if stored is None:
            wrong = _unauthorized("the user name or password is wrong", self.signer)
            raise refused(wrong, said.user, address, _WHAT)
        return _Account(said.user, stored)

    def _refreshed(self, token: str, address: str) -> _Account:
        grant = self.signer.read_refresh(token, self.clock.seconds())
        user = None if grant is None else grant.user
        accounts = self.file.accounts()
        if grant is not None and user is not None and self.signer.is_bound(grant, accounts):
            return _Account(user, accounts.hashes[user])
        try:
            self.passwords.check_pause(address, user or "")
        except TooManyRequests as error:
            raise refused(error, user, address, _WHAT) from None
        self.passwords.failed(address, user or "")
        raise refused(_unauthorized("the login has expired; log in again", self.signer), user, address, _WHAT)

    async def mint(self, user: str | None, names: Sequence[str]) -> dict[str, object]:
        """The document for the operator, who needs no password: as a user, or as one who has not logged in.

        `names`: repositories with their registries.  Raises Denied for a user or a repository that gets none.
        """
        account = None
        if user is None:
            if not self.rules().anonymous:
                raise Denied("the rules let nobody pull without an account: name a user")
        else:
            stored = self.file.accounts().hashes.get(user)
            if stored is None:
                raise Denied(f"there is no user {user[:80]!a} in the htpasswd file")
            account = _Account(user, stored)
        refused_ones = [name for name in names if not self.rules().may_any(user, self.readings(name))]
        if refused_ones or len(names) > MAX_NAMES:
            why = f"{MAX_NAMES} repositories are the most of one token"
            raise Denied(f"the rules do not let this user pull {', '.join(refused_ones)}" if refused_ones else why)
        scopes = [("scope", f"repository:{name}:pull") for name in names]
        return self._issue(account, scopes, offline=False)

    def _issue(
        self, account: _Account | None, parameters: Sequence[tuple[str, str]], offline: bool
    ) -> dict[str, object]:
        now = self.clock.seconds()
        user, stored = (None, None) if account is None else (account.user, account.stored)
        allowed = (name for name in asked(parameters) if self.rules().may_any(user, self.readings(name)))
        names = list(islice(allowed, MAX_NAMES))
        token = self.signer.issue(user, stored, names, now)
        answer: dict[str, object] = {
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME,
            "issued_at": datetime.fromtimestamp(int(now), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scope": " ".join(f"repository:{name}:pull" for name in names),
        }
        if offline and account is not None:
            answer["refresh_token"] = self.signer.issue_refresh(account.user, account.stored, now)
        return answer


def _unauthorized(message: str, signer: Signer) -> Unauthorized:
    return Unauthorized(message, headers=(("WWW-Authenticate", f'Basic realm="{signer.service}"'),))

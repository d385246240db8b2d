"""Token requests to docxy's own accounts (the distribution token specification, GET and POST).

The law: what is asked for and may not be had is left out, and no error; a wrong password,
or a refresh token that is not good, is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from docxy.errors import BadRequest, TooManyRequests, Unauthorized
from docxy.gate import credentials
from docxy.gate.audit import refused
from docxy.gate.htpasswd import HtpasswdFile
from docxy.gate.passwords import Passwords
from docxy.gate.rules import Rules
from docxy.gate.scopes import Readings, asked
from docxy.gate.tokens import LIFETIME, MAX_NAMES, Signer

_WHAT = "token"


@frozen
class _Account:
    """A user whose password was right, or its refresh token good."""

    user: str
    stored: str
    """The hash that this was seen by: when the file has changed meanwhile, the old one."""


@frozen
class TokenRequests:
    """Answers them."""

    rules: Rules
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
            # The token that there is stays the one: each new one would be good for longer.
            return self._issue(self._refreshed(given.get("refresh_token", ""), address), parameters, offline=False)
        if grant_type == "password":
            said = credentials.Password(given.get("username", ""), given.get("password", ""))
        elif post:
            raise BadRequest("grant_type is neither password nor refresh_token")
        if said is None:
            if not self.rules.anonymous:
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
        try:
            self.passwords.check_pause(address)
        except TooManyRequests as error:
            raise refused(error, None, address, _WHAT) from None
        grant = self.signer.read_refresh(token, self.clock.seconds())
        user = None if grant is None else grant.user
        accounts = self.file.accounts()
        if grant is not None and user is not None and self.signer.is_bound(grant, accounts):
            return _Account(user, accounts.hashes[user])
        self.passwords.failed(address, user or "")
        raise refused(_unauthorized("the login is not good any more; log in again", self.signer), user, address, _WHAT)

    def _issue(
        self, account: _Account | None, parameters: Sequence[tuple[str, str]], offline: bool
    ) -> dict[str, object]:
        now = self.clock.seconds()
        user, stored = (None, None) if account is None else (account.user, account.stored)
        names = [name for name in asked(parameters) if self.rules.may_any(user, self.readings(name))][:MAX_NAMES]
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

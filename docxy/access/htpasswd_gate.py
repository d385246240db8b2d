"""The gate with accounts.

The law: the gate checks the address of every request first, then the client's token or password.
It asks nobody else about either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request
from zope.interface import implementer

from docxy.access import credentials
from docxy.access.audit import refused
from docxy.access.htpasswd import HtpasswdFile
from docxy.access.interfaces import IGate
from docxy.access.open_gate import check_address, client_address, described
from docxy.access.passwords import Passwords
from docxy.access.scopes import written
from docxy.access.signer import Signer
from docxy.access.token_requests import TokenRequests
from docxy.addresses import Perimeter
from docxy.errors import Denied, RegistryError, TooManyRequests, Unauthorized
from docxy.settings.rules import Rules

_WRONG = "the user name or password is wrong"


@frozen
class _Visitor:
    """Who sent a request."""

    user: str | None
    names: frozenset[str] | None = None
    """The repositories that the token reaches; None without a token, which is no limit."""


@implementer(IGate)
@frozen
class HtpasswdGate:
    """Lets users of the htpasswd file pull what the rules let them."""

    perimeter: Callable[[], Perimeter]
    """The one in force; `rules`: those."""
    rules: Callable[[], Rules]
    file: HtpasswdFile
    passwords: Passwords
    signer: Signer
    tokens: TokenRequests
    clock: IReactorTime
    asks: bool = True

    def address(self, request: Request) -> str:
        return client_address(self.perimeter(), request)

    async def admit(self, request: Request, upstream: str, repository: str | None) -> None:
        what = described(upstream, repository)
        address = check_address(self.perimeter(), request, what)
        name = written(request.uri.decode("ascii", "replace"))
        said = credentials.of(request)
        visitor = await self._visitor(said, address, name, what)
        request.account = visitor.user  # type: ignore[attr-defined]  # for the access log; docxy's own request has it
        request.group = self.rules().group(visitor.user)  # type: ignore[attr-defined]  # for the ledger, as above
        request.floor = self.rules().floor(visitor.user)  # type: ignore[attr-defined]  # as above
        if repository is None:
            if said is None:
                raise self._login(name)
            return
        full = f"{upstream}/{repository}"
        if not self.rules().may(visitor.user, full):
            if said is None:
                raise self._login(name)
            denial: RegistryError = self._login(name)
            if visitor.user is not None:
                denial = Denied(f"the rules of this mirror do not let this user pull {full}")
            raise refused(denial, visitor.user, address, what)
        if visitor.names is not None and not visitor.names & {name, full}:
            short = self._login(name, "insufficient_scope", f"the token does not reach {full}")
            raise refused(short, visitor.user, address, what)

    async def pullable(self, request: Request, upstream: str, repositories: Sequence[str]) -> list[str]:
        visitor = await self._visitor(credentials.of(request), self.address(request), None, f"list {upstream}")
        request.account = visitor.user  # type: ignore[attr-defined]  # as in `admit`
        return [name for name in repositories if self.rules().may(visitor.user, f"{upstream}/{name}")]

    async def token(
        self, request: Request, parameters: Sequence[tuple[str, str]], post: bool
    ) -> dict[str, object] | None:
        address = check_address(self.perimeter(), request, "token")
        said = credentials.of(request)
        return await self.tokens.answer(said, parameters, post, address)

    async def _visitor(
        self,
        said: credentials.Credentials | None,
        address: str,
        name: str | None,
        what: str,
    ) -> _Visitor:
        """Who sent the request; raises Unauthorized or TooManyRequests."""
        if said is None:
            return _Visitor(None)
        if isinstance(said, credentials.Password):
            try:
                stored = await self.passwords.verify(address, said.user, said.password)
            except TooManyRequests as error:
                raise refused(error, said.user, address, what) from None
            if stored is None:
                raise refused(self._login(name, message=_WRONG), said.user, address, what)
            return _Visitor(said.user)
        grant = None
        if isinstance(said, credentials.Bearer):
            grant = self.signer.read(said.token, self.clock.seconds())
        if grant is None:
            bad = self._login(name, "invalid_token", "the token is not valid, or has expired")
            raise refused(bad, None, address, what)
        if not self.signer.is_bound(grant, self.file.accounts()):
            bad = self._login(name, "invalid_token", "the password has changed since the token was issued")
            raise refused(bad, grant.user, address, what)
        return _Visitor(grant.user, grant.names)

    def _login(
        self, name: str | None, error: str | None = None, message: str = "authentication is required"
    ) -> Unauthorized:
        """What asks a client to log in; `name`: as it wrote it."""
        challenge = f'Bearer realm="{self.signer.realm}",service="{self.signer.service}"'
        if name is not None:
            challenge += f',scope="repository:{name}:pull"'
        if error is not None:
            challenge += f',error="{error}"'
        return Unauthorized(message, headers=(("WWW-Authenticate", challenge),))

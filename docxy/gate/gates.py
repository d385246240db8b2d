"""The gate with accounts.

The law: whatever is asked, the address is looked at first; then this gate answers for every token and
password itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request
from zope.interface import implementer

from docxy.errors import Denied, RegistryError, TooManyRequests, Unauthorized
from docxy.gate import credentials
from docxy.gate.addresses import Perimeter
from docxy.gate.audit import refused
from docxy.gate.htpasswd import HtpasswdFile
from docxy.gate.interfaces import IGate
from docxy.gate.open import check_address, described
from docxy.gate.passwords import Passwords
from docxy.gate.rules import Rules
from docxy.gate.scopes import written
from docxy.gate.tokens import Signer
from docxy.gate.tokenservice import TokenRequests

_WRONG = "the user name or password is wrong"


@frozen
class _Visitor:
    """Who asks, once that is known."""

    user: str | None
    names: frozenset[str] | None = None
    """What the token reaches; None: there is no token, so no limit of one."""


@implementer(IGate)
@frozen
class HtpasswdGate:
    """Lets in who is in the htpasswd file, to what the rules say."""

    perimeter: Perimeter
    rules: Rules
    file: HtpasswdFile
    passwords: Passwords
    signer: Signer
    tokens: TokenRequests
    clock: IReactorTime
    asks: bool = True
    alike: bool = False

    def address(self, request: Request) -> str:
        return self.perimeter.address(request)

    async def admit(self, request: Request, upstream: str, repository: str | None) -> None:
        what = described(upstream, repository)
        address = check_address(self.perimeter, request, what)
        name = written(request.uri.decode("ascii", "replace"))
        said = credentials.of(request)
        visitor = await self._visitor(said, address, name, what)
        if repository is None:
            if said is None:
                raise self._login(name)
            return
        full = f"{upstream}/{repository}"
        if not self.rules.may(visitor.user, full):
            if said is None:
                raise self._login(name)
            denial: RegistryError = self._login(name)
            if visitor.user is not None:
                denial = Denied(f"{full} is not among what this user may pull")
            raise refused(denial, visitor.user, address, what)
        if visitor.names is not None and not visitor.names & {name, full}:
            short = self._login(name, "insufficient_scope", f"the token does not reach {full}")
            raise refused(short, visitor.user, address, what)

    async def pullable(self, request: Request, upstream: str, repositories: Sequence[str]) -> list[str]:
        visitor = await self._visitor(credentials.of(request), self.address(request), None, f"list {upstream}")
        return [name for name in repositories if self.rules.may(visitor.user, f"{upstream}/{name}")]

    async def token(
        self, request: Request, parameters: Sequence[tuple[str, str]], post: bool
    ) -> dict[str, object] | None:
        address = check_address(self.perimeter, request, "token")
        said = credentials.of(request)
        return await self.tokens.answer(said, parameters, post, address)

    async def _visitor(
        self,
        said: credentials.Credentials | None,
        address: str,
        name: str | None,
        what: str,
    ) -> _Visitor:
        """Who asks; raises Unauthorized or TooManyRequests."""
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
            bad = self._login(name, "invalid_token", "the token is not good, or not any more")
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

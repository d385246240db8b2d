"""Which client may read which repository in the cache.

The law: the upstream decides, for each credential and repository.  docxy keeps its verdict for
a short time; while the upstream cannot be asked, a verdict of the last hour serves.  Knowing a
digest grants no access.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from zope.interface import Interface, implementer

from docxy.catalog.interfaces import IHeld, ITokens, RelayedToken, UpstreamCatalog, is_recent
from docxy.catalog.secret import Secret
from docxy.errors import Denied, ManifestUnknown, TooManyRequests, Unauthorized, UpstreamError
from docxy.names import Digest, Reference
from docxy.pull.accept import read
from docxy.pull.caller import Caller
from docxy.pull.refusals import RecentRefusals
from docxy.pull.rights.offline_tokens import PUBLIC_FOR, OfflineTokens
from docxy.single_flight import SingleFlight
from docxy.upstream.remote import Remote

FRESH = 60.0
"""Seconds for which a verdict is not asked for again."""
LATELY = 3600.0
"""Seconds for which it serves while the upstream cannot be asked."""


class IRights(Interface):
    """Decides what a client may have from the cache."""

    async def caller(repository: str, authorization: str | None, accept: Sequence[str]) -> Caller:
        """Who asks for something of this repository.

        Raises Unauthorized when the client holds a token of docxy's own that does not reach the repository.
        """

    async def allow(
        repository: str, caller: Caller, reference: Reference | None = None, blob: Digest | None = None
    ) -> bool:
        """True: the client may read the repository; False: nothing is known that the upstream could be asked for.

        `reference`: a manifest whose HEAD is asked; `blob`: asked for when no manifest is known.  Raises what
        the upstream says.
        """

    async def allowed_lately(repository: str, caller: Caller) -> bool:
        """Whether the client may go on while the upstream cannot be asked."""

    async def granted(repository: str, caller: Caller) -> None:
        """The upstream just served something of this repository to this client."""

    async def refused(repository: str, caller: Caller) -> None:
        """The upstream just refused this client."""

    async def known(after: str, limit: int) -> list[str]:
        """Names of cached repositories that anybody may know of, sorted, behind `after`."""

    async def nameable(repositories: Sequence[str]) -> list[str]:
        """Those of some repositories that anybody may know of."""


@implementer(IRights)
@frozen
class OpenRights:
    """No-auth mode: what docxy's own credentials can read, clients can read."""

    held: IHeld

    async def caller(self, repository: str, authorization: str | None, accept: Sequence[str]) -> Caller:
        return Caller(authorization, credential="", cached_only=False, accept=read(accept))

    async def allow(
        self, repository: str, caller: Caller, reference: Reference | None = None, blob: Digest | None = None
    ) -> bool:
        return True

    async def allowed_lately(self, repository: str, caller: Caller) -> bool:
        return True

    async def granted(self, repository: str, caller: Caller) -> None:
        return

    async def refused(self, repository: str, caller: Caller) -> None:
        return

    async def known(self, after: str, limit: int) -> list[str]:
        return await self.held.repositories(after, limit, None)

    async def nameable(self, repositories: Sequence[str]) -> list[str]:
        return list(repositories)


@implementer(IRights)
class ClientRights:
    """Transparent mode: each client's own token decides.

    A token that docxy relayed has an owner: the account that asked for it, or an anonymous
    client.  What the upstream says of the token is kept for the owner too, for the
    repositories that the token was asked for.  The owner's verdict serves only while the
    upstream cannot be asked about the token itself.
    """

    def __init__(
        self,
        remote: Remote,
        known: UpstreamCatalog,
        tokens: ITokens,
        secret: Secret,
        offline_tokens: OfflineTokens,
        seconds: Callable[[], float],
    ) -> None:
        """`seconds`: the time since the epoch."""
        self._remote = remote
        self._held = known.held
        self._verdicts = known.verdicts
        self._tokens = tokens
        self._secret = secret
        self._offline_tokens = offline_tokens
        self._seconds = seconds
        self._asking: SingleFlight[tuple[str, str], bool] = SingleFlight()
        self._refusals: RecentRefusals[tuple[str, str]] = RecentRefusals(seconds)

    async def caller(self, repository: str, authorization: str | None, accept: Sequence[str]) -> Caller:
        reached = self._offline_tokens.read(authorization)
        if reached is not None and not (repository in reached and await self._offline_tokens.is_public(repository)):
            raise Unauthorized(f"this token does not reach {repository}")
        return Caller(authorization, self._secret.credential(authorization), reached is not None, read(accept))

    async def allow(
        self, repository: str, caller: Caller, reference: Reference | None = None, blob: Digest | None = None
    ) -> bool:
        if caller.cached_only or await self._is_allowed(repository, caller.credential, FRESH):
            return True
        key = (repository, caller.credential)
        try:
            self._refusals.check(key)
            return await self._asking.do(key, lambda: self._ask(repository, caller, reference, blob))
        except (UpstreamError, TooManyRequests):
            if not await self.allowed_lately(repository, caller):
                raise
            return True

    async def _ask(self, repository: str, caller: Caller, reference: Reference | None, blob: Digest | None) -> bool:
        try:
            known = None if reference is not None else await self._held.any_manifest(repository)
            if reference is not None:
                await self._remote.head_manifest(repository, reference, [], caller.authorization)
            elif known is None or not await self._has(repository, known, caller):
                if blob is None:
                    return False
                await self._remote.blob_size(repository, blob, caller.authorization)
                if known is not None:
                    # Only a client that may read the repository can show that a manifest is gone from it.
                    self._held.drop(repository, known)
        except (Unauthorized, Denied):
            await self.refused(repository, caller)
            raise
        except TooManyRequests as error:
            self._refusals.note((repository, caller.credential), error)
            raise
        await self.granted(repository, caller)
        return True

    async def _has(self, repository: str, known: Digest, caller: Caller) -> bool:
        """Whether a manifest that was there is still there, for this client."""
        try:
            await self._remote.head_manifest(repository, known, [], caller.authorization)
        except ManifestUnknown:
            return False
        return True

    async def _is_allowed(self, repository: str, credential: str, limit: float) -> bool:
        """Whether the upstream let this credential read this repository in the last `limit` seconds."""
        at = await self._verdicts.allowed_at(repository, credential)
        return at is not None and is_recent(at, self._seconds(), limit)

    async def allowed_lately(self, repository: str, caller: Caller) -> bool:
        if await self._is_allowed(repository, caller.credential, LATELY):
            return True
        token = await self._tokens.get(caller.credential)
        if token is None or repository not in token.repositories:
            return False
        return await self._is_allowed(repository, _owner_key(token), LATELY)

    async def granted(self, repository: str, caller: Caller) -> None:
        if await self._is_allowed(repository, caller.credential, FRESH / 2):
            return
        self._verdicts.allow(repository, caller.credential)
        token = await self._tokens.get(caller.credential)
        if token is not None:
            self._verdicts.allow(repository, _owner_key(token))
        if caller.authorization is None or (token is not None and not token.owner):
            self._verdicts.publish(repository)

    async def refused(self, repository: str, caller: Caller) -> None:
        self._verdicts.revoke(repository, caller.credential)
        token = await self._tokens.get(caller.credential)
        # A token that was asked for something else says nothing of its owner.
        if token is not None and repository in token.repositories:
            self._verdicts.revoke(repository, _owner_key(token))
            if not token.owner:
                self._verdicts.unpublish(repository)

    async def known(self, after: str, limit: int) -> list[str]:
        return await self._held.repositories(after, limit, self._seconds() - PUBLIC_FOR)

    async def nameable(self, repositories: Sequence[str]) -> list[str]:
        return [name for name in repositories if await self._offline_tokens.is_public(name)]


def _owner_key(token: RelayedToken) -> str:
    """The key under which verdicts of a token's owner are kept; no credential has it, as none is a hash of it."""
    return f"owner {token.owner}"

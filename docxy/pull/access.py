"""Which client may read which repository, when what it asks for is cached.

The law: the upstream decides, for each credential and repository.  Its verdict is kept for
a short time; while it cannot be asked, a verdict that is not much older serves.  That a
client knows a digest is never a reason.
"""

from __future__ import annotations

import hashlib

from attrs import frozen
from zope.interface import Interface, implementer

from docxy.errors import Denied, ManifestUnknown, TooManyRequests, Unauthorized, UpstreamError
from docxy.flight import SingleFlight
from docxy.names import Digest, Reference
from docxy.pull.limits import Limits
from docxy.pull.passes import PUBLIC_FOR, Passes
from docxy.storage.records import UpstreamCatalog
from docxy.upstream.remote import Remote

FRESH = 60.0
"""Seconds for which a verdict is not asked for again."""
LATELY = 3600.0
"""Seconds for which it serves while the upstream cannot be asked."""


class IAccess(Interface):
    """Decides what a client may have from the cache."""

    def credential(authorization: str | None) -> str:
        """What verdicts of this client are kept under; never the credential itself."""

    def cached_only(repository: str, authorization: str | None) -> bool:
        """Whether the client holds a pass of ours, with which the upstream can't be asked.

        Raises Unauthorized when the pass does not reach the repository.
        """

    async def allow(
        repository: str, reference: Reference | None, authorization: str | None, blob: Digest | None
    ) -> None:
        """Returns when the client may read the repository, else raises what the upstream says.

        `reference`: a manifest whose HEAD is asked; `blob`: asked for when no manifest is known.
        """

    def allowed_lately(repository: str, authorization: str | None) -> bool:
        """Whether the client may go on while the upstream cannot be asked."""

    def granted(repository: str, authorization: str | None) -> None:
        """The upstream just served something of this repository to this client."""

    def refused(repository: str, authorization: str | None) -> None:
        """The upstream just refused this client."""

    def known(after: str, limit: int) -> list[str]:
        """Names of cached repositories that anybody may know of, sorted, behind `after`."""


@implementer(IAccess)
@frozen
class OpenAccess:
    """No-auth mode: what docxy's own credentials can read, clients can read."""

    catalog: UpstreamCatalog

    def credential(self, authorization: str | None) -> str:
        return ""

    def cached_only(self, repository: str, authorization: str | None) -> bool:
        return False

    async def allow(
        self,
        repository: str,
        reference: Reference | None,
        authorization: str | None,
        blob: Digest | None,
    ) -> None:
        return

    def allowed_lately(self, repository: str, authorization: str | None) -> bool:
        return True

    def granted(self, repository: str, authorization: str | None) -> None:
        return

    def refused(self, repository: str, authorization: str | None) -> None:
        return

    def known(self, after: str, limit: int) -> list[str]:
        return self.catalog.repositories(after, limit, None)


def credential_of(authorization: str | None) -> str:
    """A credential's SHA-256, so that none is ever stored; `""` for none."""
    return "" if authorization is None else hashlib.sha256(authorization.encode("utf-8")).hexdigest()


@implementer(IAccess)
class ClientAccess:
    """Transparent mode: each client's own token decides."""

    def __init__(self, remote: Remote, catalog: UpstreamCatalog, passes: Passes) -> None:
        self._remote = remote
        self._catalog = catalog
        self._passes = passes
        self._asking: SingleFlight[tuple[str, str], None] = SingleFlight()
        self._limits: Limits[tuple[str, str]] = Limits(catalog.whole.seconds)

    def credential(self, authorization: str | None) -> str:
        return credential_of(authorization)

    def cached_only(self, repository: str, authorization: str | None) -> bool:
        reached = self._passes.read(authorization)
        if reached is None:
            return False
        if repository not in reached or not self._passes.is_public(self._catalog, repository):
            raise Unauthorized(f"this token does not reach {repository}")
        return True

    async def allow(
        self,
        repository: str,
        reference: Reference | None,
        authorization: str | None,
        blob: Digest | None,
    ) -> None:
        if self.cached_only(repository, authorization):
            return
        credential = credential_of(authorization)
        if self._age(repository, credential) < FRESH:
            return
        key = (repository, credential)
        try:
            self._limits.check(key)
            await self._asking.do(key, lambda: self._ask(repository, reference, authorization, blob))
        except (UpstreamError, TooManyRequests):
            if not self.allowed_lately(repository, authorization):
                raise

    async def _ask(
        self, repository: str, reference: Reference | None, authorization: str | None, blob: Digest | None
    ) -> None:
        try:
            known = None if reference is not None else self._catalog.any_manifest(repository)
            if reference is not None:
                await self._remote.head_manifest(repository, reference, [], authorization)
            elif known is None or not await self._has(repository, known, authorization):
                if blob is None:
                    return
                await self._remote.blob_size(repository, blob, authorization)
                if known is not None:
                    # Only who may read the repository can show that a manifest is gone from it.
                    self._catalog.drop(repository, known)
        except (Unauthorized, Denied):
            self.refused(repository, authorization)
            raise
        except TooManyRequests as error:
            self._limits.note((repository, self.credential(authorization)), error)
            raise
        self.granted(repository, authorization)

    async def _has(self, repository: str, known: Digest, authorization: str | None) -> bool:
        """Whether a manifest that was there is still, for this client."""
        try:
            await self._remote.head_manifest(repository, known, [], authorization)
        except ManifestUnknown:
            return False
        return True

    def _age(self, repository: str, credential: str) -> float:
        at = self._catalog.allowed_at(repository, credential)
        return float("inf") if at is None else self._catalog.whole.seconds() - at

    def allowed_lately(self, repository: str, authorization: str | None) -> bool:
        return self._age(repository, credential_of(authorization)) < LATELY

    def granted(self, repository: str, authorization: str | None) -> None:
        credential = credential_of(authorization)
        if self._age(repository, credential) >= FRESH / 2:
            self._catalog.allow(repository, credential)
            if authorization is None or self._catalog.whole.is_stranger(credential):
                self._catalog.publish(repository)

    def refused(self, repository: str, authorization: str | None) -> None:
        credential = credential_of(authorization)
        self._catalog.revoke(repository, credential)
        if authorization is not None and self._catalog.whole.is_stranger(credential):
            self._catalog.unpublish(repository)

    def known(self, after: str, limit: int) -> list[str]:
        return self._catalog.repositories(after, limit, self._catalog.whole.seconds() - PUBLIC_FOR)

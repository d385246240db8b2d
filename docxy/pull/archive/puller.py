"""One repository of an upstream, pulled by docxy itself for a client that cannot log in as docker does.

The law: a client gets what docker with the same login would get, and nothing else: where the upstream has a
token service, the login (or none) is exchanged there for a token of this one repository, and again when that token
has ended.  A token that the client brought is used as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import evolve

from docxy.errors import Unauthorized
from docxy.names import INDEX_TYPES, MANIFEST_TYPES, Digest, Reference
from docxy.pull.caller import Caller
from docxy.pull.interfaces import IPull, PulledBlob, PulledListing, PulledManifest
from docxy.ranges import Range

T = TypeVar("T")
_ACCEPT = (", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES)),)


class Puller:
    """Pulls from one repository."""

    def __init__(self, pull: IPull, repository: str, authorization: str | None, floor: float | None = None) -> None:
        """`authorization`: for the upstream; None: nobody in particular; `floor`: see `Caller`."""
        self.pull = pull
        self.repository = repository
        self._login = authorization
        self._exchanges = authorization is None or not authorization.lower().startswith("bearer ")
        self._floor = floor
        self._authorization: str | None = None

    async def manifest(self, reference: Reference) -> PulledManifest:
        """A manifest or index with its bytes."""
        return await self._do(lambda caller: self.pull.manifest(self.repository, reference, caller))

    async def blob(self, digest: Digest, asked: Range | None) -> PulledBlob:
        """A blob, or a range of it."""
        return await self._do(lambda caller: self.pull.blob(self.repository, digest, asked, caller))

    async def tags(self, query: str) -> PulledListing:
        """A page of the repository's tags."""
        return await self._do(lambda caller: self.pull.tags(self.repository, query, caller))

    async def _do(self, work: Callable[[Caller], Awaitable[T]]) -> T:
        """Work's outcome, with a new token where the one that is there is refused.  Raises RegistryError."""
        is_new = self._authorization is None
        try:
            return await work(await self._caller())
        except Unauthorized:
            if is_new or not self._exchanges:
                raise
        self._authorization = None
        return await work(await self._caller())

    async def _caller(self) -> Caller:
        if self._authorization is None:
            self._authorization = await self._exchanged() if self._exchanges else self._login
        caller = await self.pull.caller(self.repository, self._authorization, _ACCEPT)
        return caller if self._floor is None else evolve(caller, floor=self._floor)

    async def _exchanged(self) -> str | None:
        parameters = [("scope", f"repository:{self.repository}:pull")]
        token = (await self.pull.token(parameters, self._login, False))["token"]
        return f"Bearer {token}" if token else self._login

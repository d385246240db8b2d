"""An archive in memory that fails on request."""

from __future__ import annotations

import os

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from docxy.archive.interfaces import ArchiveError, Found, IArchive, Link
from docxy.bodies import IBody
from docxy.errors import UpstreamError
from docxy.names import Digest

_READ = 256 * 1024


@implementer(IBody)
@define
class _Body:
    data: bytes
    cut: bool

    async def read(self) -> bytes:
        data, self.data = self.data[:_READ], self.data[_READ:]
        if not data and self.cut:
            raise UpstreamError("the archive broke off")
        return data

    def close(self) -> None:
        self.data = b""


@implementer(IArchive)
@define(eq=False)
class MemoryArchive:
    """What several docxys of a test share."""

    name: str = "s3://memory"
    blobs: dict[Digest, bytes] = field(factory=dict)
    records: dict[str, bytes] = field(factory=dict)
    asked: list[str] = field(factory=list)
    """Requests, as `read sha256:…`."""
    failing: bool = False
    silent: bool = False
    """Whether no request is answered."""
    cut: int | None = None
    """Bytes after which a body breaks off."""
    refused: set[Digest] = field(factory=set)
    """Blobs that cannot be put."""
    held: list[Deferred[None]] | None = None
    """Each put waits for one that is added here; None: puts do not wait."""
    _waiting: list[Deferred[None]] = field(factory=list)
    _awaited: list[Deferred[None]] = field(factory=list)

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        if self.silent:
            await Deferred()
        if self.failing:
            raise ArchiveError(f"{self.name}: cannot {what}: 503")

    def next(self) -> Deferred[None]:
        """Fires when it is asked the next time."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def written(self) -> Deferred[None]:
        """Fires when the next record is there."""
        waiting: Deferred[None] = Deferred()
        self._awaited.append(waiting)
        return waiting

    async def put(self, digest: Digest, descriptor: int, size: int) -> bool:
        holding: Deferred[None] | None = None
        if self.held is not None:
            holding = Deferred()
            self.held.append(holding)
        await self._ask(f"put {digest}")
        if holding is not None:
            await holding
        if digest in self.refused:
            raise ArchiveError(f"{self.name}: cannot put {digest}: 403")
        if len(self.blobs.get(digest, b"")) == size:
            return False
        self.blobs[digest] = os.pread(descriptor, size, 0)
        return True

    async def open(self, digest: Digest, first: int) -> Found | None:
        await self._ask(f"read {digest}")
        data = self.blobs.get(digest)
        if data is None:
            return None
        return Found(len(data), _Body(data[first : self.cut], self.cut is not None))

    async def link(self, digest: Digest) -> Link | None:
        await self._ask(f"link {digest}")
        data = self.blobs.get(digest)
        return None if data is None else Link(len(data), f"https://bucket.test/{digest.hex}?signature=1")

    async def drop(self, digest: Digest) -> None:
        await self._ask(f"drop {digest}")
        self.blobs.pop(digest, None)

    async def put_record(self, name: str, data: bytes) -> None:
        await self._ask(f"write {name}")
        self.records[name] = data
        waiting, self._awaited = self._awaited, []
        for each in waiting:
            each.callback(None)

    async def record(self, name: str) -> bytes | None:
        await self._ask(f"record {name}")
        return self.records.get(name)

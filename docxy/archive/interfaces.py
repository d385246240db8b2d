"""What an archive must do: keep whole blobs by digest, and small records by name.

The law: *the archive knows bytes, not rights.*  Nothing is served because it is there: who may read a
repository, and what the repository has, is asked for on each node as without an archive.  Nor is it believed:
what comes from it is hashed like what comes from a registry.
"""

from __future__ import annotations

from attrs import field, frozen
from zope.interface import Attribute, Interface

from docxy.bodies import IBody
from docxy.names import Digest


class ArchiveError(Exception):
    """The archive did not do it; the message is for the operator, and holds no credential."""


@frozen
class Found:
    """A blob that the archive has."""

    size: int
    """Bytes of all of it."""
    body: IBody
    """The bytes from where it was opened; must be closed.  Not verified."""


@frozen
class Link:
    """Where clients can get a blob themselves."""

    size: int
    """Bytes of the blob."""
    url: str = field(repr=False)
    """It alone is enough to GET the blob, for `LINK_FOR` seconds."""


LINK_FOR = 300.0
"""Seconds."""


class IArchive(Interface):
    """Many nodes may use the same archive; the last to write a record wins."""

    name: str = Attribute("str: what the operator calls it, as `s3://bucket/prefix`.")

    async def put(digest: Digest, descriptor: int, size: int) -> bool:
        """Keep a verified blob, read from a descriptor of its file, at offsets; False: it is there already.

        Raises ArchiveError, and then nothing of it is there.
        """

    async def open(digest: Digest, first: int) -> Found | None:
        """A blob's bytes from `first` on, which is below its size; None when it is not there.

        Costs one request before the first byte.  Raises ArchiveError.
        """

    async def link(digest: Digest) -> Link | None:
        """Where clients can get a blob; None when it is not there.  Costs one request.  Raises ArchiveError."""

    async def drop(digest: Digest) -> None:
        """Remove a blob.  Raises ArchiveError."""

    async def put_record(name: str, data: bytes) -> None:
        """Keep a small record; `name`: path segments, as `tags/docker.io/library/alpine/latest`.

        Raises ArchiveError.
        """

    async def record(name: str) -> bytes | None:
        """A record; None when it is not there, or larger than any that docxy writes.  Raises ArchiveError."""

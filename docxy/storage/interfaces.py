"""What a place for blobs must do.  Every store passes `tests/storage/contract.py`.

The law of a store: *bytes are found under a digest only after they hashed to it.*
Until then they are a fill: owned by exactly one writer in all the processes that
share the store, readable by any number of readers as they arrive, but never to
the last byte.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from docxy.names import Digest


class StorageError(Exception):
    """The store cannot do its work (disk full, read-only, I/O error).

    Whoever pulls goes on without it; the message is for the operator and names the path.
    """


class NoSpace(StorageError):
    """The blob does not fit in the byte budget, or the disk is full."""


class BlobMissing(LookupError):
    """Neither a committed blob nor a fill in flight is there under this digest."""


class WriterBusy(Exception):
    """Another writer, in this process or another, owns this digest: open it and follow."""


class DigestMismatch(Exception):
    """The bytes written are not the ones the digest names; nothing of them was kept."""


class State(enum.Enum):
    """What a reader's bytes are at this moment."""

    FILLING = "filling"  # a writer is at work
    VERIFIED = "verified"  # every byte is there and hashed to the digest
    RELEASED = "released"  # the writer went away; what it wrote may be resumed by another
    CANCELLED = "cancelled"  # the bytes were withdrawn: they must not be completed


@frozen
class BlobStat:
    """What is known of a committed blob."""

    digest: Digest
    size: int
    """Bytes."""
    last_used: float
    """Seconds since the epoch."""


class IBlobReader(Interface):
    """Reads one blob, committed or being filled.  Must be closed."""

    digest: Digest = Attribute("Digest: what is being read.")
    size: int | None = Attribute("int | None: the whole blob in bytes; None until the writer announced it.")
    readable: int = Attribute(
        "int: how many bytes from the start may be handed to clients now. "
        "Below `size` by at least one until the state is VERIFIED."
    )
    state: State = Attribute("State: as of the last change.")

    async def read(offset: int, length: int) -> bytes:
        """From 1 to `length` bytes at `offset`; empty when `offset` is not below `readable`.

        Raises StorageError if the bytes cannot be read.
        """

    def changed() -> Deferred[None]:
        """Fires at the next change of `size`, `readable` or `state`.  May be cancelled.

        Never fires once the state is VERIFIED or CANCELLED, nor after `close`.
        """

    def fileno() -> int | None:
        """A descriptor whose first `readable` bytes are the blob's, for sendfile; None without one, or closed.

        Other readers share it: read at offsets only, and don't close it.
        """

    def close() -> None:
        """Stop reading; the blob may be evicted from now on.  May be called twice."""


class IBlobWriter(Interface):
    """Owns the fill of one digest until commit, cancel or release; each ends it."""

    digest: Digest = Attribute("Digest: what is being written.")
    offset: int = Attribute("int: bytes already there, from this writer or one that was interrupted.")
    size: int | None = Attribute("int | None: the size that was announced, now or before an interruption.")

    async def announce(size: int) -> None:
        """Say how large the blob is, and reserve that much of the budget.

        Evicts what is least recently used.  Raises NoSpace when there is no room, StorageError
        on I/O errors.  A size that differs from the one announced before an interruption
        discards what was kept and sets `offset` to 0.
        """

    async def write(data: bytes) -> None:
        """Append; returns when another piece is welcome.  One call at a time, after `announce`.

        Raises NoSpace or StorageError; the fill can then only be cancelled or released.
        Raises DigestMismatch when there are more bytes than announced; nothing is kept.
        """

    async def commit() -> None:
        """Verify size and digest, show readers the last byte, make it durable.

        Raises DigestMismatch or StorageError, and then nothing is kept.
        """

    async def cancel() -> None:
        """Withdraw the fill; nothing is kept.  Safe after any failure."""

    async def release() -> None:
        """Give up the fill but keep its bytes, for another writer to resume."""

    def open() -> IBlobReader:
        """A reader of what this writer writes."""


class IScratch(Interface):
    """Bytes without a name, beside the blobs; gone when they are closed, or with the process."""

    async def append(data: bytes) -> None:
        """Raises NoSpace, StorageError."""

    async def read(offset: int, length: int) -> bytes:
        """From 1 to `length` bytes at an offset below what was appended.  Raises StorageError."""

    def close() -> None:
        """May be called twice, and while one of the others is at work."""


class IBlobStore(Interface):
    """Blobs by digest, within a byte budget."""

    async def stat(digest: Digest) -> BlobStat | None:
        """A committed blob's facts; None when it is not there.  Does not count as a use."""

    def touch(digest: Digest) -> None:
        """A use, for eviction, of a blob whose bytes are also somewhere else."""

    async def open(digest: Digest) -> IBlobReader:
        """Read a committed blob, or a fill in flight in any process.

        A use, for eviction.  Raises BlobMissing, StorageError.  What an interrupted writer left is
        missing, too, until somebody resumes it.
        """

    async def write(digest: Digest) -> IBlobWriter:
        """Claim the fill of a digest, resuming what an interrupted writer left.

        Raises WriterBusy when it is owned or already committed, StorageError.
        """

    async def delete(digest: Digest) -> bool:
        """Drop a committed blob; whether it was there.  Readers that have it open are not disturbed."""

    async def scratch() -> IScratch:
        """Room for bytes of a blob whose fill they will be appended to, and whose size is announced.

        Raises StorageError.
        """

    def list() -> AsyncIterator[BlobStat]:
        """Every committed blob, in no particular order."""

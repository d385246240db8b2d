"""What a place for blobs must do.  Every store passes the contract of `tests/unit/storage`.

The law of a store: *bytes are found under a digest only after they hashed to it.*
Until then they are a fill: owned by exactly one writer in all the processes that
share the store, readable by any number of readers as they arrive, but never to
the last byte.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from docxy.names import Digest

if TYPE_CHECKING:
    from hashlib import _Hash


STEP = 8 << 20
"""Bytes for which a store makes room at a time, as a fill of a known size grows."""
UNSIZED_STEP = 256 << 10
"""The same where nobody knows the size: it may be small."""


class StorageError(Exception):
    """The store cannot do its work (disk full, read-only, I/O error).

    Pulls go on without it; the message is for the operator and names the path.
    """


class NoSpace(StorageError):
    """The blob does not fit in the byte budget, or the disk is full."""


class DiskFull(NoSpace):
    """The disk has no room, though the budget has."""


class DigestMismatch(Exception):
    """The bytes written are not the ones the digest names; nothing of them was kept."""


class State(enum.Enum):
    """What a reader's bytes are at this moment."""

    FILLING = "filling"  # a writer is at work
    STALLED = "stalled"  # a writer owns it, but its process stands still
    VERIFIED = "verified"  # every byte is there and hashed to the digest
    RELEASED = "released"  # the writer went away; what it wrote may be resumed by another
    WITHDRAWN = "withdrawn"  # the bytes are gone from the store, though nobody found them wrong
    WRONG = "wrong"  # the bytes are not those of the digest: they must never be completed


@frozen
class BlobStat:
    """What is known of a committed blob."""

    digest: Digest
    size: int
    """Bytes."""
    last_used: float
    """Seconds since the epoch."""


@frozen
class Counted:
    """A blob as the index counts it."""

    digest: Digest
    size: int
    """Bytes."""
    taken: int
    """Bytes of the disk."""
    last_used: float
    """Seconds since the epoch."""
    checked: float
    """When its bytes were last hashed; seconds since the epoch."""


class IBlobReader(Interface):
    """Reads one blob, committed or being filled.  Must be closed."""

    digest: Digest = Attribute("Digest: what is being read.")
    size: int | None = Attribute(
        "int | None: the whole blob in bytes; None until the writer announced it, which may be never, or committed."
    )
    readable: int = Attribute(
        "int: how many bytes from the start may be handed to clients now. "
        "At least one less than are written, until the state is VERIFIED."
    )
    state: State = Attribute("State: as of the last change.")

    async def read(offset: int, length: int) -> bytes:
        """From 1 to `length` bytes at `offset`; empty when `offset` is not below `readable`.

        Raises StorageError if the bytes cannot be read.
        """

    def changed() -> Deferred[None]:
        """Fires at the next change of `size`, `readable` or `state`.  May be cancelled.

        Never fires once the state is VERIFIED, WITHDRAWN or WRONG, nor after `close`.
        """

    def fileno() -> int | None:
        """A descriptor whose first `readable` bytes are the blob's, for sendfile; None without one, or closed.

        Other readers share it: read at offsets only, and don't close it.
        """

    async def hashed(count: int) -> _Hash:
        """The hash of the first `count` bytes, which must be readable.  Raises StorageError."""

    def same(other: IBlobReader) -> bool:
        """Whether the other reads the very same file or fill, not only the same digest."""

    def again() -> IBlobReader:
        """Another reader of the same bytes, to be closed by itself.  Not after `close`."""

    def close() -> None:
        """Stop reading; the blob may be evicted from now on.  May be called twice."""


class IBlobWriter(Interface):
    """Owns the fill of one digest until commit, cancel, reject or release; each ends it."""

    digest: Digest = Attribute("Digest: what is being written.")
    offset: int = Attribute("int: bytes already there, from this writer or one that was interrupted.")
    size: int | None = Attribute("int | None: the size that was announced, now or before an interruption.")

    async def announce(size: int) -> None:
        """Say how large the blob is, where that is known; before the first `write`.

        Raises NoSpace when there cannot be room for all of it; nothing is evicted for more than its
        first bytes.  Raises StorageError on I/O errors.  A size that differs from the one announced
        before an interruption discards what was kept and sets `offset` to 0.
        """

    async def write(data: bytes) -> None:
        """Append; returns when another piece is welcome.  One call at a time.

        Evicts what is least recently used, as bytes come.  Raises NoSpace or StorageError; the fill
        can then only be cancelled or released.  Raises DigestMismatch when there are more bytes
        than announced; nothing is kept.
        """

    async def commit() -> None:
        """Verify size and digest, show readers the last byte, make it durable.

        Raises DigestMismatch or StorageError, and then nothing is kept.
        """

    async def discard() -> None:
        """Throw away what was kept, and go on with `offset` 0 and no size.

        Who reads it finds it WITHDRAWN: of another size than it was said to be is not yet wrong.
        Raises StorageError.
        """

    async def cancel() -> None:
        """Withdraw the fill; nothing is kept.  Safe after any failure."""

    async def reject() -> None:
        """As `cancel`, because the bytes are wrong: who reads them must never complete them."""

    async def release() -> None:
        """Give up the fill but keep its bytes, for another writer to resume; without any, as `cancel`."""

    def open() -> IBlobReader:
        """A reader of what this writer writes."""


PINNED_SHARE = 0.5
"""The part of the budget that may be pinned: the rest is left for what clients pull."""


@frozen
class Pinned:
    """What came of a wish to keep blobs; bytes on the disk."""

    kept: int
    """Bytes that are not evicted."""
    wanted: int
    """Bytes of all that should be kept and is here; more than `kept` where that is more than a share of the budget."""


@frozen
class Joined:
    """What `IBlobStore.join` gives: the blob's bytes and, where nobody else fills them, the fill."""

    reader: IBlobReader
    """Must be closed."""
    writer: IBlobWriter | None
    """Ours to fill and to end; None: the blob is committed, or somebody else fills it."""


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

    def remember(digest: Digest, until: float, parts: Sequence[Digest]) -> None:
        """A tag led to this manifest: until then (seconds since the epoch) it and what it names go after all else.

        Within a share of the budget; see `docxy.storage.remembered`.
        """

    def belongs(digest: Digest, parts: Sequence[Digest]) -> None:
        """A manifest names these, which are remembered as long as it is, if it is."""

    async def open(digest: Digest) -> IBlobReader | None:
        """Read a committed blob, or a fill in flight in any process; None when there is neither.

        A use, for eviction.  Raises StorageError.  What an interrupted writer left is not there
        until somebody resumes it.
        """

    async def join(digest: Digest) -> Joined:
        """Read a blob wherever it is in its life; own its fill if nobody does.

        One step for all processes: of those who join at the same moment one gets the writer.
        It resumes what an interrupted writer left.  A use, for eviction.  Raises StorageError.
        """

    async def pin(digests: Sequence[Digest]) -> Pinned:
        """Evict none of these, whether or not they are here yet; what was pinned before is no more.

        In their order, as long as all of them are within PINNED_SHARE of the budget.  Raises StorageError.
        """

    async def delete(digest: Digest) -> bool:
        """Drop a committed blob; whether it was there.  Readers that have it open are not disturbed."""

    async def scratch() -> IScratch:
        """Room for bytes of a blob whose fill they will be appended to, and whose size is announced.

        Raises StorageError.
        """

    def list() -> AsyncIterator[BlobStat]:
        """Every committed blob, in no particular order."""

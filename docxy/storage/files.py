"""What is done to the files of blobs.  Everything here blocks, and is called in threads.

The law of ownership: *who holds the exclusive flock of an incoming file owns that fill.*  The
kernel frees it when the process dies, however it dies.  Whoever reads a committed blob holds
a shared flock of it, so that whoever wants to evict it fails to get the exclusive one.  A lock
counts only while the path still names the file that was locked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import frozen

from docxy.names import Digest
from docxy.storage.interfaces import NoSpace, StorageError, WriterBusy
from docxy.storage.paths import Tree

if TYPE_CHECKING:
    from hashlib import _Hash

PIECE = 1 << 20
"""Bytes read at once for hashing: large enough that the interpreter's lock is rarely taken."""

_ATTEMPTS = 20
_PAUSE = 0.005
"""Seconds.  Who follows or evicts a fill locks it for microseconds to see whether it is owned; a
claim that meets such a lock must not take it for an owner's."""

_IOV = 512


@contextmanager
def explained(doing: str, path: str) -> Iterator[None]:
    """An OSError as what a store raises: NoSpace or StorageError, with the path."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (NoSpace if full else StorageError)(f"cannot {doing} {path}: {error.strerror}") from error


def try_lock(descriptor: int, how: int) -> bool:
    """Take a flock (LOCK_SH or LOCK_EX) if nobody stands in the way."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def names(path: str, found: os.stat_result) -> bool:
    """Whether the path is that of this very file."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)


@frozen
class Claim:
    """A fill that is ours, until `owner` is closed."""

    owner: int
    """Descriptor that holds the lock and is written to."""
    view: int
    """Descriptor to read from; it never holds the owner's lock."""
    kept: int
    """Bytes an interrupted writer left."""
    size: int | None
    """The size that writer announced."""


def claim(tree: Tree, digest: Digest, announced: Callable[[Digest], int | None]) -> Claim:
    """Own the fill of a digest.  Raises WriterBusy, StorageError.

    `announced` tells the size that is reserved for it.  Kept bytes for which nothing is
    reserved are thrown away: nobody counted them.
    """
    path = tree.incoming(digest)
    with explained("fill", path):
        for _ in range(_ATTEMPTS):
            if os.path.exists(tree.blob(digest)):
                raise WriterBusy(f"{digest} is committed")
            owner = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
            try:
                claimed = _claimed(tree, digest, owner, announced)
            except BaseException:
                os.close(owner)
                raise
            if claimed is not None:
                return claimed
            os.close(owner)
            time.sleep(_PAUSE)
    raise WriterBusy(f"{digest} is being written")


def _claimed(tree: Tree, digest: Digest, owner: int, announced: Callable[[Digest], int | None]) -> Claim | None:
    path = tree.incoming(digest)
    if not try_lock(owner, fcntl.LOCK_EX):
        return None
    found = os.fstat(owner)
    if not names(path, found):
        return None
    # Only now: a former owner renames before it lets go.
    if os.path.exists(tree.blob(digest)):
        os.unlink(path)
        raise WriterBusy(f"{digest} is committed")
    size = announced(digest)
    if found.st_size > (size or 0):
        os.unlink(path)
        return None
    return Claim(owner, os.open(path, os.O_RDONLY), found.st_size, size)


def append(owner: int, pieces: Sequence[bytes], offset: int) -> int:
    """Write the pieces; how many bytes they are."""
    total = 0
    for start in range(0, len(pieces), _IOV):
        some = pieces[start : start + _IOV]
        wanted = sum(map(len, some))
        wrote = os.pwritev(owner, some, offset + total)
        if wrote < wanted:  # the disk is filling up: the rest tells why
            rest = memoryview(b"".join(some))[wrote:]
            while rest:
                rest = rest[os.pwrite(owner, rest, offset + total + wanted - len(rest)) :]
        total += wanted
    return total


def joined(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """Small pieces as one: each write and hash of its own would fight for the interpreter's lock."""
    if len(pieces) > 1 and sum(map(len, pieces)) < len(pieces) * (32 << 10):
        return [b"".join(pieces)]
    return pieces


def hash_range(descriptor: int, start: int, end: int, hasher: _Hash) -> int:
    """Hash the file's bytes from `start` up to `end`; where they ended, if sooner."""
    buffer = memoryview(bytearray(min(PIECE, max(end - start, 1))))
    while start < end:
        got = os.preadv(descriptor, [buffer[: min(len(buffer), end - start)]], start)
        if not got:
            break
        hasher.update(buffer[:got])
        start += got
    return start


def publish(tree: Tree, digest: Digest, owner: int, view: int) -> None:
    """Make a verified fill durable under its digest; `view` then holds the shared lock.

    The bytes reach the disk before the name does, and the name before we say so.
    """
    path = tree.blob(digest)
    shard = os.path.dirname(path)
    with explained("commit", path):
        os.fsync(owner)
        try:
            os.mkdir(shard, 0o750)
        except FileExistsError:
            pass
        else:
            _sync_directory(os.path.dirname(shard))
        os.rename(tree.incoming(digest), path)
        _sync_directory(shard)
        # Shared, no longer exclusive: whoever opens the blob now may read it.
        fcntl.flock(owner, fcntl.LOCK_SH)
        fcntl.flock(view, fcntl.LOCK_SH)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def restart(tree: Tree, digest: Digest) -> Claim:
    """Replace our own fill by an empty one.  Raises OSError.

    A new file, not a truncated one: who read the old bytes must never go on with new ones.
    """
    path = tree.incoming(digest)
    fresh = f"{path}.new"
    owner = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX)
        os.rename(fresh, path)
        return Claim(owner, os.open(path, os.O_RDONLY), 0, None)
    except BaseException:
        os.close(owner)
        raise


def evictable(tree: Tree, digest: Digest, *, remove: bool) -> bool:
    """Whether nobody reads or writes this blob or fill; with `remove`, it is then gone.

    Looks at the fill first: one that is committed meanwhile is met again under its final path.
    """
    for path in (tree.incoming(digest), tree.blob(digest)):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            if not try_lock(descriptor, fcntl.LOCK_EX) or not names(path, os.fstat(descriptor)):
                return False
            if remove:
                os.unlink(path)
        finally:
            os.close(descriptor)
    return True


def unlink(path: str) -> bool:
    """Remove a file; whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True

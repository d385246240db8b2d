"""The file of a blob through its life: claimed, committed, evicted.  Everything here blocks, and is called in threads.

The law of ownership: *who holds the exclusive flock of an incoming file owns that fill.*  The
kernel frees it when the process dies, however it dies.  A reader of a committed blob holds
a shared flock of it, so that an eviction fails to get the exclusive one.  A lock
counts only while the path still names the file that was locked.  How a fill is held that
somebody else owns, and what its file says when it loses its name: `docxy.storage.holds`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from docxy.names import Digest
from docxy.storage import disk, holds
from docxy.storage.paths import DIRECTORY_MODE, FILE_MODE, Tree

if TYPE_CHECKING:
    pass

_LOOKS = 8
_PAUSE = 0.005
"""Seconds between two looks."""


def try_lock(descriptor: int, how: int) -> bool:
    """Take a flock (LOCK_SH or LOCK_EX) if nobody stands in the way."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def must_lock(path: str) -> None:
    """Raises OSError where files cannot be locked: no two processes could share them."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        if try_lock(descriptor, fcntl.LOCK_SH):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


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
    """Bytes an interrupted writer left that can be trusted."""
    size: int | None
    """The size that writer announced."""


@frozen
class FoundBlob:
    """A blob that is committed, or that somebody else fills."""

    view: int
    """Descriptor to read from; holds the shared lock of a committed blob."""
    size: int | None
    """Of a committed one."""


class IKept(Protocol):
    """See `docxy.storage.index.KeptFill`."""

    @property
    def size(self) -> int | None: ...

    @property
    def trusted(self) -> int: ...


def join(tree: Tree, digest: Digest, kept: Callable[[Digest], IKept]) -> Claim | FoundBlob:
    """Find a blob wherever it is in its life, or own its fill.  Raises StorageError.

    `kept` says what is known of an interrupted fill; bytes that are not to be trusted are thrown away.

    This is the only place that looks again.  A fill has two names in its life, and between two
    looks at them it may be renamed, evicted or withdrawn; and one that follows or evicts a fill
    locks it for microseconds to see whether it is owned, which must not be taken for an owner.
    """
    path = tree.incoming(digest)
    with disk.explained("fill", path):
        for attempt in range(_LOOKS):
            if attempt:
                time.sleep(_PAUSE)
            committed = open_committed(tree, digest)
            if committed is not None:
                return _found(committed)
            try:
                owner = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
            except FileNotFoundError:
                tree.create()  # somebody removed the directory, and may have made it again
                continue
            except PermissionError:
                os.unlink(path)  # found wrong, or not written by us: of no use in either case
                continue
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EISDIR):
                    raise
                disk.remove_anything(path)  # a link or a directory
                continue
            try:
                claimed = _claimed(tree, digest, owner, kept)
            except BaseException:
                os.close(owner)
                raise
            if claimed is not None:
                return claimed
            os.close(owner)
        return FoundBlob(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), None)


def _found(committed: int) -> FoundBlob:
    try:
        return FoundBlob(committed, os.fstat(committed).st_size)
    except OSError:
        os.close(committed)
        raise


def open_committed(tree: Tree, digest: Digest, *, wait: bool = True) -> int | None:
    """A descriptor of a committed blob that holds its shared lock; None when there is none.

    What is not a plain file is no blob: it is removed.  Raises BlockingIOError, if not to `wait` for
    the lock, and OSError.
    """
    path = tree.blob(digest)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        os.unlink(path)
        return None
    try:
        # Somebody may be evicting it, or just gave it this name: either takes a moment.
        fcntl.flock(descriptor, fcntl.LOCK_SH | (0 if wait else fcntl.LOCK_NB))
        found = os.fstat(descriptor)
        if found.st_nlink and stat.S_ISREG(found.st_mode):
            return descriptor
        if found.st_nlink:
            disk.remove_anything(path)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _claimed(tree: Tree, digest: Digest, owner: int, kept: Callable[[Digest], IKept]) -> Claim | None:
    path = tree.incoming(digest)
    if not try_lock(owner, fcntl.LOCK_EX):
        return None
    found = os.fstat(owner)
    if not names(path, found):
        return None
    if not stat.S_ISREG(found.st_mode):
        os.unlink(path)  # a pipe would never be read
        return None
    # Only now: a former owner renames before it lets go.
    if os.path.lexists(tree.blob(digest)) or holds.mark(found) is not None:
        os.unlink(path)
        return None
    known = kept(digest)
    there = min(found.st_size, known.trusted)
    if there > (found.st_size if known.size is None else known.size):
        os.unlink(path)
        return None
    if there < found.st_size:
        os.ftruncate(owner, there)
    return Claim(owner, os.open(path, os.O_RDONLY), there, known.size)


def publish(tree: Tree, digest: Digest, owner: int, view: int) -> None:
    """Make a verified fill durable under its digest; `view` then holds the shared lock.

    The bytes reach the disk before the name does, and the name before we say so.
    """
    path = tree.blob(digest)
    shard = os.path.dirname(path)
    with disk.explained("commit", path):
        os.fsync(owner)
        _make_shard(tree, shard)
        os.rename(tree.incoming(digest), path)
        disk.sync_directory(shard)
        # Shared, no longer exclusive: readers may open the blob from now on.
        fcntl.flock(owner, fcntl.LOCK_SH)
        fcntl.flock(view, fcntl.LOCK_SH)


def _make_shard(tree: Tree, shard: str) -> None:
    try:
        os.mkdir(shard, DIRECTORY_MODE)
    except FileExistsError:
        return
    except FileNotFoundError:  # somebody removed the directory
        tree.create()
        os.mkdir(shard, DIRECTORY_MODE)
    disk.sync_directory(os.path.dirname(shard))


def restart(tree: Tree, digest: Digest) -> Claim:
    """Replace our own fill by an empty one.  Raises OSError.

    A new file, not a truncated one: who read the old bytes must never go on with new ones.
    """
    path = tree.incoming(digest)
    fresh = f"{path}.new"
    owner = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX)
        os.rename(fresh, path)
        return Claim(owner, os.open(path, os.O_RDONLY), 0, None)
    except BaseException:
        os.close(owner)
        raise


def evictable(tree: Tree, digest: Digest) -> bool:
    """Whether nobody reads or writes this blob or fill; so is one that is not there."""
    return all(_free(path, None) is not None for path in _both(tree, digest))


def evict(tree: Tree, digest: Digest) -> int:
    """Remove a blob or fill that nobody reads or writes; the bytes of the disk that this frees."""
    incoming, committed = _both(tree, digest)
    return (_free(incoming, holds.GONE) or 0) + (_free(committed, holds.VERIFIED) or 0)


def _both(tree: Tree, digest: Digest) -> tuple[str, str]:
    """The fill first: one that is committed meanwhile is met again under its final path."""
    return tree.incoming(digest), tree.blob(digest)


def _free(path: str, mark: int | None) -> int | None:
    """None when somebody uses the file.  With a mark, it is removed: bytes on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return 0
    except OSError:  # not written by docxy, and of no use
        if mark is not None:
            disk.remove_anything(path)
        return 0
    try:
        found = os.fstat(descriptor)
        if not try_lock(descriptor, fcntl.LOCK_EX) or holds.held(descriptor) or not names(path, found):
            return None
        if mark is not None:
            holds.put_mark(descriptor, mark)
            disk.remove_anything(path)
        return found.st_blocks * 512
    finally:
        os.close(descriptor)


def drop_fill(tree: Tree, digest: Digest) -> int | None:
    """Remove a fill that nobody owns; the length so far of one that somebody does."""
    path = tree.incoming(digest)
    with suppress(FileNotFoundError):
        found = os.stat(path)
        if _free(path, holds.GONE) is None:
            return found.st_size
    return None

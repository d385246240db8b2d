"""What any file needs: errors that name it, its bytes on the disk, whole writes, hashes.  Everything here blocks.

The law: an OSError leaves here as it is; `explained` makes of it what a store raises.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from docxy.storage.interfaces import DiskFull, StorageError

if TYPE_CHECKING:
    from hashlib import _Hash

PIECE = 1 << 20
"""Bytes read at once for hashing: large enough that the interpreter's lock is rarely taken."""
BLOCK = 4096
"""Bytes by which files grow on the disk."""
_IOV = 512
"""Pieces of one write."""


@contextmanager
def explained(doing: str, path: str) -> Iterator[None]:
    """An OSError as what a store raises: DiskFull or StorageError, with the path."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (DiskFull if full else StorageError)(f"cannot {doing} {path}: {error.strerror}") from error


@cache
def boot() -> str:
    """Which run of the machine this is: what was written in another one and not synced may be lost.

    Empty where that cannot be known.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def rounded(size: int) -> int:
    """Bytes on the disk of a file of this size."""
    return -(-size // BLOCK) * BLOCK


def on_disk(found: os.stat_result) -> int:
    """Bytes that a file takes on the disk, at least those that a full one of its size does."""
    return max(found.st_blocks * 512, rounded(found.st_size))


def remove_anything(path: str) -> None:
    """Remove what stands in the place of a blob or a fill; an empty directory, too."""
    try:
        os.unlink(path)
    except IsADirectoryError:
        os.rmdir(path)


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


def sync_directory(path: str) -> None:
    """Make the names in a directory durable.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink(path: str) -> bool:
    """Remove a file; whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def close(descriptor: int | None) -> None:
    """Close a descriptor, where there is one."""
    if descriptor is not None:
        os.close(descriptor)

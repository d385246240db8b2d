"""How a file of a fill is held by those who follow it, and what it says once it has lost its name.

The law: *what any process reads is held.*  The owner of a fill has the exclusive flock of
its file, so those who follow it cannot have a shared one.  They hold a lock on its first byte
instead (an "open file description" lock, which like flock belongs to the descriptor); it stays
theirs across the commit, and an eviction sees it.

A file that loses its name is marked before that, by its permissions, for those who have it open in
another process: whether its bytes were verified, or found wrong.  Where the file system knows no
such locks nothing is held, but the marks still say what became of the bytes.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress

VERIFIED = 0o400
"""The mark of bytes that hashed to their digest."""
WRONG = 0o000
"""The mark of bytes that are not those of the digest."""
GONE = 0o600
"""No mark: the bytes were given up before anybody knew."""

_FLOCK = "hhqqi0q"
"""`struct flock`: type, whence, start, length, pid."""


def _lock(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 1, 0)


def hold(descriptor: int) -> None:
    """Keep the file from being evicted until this descriptor is closed, where that is possible."""
    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is not None:
        with suppress(OSError):  # not on this file system
            fcntl.fcntl(descriptor, command, _lock(fcntl.F_RDLCK))


def held(descriptor: int) -> bool:
    """Whether somebody else holds the file."""
    command = getattr(fcntl, "F_OFD_GETLK", None)
    if command is None:
        return False
    try:
        answer = fcntl.fcntl(descriptor, command, _lock(fcntl.F_WRLCK))
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def put_mark(descriptor: int, mark: int) -> None:
    """Mark a file that is about to lose its name.  Raises OSError."""
    if mark != GONE:
        os.fchmod(descriptor, mark)


def mark(found: os.stat_result) -> int | None:
    """VERIFIED, WRONG, or None."""
    mode = found.st_mode & 0o777
    return mode if mode in (VERIFIED, WRONG) else None

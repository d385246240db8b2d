"""Reads of files that wait for no disk.

The law: `read_in_memory` gives what memory has, or raises.  The kernel tells by RWF_NOWAIT (preadv2(2)).  tmpfs
knows no such flag, for all that it has is memory: it is read without.
"""

from __future__ import annotations

import errno
import os
from functools import lru_cache

NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
"""0 where the kernel cannot tell what is in memory: nothing may be read here then."""
_MOUNTS = "/proc/self/mountinfo"


def read_in_memory(descriptor: int, buffer: bytearray | memoryview, offset: int) -> int:
    """Fill a buffer as far as memory has the file's bytes from `offset` on; their number, 0 at the file's end.

    Raises BlockingIOError when the first of them is on the disk only, OSError when this file system cannot tell.
    """
    try:
        return os.preadv(descriptor, [buffer], offset, NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP or not _is_memory(os.fstat(descriptor).st_dev):
            raise
    return os.preadv(descriptor, [buffer], offset)


@lru_cache(maxsize=64)
def _is_memory(device: int) -> bool:
    """Whether a mounted device is a tmpfs; the form of the file is proc_pid_mountinfo(5)'s."""
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(_MOUNTS, encoding="utf-8", errors="replace") as mounts:
            rows = [line.partition(" - ") for line in mounts]
    except OSError:
        return False
    return any(head.split()[2:3] == [name] and tail.split()[:1] == ["tmpfs"] for head, _, tail in rows)

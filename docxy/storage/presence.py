"""Whether a docxy serves from a cache: a shared lock on a file, held by each process that does.

The law: the lock dies with its process, and never keeps a docxy from starting.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from docxy.storage import disk, files
from docxy.storage.paths import FILE_MODE, Tree


class Presence:
    """This process serves from the cache, until `close`."""

    def __init__(self, tree: Tree) -> None:
        """Does without the lock where it cannot be had."""
        self._descriptor: int | None = None
        with suppress(OSError):
            self._descriptor = os.open(tree.presence, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            files.try_lock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """May be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        disk.close(descriptor)


def is_used(tree: Tree) -> bool:
    """Whether a docxy serves from the cache at this moment.  Raises OSError."""
    try:
        descriptor = os.open(tree.presence, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not files.try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)

"""Hashing a committed blob again, piece by piece.  All but `run` blocks, and is called in threads.

The law: what is hashed comes from the disk.  Pages that are cached are dropped first as far as
the kernel lets go of them, and the blob is not evicted meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Awaitable, Callable

from docxy.names import Digest
from docxy.storage import disk
from docxy.threads import InThread, shielded

PIECE = 32 << 20
"""Bytes hashed between two pauses."""


class Check:
    """One pass over one blob.  Raises OSError when it cannot be opened; must be closed."""

    def __init__(self, digest: Digest, path: str) -> None:
        self._digest = digest
        self._hasher = digest.hasher()
        self._position = 0
        self.passed = False
        self.why = ""
        """What is wrong with it."""
        self._lock = threading.Lock()
        self._descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def go_on(self) -> bool:
        """Hash another piece; whether there is more."""
        with self._lock:
            return self._go_on()

    def _go_on(self) -> bool:
        start, end = self._position, self._position + PIECE
        try:
            os.posix_fadvise(self._descriptor, start, PIECE, os.POSIX_FADV_DONTNEED)
            self._position = disk.hash_range(self._descriptor, start, end, self._hasher)
        except OSError as error:
            self.why = f"cannot be read at byte {self._position}: {error.strerror}"
            return False
        if self._position == end:
            return True
        self.passed = self._digest.matches(self._hasher)
        if not self.passed:
            self.why = f"its {self._position} bytes hash to {self._digest.algorithm}:{self._hasher.hexdigest()}"
        return False

    def close(self) -> None:
        """Waits for the piece that a thread hashes."""
        with self._lock:
            os.close(self._descriptor)


def is_right(digest: Digest, descriptor: int, size: int) -> bool:
    """Whether the first `size` bytes of a file hash to the digest.  Raises OSError."""
    hasher = digest.hasher()
    return disk.hash_range(descriptor, 0, size, hasher) == size and digest.matches(hasher)


async def run(
    digest: Digest, path: str, in_thread: InThread, pause: Callable[[], Awaitable[None]] | None
) -> Check | None:
    """A whole check of a committed blob, closed; None when it is not there.

    `pause` is awaited between pieces.  Raises StorageError when the file cannot be opened.
    """

    async def begin() -> Check | None:
        with disk.explained("check", path):
            try:
                return await in_thread(Check, digest, path)
            except FileNotFoundError:
                return None

    check = await shielded(begin(), abandoned=lambda begun: begun.close() if begun else None)
    if check is None:
        return None
    try:
        while await in_thread(check.go_on):
            if pause is not None:
                await pause()
    finally:
        # Waits for the piece that a thread may be at.
        await shielded(_closed(check, in_thread))
    return check


async def _closed(check: Check, in_thread: InThread) -> None:
    await in_thread(check.close)

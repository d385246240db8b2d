"""Hashing a committed blob again, piece by piece.  Everything here blocks, and is called in threads.

The law: what is hashed comes from the disk.  Pages that are cached are dropped first as far as
the kernel lets go of them, and the blob is not evicted meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import threading

from docxy.names import Digest
from docxy.storage import files

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
            self._position = files.hash_range(self._descriptor, start, end, self._hasher)
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
        with self._lock:
            os.close(self._descriptor)

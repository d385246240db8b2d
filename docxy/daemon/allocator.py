"""What the C library does with the memory of a piece that was passed on.

The law: it keeps it for the next piece.  By itself, glibc gives a megabyte at the end of its heap
back to the kernel and takes it anew for the next one, page by page, for up to a third of the
processor time of a download.  Where there is no glibc all goes on as it is.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""See mallopt(3)."""
KEPT = 16 * 1024 * 1024
"""Bytes of free memory that are kept at most."""
LARGEST = 8 * 1024 * 1024
"""Bytes of a piece above which memory comes from the kernel and goes back to it."""


def keep_memory() -> None:
    """For the whole process, from now on."""
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, LARGEST)


def give_back() -> None:
    """Give back what is free now: what starting needed, say, and serving does not."""
    gc.collect()
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)

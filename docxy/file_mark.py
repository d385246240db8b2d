"""Whether a file is still the one that was read.

Pure but for one `stat`.  The law: two marks of a path are equal as long as nobody has written or replaced the file.
"""

from __future__ import annotations

import os

Mark = tuple[int, int, int, int]
"""Device, inode, bytes, and the time of the last write in nanoseconds."""


def mark(path: str) -> Mark | None:
    """The file's mark; None if there is no file, or it cannot be seen.  Raises nothing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

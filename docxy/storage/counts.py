"""What the upkeep of a cache did, for the metrics.

The law: it only counts; threads may count at the same time.
"""

from __future__ import annotations

from threading import Lock


class Counts:
    """Of this process, since its start."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.evicted = 0
        """Blobs, and parts of blobs."""
        self.evicted_bytes = 0
        self.sound = 0
        """Blobs that were hashed again and are what they should be."""
        self.damaged = 0
        """Blobs that were hashed again, were not, and were deleted."""

    def evict(self, size: int) -> None:
        """A blob went to make room, which freed `size` bytes."""
        with self._lock:
            self.evicted += 1
            self.evicted_bytes += size

    def scrub(self, sound: bool) -> None:
        """A blob was hashed again."""
        with self._lock:
            self.sound += sound
            self.damaged += not sound

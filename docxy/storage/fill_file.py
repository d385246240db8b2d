"""The threads' side of a fill: its file, and the hash of what is in it.

The law: what is hashed is what was written, in its order; what an interrupted writer left is
read again, for its hash died with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from docxy.names import Digest
from docxy.storage import disk
from docxy.storage.disk import explained
from docxy.storage.interfaces import DiskFull

if TYPE_CHECKING:
    from hashlib import _Hash

_CATCH_UP = 16 << 20
"""Bytes of an interrupted fill that are hashed at a time."""


@define(eq=False)
class FillFile:
    """The file of a fill that is ours.  Everything blocks, and raises StorageError."""

    digest: Digest
    owner: int
    """Descriptor that holds the lock and is written to."""
    hashed: int = 0
    hasher: _Hash = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hasher = self.digest.hasher()

    def append(
        self, path: str, relieve: Callable[[int], bool], pieces: Sequence[bytes], offset: int
    ) -> Sequence[bytes]:
        """What was written.  `relieve`: frees some of a full disk; whether it could."""
        pieces = disk.joined(pieces)
        while True:
            try:
                with explained("write", path):
                    disk.append(self.owner, pieces, offset)
                return pieces
            except DiskFull:
                if not relieve(sum(map(len, pieces))):
                    raise

    def hash(self, path: str, pieces: Sequence[bytes], offset: int) -> None:
        """Hash what was written at `offset`."""
        if self.hashed == offset:
            for piece in pieces:
                self.hasher.update(piece)
                self.hashed += len(piece)
        else:
            # What an interrupted writer left: its hash died with it.  Readers wait for the new
            # bytes, not for the hash, so it catches up by and by.
            with explained("read", path):
                self._catch_up(min(offset + sum(map(len, pieces)), self.hashed + _CATCH_UP))

    def matches(self, path: str, size: int) -> bool:
        """Whether these are the bytes, and as many as were announced."""
        with explained("read", path):
            self._catch_up(size)
            return os.fstat(self.owner).st_size == size == self.hashed and self.digest.matches(self.hasher)

    def _catch_up(self, end: int) -> None:
        self.hashed = disk.hash_range(self.owner, self.hashed, end, self.hasher)

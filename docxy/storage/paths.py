"""Where a blob's bytes are on disk.

    <directory>/
        blobs/<algorithm>/<first 2 hex digits>/<hex>    committed: hashed to this digest, never changes
        incoming/<algorithm>-<hex>                      a fill, in flight or interrupted
        index.sqlite, index.sqlite-wal, -shm            sizes, last uses and the sum of all sizes
        index.sqlite.damaged…                           an index that could not be read any more
        index.lock                                      held while the index is rebuilt
        catalog.sqlite, -wal, -shm                      tags, repositories, verdicts (`docxy.storage.catalog`)

The law: a path is made of a parsed Digest only, so nothing outside the directory can be named.
The files are the truth; the index only counts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from attrs import frozen

from docxy.errors import DigestInvalid
from docxy.names import ALGORITHMS, Digest


@frozen
class Tree:
    """The paths below one cache directory."""

    directory: str

    @property
    def index(self) -> str:
        return os.path.join(self.directory, "index.sqlite")

    @property
    def catalog(self) -> str:
        return os.path.join(self.directory, "catalog.sqlite")

    @property
    def index_lock(self) -> str:
        return os.path.join(self.directory, "index.lock")

    @property
    def incoming_directory(self) -> str:
        return os.path.join(self.directory, "incoming")

    def blobs_directory(self, algorithm: str) -> str:
        return os.path.join(self.directory, "blobs", algorithm)

    def blob(self, digest: Digest) -> str:
        return f"{self.directory}/blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    def incoming(self, digest: Digest) -> str:
        return f"{self.directory}/incoming/{digest.algorithm}-{digest.hex}"

    def create(self) -> None:
        """Make the directories that are missing.  Raises OSError."""
        for algorithm in ALGORITHMS:
            os.makedirs(self.blobs_directory(algorithm), mode=0o750, exist_ok=True)
        os.makedirs(self.incoming_directory, mode=0o750, exist_ok=True)

    def is_empty(self) -> bool:
        """Whether no blob was ever committed here.  Does not depend on how many there are."""
        for algorithm in ALGORITHMS:
            with os.scandir(self.blobs_directory(algorithm)) as entries:
                if next(entries, None) is not None:
                    return False
        return True

    def committed(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Every committed blob, found by looking: slow in a large cache."""
        for algorithm in ALGORITHMS:
            for shard in _entries(self.blobs_directory(algorithm)):
                for entry in _entries(shard.path) if shard.is_dir(follow_symlinks=False) else ():
                    digest = _digest(f"{algorithm}:{entry.name}")
                    if digest is None or self.blob(digest) != entry.path:
                        continue
                    try:
                        yield digest, entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # evicted meanwhile
                        continue

    def fills(self) -> Iterator[Digest]:
        """Every fill, in flight or interrupted."""
        for entry in _entries(self.incoming_directory):
            digest = _digest(entry.name.replace("-", ":", 1))
            if digest is not None:
                yield digest


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except DigestInvalid:
        return None

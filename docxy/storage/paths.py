"""Where a blob's bytes are on disk.

    <directory>/
        blobs/<algorithm>/<first 2 hex digits>/<hex>    committed: hashed to this digest, never changes
        incoming/<algorithm>-<hex>                      a fill, in flight or interrupted
        index.sqlite, index.sqlite-wal, -shm            sizes, last uses and the sum of all sizes
        index.sqlite.damaged…                           an index that could not be read any more
        index.lock                                      held while the index is rebuilt
        serving.lock                                    held, shared, by each process that serves from here
        pulls.sqlite, -wal, -shm                        pulls of the last days (`docxy.observe.history`)
        catalog.sqlite…, catalog.claims, secret         tags, repositories, verdicts (`docxy.catalog.sqlite`)
        orders.json, orders.json.lock                   what the operator ordered (`docxy.orders.store`)

The law: a path is made of a parsed Digest only, so nothing outside the directory can be named.
The files are the truth; the index only counts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from attrs import frozen

from docxy.names import ALGORITHMS, Digest

DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
"""What is cached may be private, and a key lies beside it: no other user reads it, with any umask."""


@frozen
class Tree:
    """The paths below one cache directory."""

    directory: str

    @property
    def index(self) -> str:
        return os.path.join(self.directory, "index.sqlite")

    @property
    def history(self) -> str:
        return os.path.join(self.directory, "pulls.sqlite")

    @property
    def index_lock(self) -> str:
        return os.path.join(self.directory, "index.lock")

    @property
    def presence(self) -> str:
        return os.path.join(self.directory, "serving.lock")

    @property
    def incoming_directory(self) -> str:
        return os.path.join(self.directory, "incoming")

    def blobs_directory(self, algorithm: str) -> str:
        """The directory of the committed blobs of an algorithm."""
        return os.path.join(self.directory, "blobs", algorithm)

    def blob(self, digest: Digest) -> str:
        """Where a blob is once it is committed."""
        return f"{self.directory}/blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    def incoming(self, digest: Digest) -> str:
        """Where its fill is until then."""
        return f"{self.directory}/incoming/{digest.algorithm}-{digest.hex}"

    def create(self) -> None:
        """Make the directories that are missing.  Raises OSError."""
        os.makedirs(self.directory, DIRECTORY_MODE, exist_ok=True)
        below = [os.path.join(self.directory, "blobs"), *map(self.blobs_directory, ALGORITHMS)]
        for path in [*below, self.incoming_directory]:
            _make_private(path)

    def bookkeeping(self) -> int:
        """Bytes on the disk of all that is neither a blob nor a fill: directories and databases.  Raises OSError."""
        directories = [self.directory, os.path.join(self.directory, "blobs"), self.incoming_directory]
        for algorithm in ALGORITHMS:
            shards = self.blobs_directory(algorithm)
            directories += [shards, *(entry.path for entry in _entries(shards))]
        files = [entry.path for entry in _entries(self.directory)]
        return sum(map(_blocks, {*directories, *files}))

    def is_empty(self) -> bool:
        """Whether no blob was ever committed here, and no fill has bytes.  Does not depend on how many there are."""
        return not any(map(_entries, map(self.blobs_directory, ALGORITHMS))) and not any(
            _blocks(entry.path) for entry in _entries(self.incoming_directory)
        )

    def committed(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Every committed blob, found by looking: slow in a large cache."""
        for algorithm in ALGORITHMS:
            for shard in _entries(self.blobs_directory(algorithm)):
                for entry in _entries(shard.path) if shard.is_dir(follow_symlinks=False) else ():
                    digest = Digest.maybe(f"{algorithm}:{entry.name}")
                    if digest is None or self.blob(digest) != entry.path:
                        continue
                    try:
                        yield digest, entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # evicted meanwhile
                        continue

    def fills(self) -> Iterator[Digest]:
        """Every fill, in flight or interrupted."""
        for entry in _entries(self.incoming_directory):
            digest = Digest.maybe(entry.name.replace("-", ":", 1))
            if digest is not None:
                yield digest


def _make_private(path: str) -> None:
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        # One of an earlier version, which others could read.
        if os.stat(path).st_mode & 0o077:
            with suppress(PermissionError):
                os.chmod(path, DIRECTORY_MODE)


def _blocks(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []

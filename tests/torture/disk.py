"""What a cache directory takes on disk, and what lies about in it.

The law: bytes are counted as `df` counts them: blocks, not lengths; each file once; and files that have
no name any more as long as a process holds them open.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

SLACK = 16 << 20
"""Bytes that a cache may take beyond its size; or 2 % of it, if that is more."""


def allowed(budget: int) -> int:
    """The most that a cache of this size may take."""
    return budget + max(SLACK, budget // 50)


def used(directory: Path, processes: Iterable[int] = ()) -> int:
    """Bytes on disk of a directory, and of its deleted files that these processes hold open."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for found in (*_named(directory), *_unnamed(directory, processes)):
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
    return total


def _named(directory: Path) -> Iterator[os.stat_result]:
    for where, _, names in os.walk(directory):
        for name in (".", *names):
            with suppress(OSError):
                yield os.stat(os.path.join(where, name), follow_symlinks=False)


def _unnamed(directory: Path, processes: Iterable[int]) -> Iterator[os.stat_result]:
    for pid in processes:
        with suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    target = os.readlink(entry.path)
                    if target.startswith(f"{directory}/") and target.endswith(" (deleted)"):
                        yield os.stat(entry.path)


def leftovers(directory: Path, *, all_pulled: bool) -> list[str]:
    """Files of unfinished downloads, by their path below the directory.

    Unless everything was pulled since, what can be resumed is none; a file without a byte always is.
    """
    found = []
    for path in (directory / "incoming").rglob("*"):
        with suppress(OSError):
            if path.is_file() and (all_pulled or not path.stat().st_size):
                found.append(str(path.relative_to(directory)))
    return sorted(found)


def blobs(directory: Path) -> list[Path]:
    """Every file that is kept under its digest."""
    return sorted(path for path in (directory / "blobs").glob("*/*/*") if path.is_file() or path.is_symlink())


def damaged(directory: Path) -> list[str]:
    """Kept files whose bytes are not those of their name."""
    found = []
    for path in blobs(directory):
        try:
            digest = hashlib.new(path.parents[1].name, path.read_bytes()).hexdigest()
        except (OSError, ValueError):
            continue  # evicted while we looked, or no file of a blob
        if digest != path.name:
            found.append(f"{path.name[:12]} ({path.stat().st_size} bytes)")
    return found

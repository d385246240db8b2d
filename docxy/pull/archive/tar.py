"""A tar's bytes around the bytes of its files.

Pure.  The law: the same files in the same order are the same tar, byte for byte, on every docxy and at any time: no
owner, no time, mode 0644.  Sizes from 8 GiB on are written as GNU tar does, which every reader of images takes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable

from attrs import frozen

from docxy.names import Digest

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends a tar."""


def header(name: str, size: int) -> bytes:
    """What stands before a file's bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def directory(name: str) -> bytes:
    """A directory."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def padding(size: int) -> bytes:
    """What stands behind a file's bytes."""
    return bytes(-size % BLOCK)


@frozen
class Entry:
    """A file in a tar."""

    name: str
    size: int

    @property
    def padded(self) -> int:
        """Bytes that it takes behind its header."""
        return self.size + -self.size % BLOCK

    @property
    def digest(self) -> Digest | None:
        """Of a blob of an OCI layout, by its name."""
        head, _, encoded = self.name.rpartition("/")
        return Digest.maybe(f"{head[6:]}:{encoded}") if head.startswith("blobs/") else None


def entry_of(head: bytes, read: Callable[[int], bytes]) -> tuple[Entry | None, bytes]:
    """What a header says, and the bytes that were read for that; None for what ends a tar.

    `read`: gives exactly as many of the bytes that follow as it is asked for.
    """
    if not head.strip(b"\0"):
        return None, b""
    info = tarfile.TarInfo.frombuf(head, "utf-8", "replace")
    if info.type != tarfile.GNUTYPE_LONGNAME:
        return Entry(info.name, info.size), b""
    name = read(info.size + -info.size % BLOCK)
    head = read(BLOCK)
    size = tarfile.TarInfo.frombuf(head, "utf-8", "replace").size
    return Entry(name[: info.size].rstrip(b"\0").decode("utf-8", "replace"), size), name + head

"""Unnamed files.

The law: a thread that is at work has the file open for itself, so that it may be closed at any time.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO

from zope.interface import implementer

from docxy.storage.disk import BLOCK, explained
from docxy.storage.interfaces import IScratch, StorageError
from docxy.storage.paths import Tree
from docxy.threads import InThread


@implementer(IScratch)
class FileScratch:
    """Made by FilesystemStore.scratch."""

    def __init__(self, file: IO[bytes], path: str, in_thread: InThread) -> None:
        """`path`: for messages."""
        self._file = file
        self._path = path
        self._in_thread = in_thread
        self._size = 0

    async def append(self, data: bytes) -> None:
        with explained("write to", self._path):
            await self._in_thread(_write, self._duplicate(), data, self._size)
        self._size += len(data)

    async def read(self, offset: int, length: int) -> bytes:
        with explained("read from", self._path):
            return await self._in_thread(_read, self._duplicate(), offset, length)

    def _duplicate(self) -> int:
        if self._file.closed:
            raise StorageError(f"a file in {self._path} is closed")
        return os.dup(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def unnamed_file(tree: Tree) -> IO[bytes]:
    """Blocks; raises OSError."""
    tree.create()  # somebody may have removed the directory
    return tempfile.TemporaryFile(dir=tree.incoming_directory, buffering=0)


def write_block(tree: Tree) -> None:
    """See whether something can be written there, and leave nothing behind.  Blocks; raises DiskFull, StorageError."""
    with explained("write to", tree.incoming_directory), unnamed_file(tree) as file:
        file.write(bytes(BLOCK))


def _write(descriptor: int, data: bytes, offset: int) -> None:
    try:
        rest = memoryview(data)
        while rest:
            wrote = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[wrote:], offset + wrote
    finally:
        os.close(descriptor)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)

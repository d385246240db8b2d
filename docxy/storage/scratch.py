"""Unnamed files.

The law: a thread that is at work has the file open for itself, so that it may be closed at any time.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO

from zope.interface import implementer

from docxy.storage.files import explained
from docxy.storage.interfaces import IScratch, StorageError
from docxy.storage.threads import InThread


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


def unnamed_file(directory: str) -> IO[bytes]:
    """Blocks; raises OSError."""
    return tempfile.TemporaryFile(dir=directory, buffering=0)


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

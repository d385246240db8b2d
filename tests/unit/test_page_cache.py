"""Reads that wait for no disk."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryFile

from twisted.trial.unittest import SynchronousTestCase

from docxy import page_cache
from docxy.page_cache import read_in_memory

MEMORY = "/dev/shm"
"""A tmpfs on every Linux."""


class ReadTests(SynchronousTestCase):
    """`read_in_memory`."""

    def test_tmpfs(self) -> None:
        """A file system that is memory is read, though it knows no RWF_NOWAIT."""
        with TemporaryFile(dir=MEMORY) as file:
            file.write(b"0123456789")
            file.flush()
            buffer = bytearray(4)
            self.assertEqual((read_in_memory(file.fileno(), buffer, 3), buffer), (4, b"3456"))
            self.assertEqual(read_in_memory(file.fileno(), buffer, 8), 2)
            self.assertEqual(read_in_memory(file.fileno(), buffer, 10), 0)

    def test_cannot_tell(self) -> None:
        """Any other file system that knows no RWF_NOWAIT is not read: it may have a disk."""
        calls: list[tuple[object, ...]] = []

        def preadv(*args: object) -> int:
            calls.append(args)
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        mounts = Path(self.mktemp())
        with TemporaryFile(dir=MEMORY) as file:
            device = os.fstat(file.fileno()).st_dev
            mounts.write_text(f"1 1 {os.major(device)}:{os.minor(device)} / / rw shared:1 - nfs4 tmpfs rw\n")
            page_cache._is_memory.cache_clear()
            self.addCleanup(page_cache._is_memory.cache_clear)
            self.patch(page_cache, "_MOUNTS", str(mounts))
            self.patch(os, "preadv", preadv)
            self.assertRaises(OSError, read_in_memory, file.fileno(), bytearray(4), 0)
        self.assertEqual(len(calls), 1)

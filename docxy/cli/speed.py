"""How fast the cache's disk is: bounded writing, reading and syncing of a file without a name.

The law: no more than `LARGEST` bytes are written, for no longer than `PATIENCE`; nothing is left.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress

from docxy.cli.checks import Finding
from docxy.observe.verdict import amount, duration

LARGEST = 64 << 20
"""Bytes."""
PATIENCE = 3.0
"""Seconds for writing, and again for reading."""
_PIECE = 1 << 20
_SPARE = 1 << 30
"""Bytes that must be free: nothing is to be evicted for this."""
SLOW = 20_000_000
"""Bytes a second below which clients wait for the disk, not for the network."""
SLOW_SYNC = 0.1
"""Seconds for a sync of 4 kB; each blob costs two."""


def disk_speed(place: str) -> Iterator[Finding]:
    """`place`: the cache's directory, which this user may write to."""
    try:
        found = os.statvfs(place)
        if found.f_bavail * found.f_frsize < _SPARE:
            yield Finding(
                "warn", "disk", f"less than {amount(_SPARE)} free in {place}: its speed was not tried", "make room"
            )
            return
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            written, reading, syncing = measure(file.fileno())
    except OSError as error:
        yield Finding("bad", "disk", f"cannot write to {place}: {error.strerror}", "check the disk: dmesg, df, mount")
        return
    words = f"writes {amount(written)}/s, reads {amount(reading)}/s, syncs in {duration(syncing)}"
    if written < SLOW or reading < SLOW:
        yield Finding("warn", "disk", f"{words}: slower than most networks", "put the cache on a local SSD")
    elif syncing > SLOW_SYNC:
        mend = "put the cache on a local disk: a network file system is slow at this"
        yield Finding("warn", "disk", f"{words}: small layers will wait for it", mend)
    else:
        yield Finding("good", "disk", words)


def measure(descriptor: int) -> tuple[int, int, float]:
    """Bytes a second of writing (with the sync) and reading, and seconds of a small sync.  Raises OSError."""
    piece = os.urandom(_PIECE)  # a disk may compress
    begun = time.perf_counter()
    count = 0
    while count < LARGEST and time.perf_counter() - begun < PATIENCE:
        count += os.pwrite(descriptor, piece, count)
    os.fsync(descriptor)
    written = int(count / max(time.perf_counter() - begun, 1e-6))
    with suppress(AttributeError):  # not on every system
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.perf_counter()
    read = 0
    while read < count and time.perf_counter() - begun < PATIENCE:
        read += len(os.pread(descriptor, _PIECE, read))
    reading = int(read / max(time.perf_counter() - begun, 1e-6))
    begun = time.perf_counter()
    syncs = 0
    while syncs < 8 and time.perf_counter() - begun < 1.0:
        os.pwrite(descriptor, piece[:4096], syncs * 4096)
        os.fsync(descriptor)
        syncs += 1
    return written, reading, (time.perf_counter() - begun) / max(syncs, 1)

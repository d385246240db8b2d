"""What the tests of stores have in common: data, filling, reading."""

from __future__ import annotations

import random
from functools import partial
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.threads import deferToThreadPool

from docxy.names import Digest
from docxy.storage.interfaces import IBlobReader, IBlobStore, State
from docxy.storage.threads import InThread

KIB = 1024


def in_thread() -> InThread:
    """The reactor's own threads."""
    return partial(deferToThreadPool, cast(Any, reactor), cast(Any, reactor).getThreadPool())


def blob(size: int, seed: int = 0, algorithm: str = "sha256") -> tuple[Digest, bytes]:
    """Bytes that are the same for the same seed, and their digest."""
    data = random.Random(seed).randbytes(size)
    return Digest.of(data, algorithm), data


async def keep(store: IBlobStore, digest: Digest, data: bytes, piece: int = 64 * KIB) -> None:
    """Fill and commit a blob."""
    writer = await store.write(digest)
    await writer.announce(len(data))
    for start in range(writer.offset, len(data), piece):
        await writer.write(data[start : start + piece])
    await writer.commit()


async def read_on(reader: IBlobReader, offset: int = 0) -> bytes:
    """All that can be read now."""
    pieces = []
    while piece := await reader.read(offset, 100_000):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


async def until(reader: IBlobReader, count: int) -> None:
    """Wait until so many bytes can be read."""
    for _ in range(10_000):
        if reader.readable >= count:
            return
        await reader.changed()
    raise AssertionError(f"{reader.readable} of {count} bytes after 10000 changes")


async def follow(reader: IBlobReader) -> bytes:
    """Everything, as it comes, until the bytes are verified or withdrawn; closes the reader."""
    got = bytearray()
    try:
        for _ in range(1_000_000):
            piece = await reader.read(len(got), 100_000)
            if piece:
                got += piece
            elif reader.state in (State.VERIFIED, State.CANCELLED):
                return bytes(got)
            else:
                await reader.changed()
        raise AssertionError("no end")
    finally:
        reader.close()


async def fetch(store: IBlobStore, digest: Digest) -> bytes:
    """All that can be read of a blob now."""
    reader = await store.open(digest)
    try:
        return await read_on(reader)
    finally:
        reader.close()

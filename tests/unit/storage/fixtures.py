"""What the tests of stores have in common: data, filling, reading."""

from __future__ import annotations

import random
from functools import lru_cache, partial
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.threads import deferToThreadPool
from twisted.trial.unittest import TestCase

from docxy.names import Digest
from docxy.storage.interfaces import IBlobReader, IBlobStore, IBlobWriter, State
from docxy.storage.paths import Tree
from docxy.threads import InThread

KIB = 1024


def count_blobs_only(case: TestCase) -> None:
    """Let a budget be that of blobs and fills alone, so that sums of bytes can be told exactly."""
    case.patch(Tree, "bookkeeping", lambda tree: 0)


def in_thread() -> InThread:
    """The reactor's own threads."""
    return partial(deferToThreadPool, cast(Any, reactor), cast(Any, reactor).getThreadPool())


@lru_cache(maxsize=8)
def blob(size: int, seed: int = 0, algorithm: str = "sha256") -> tuple[Digest, bytes]:
    """Bytes that are the same for the same seed, and their digest."""
    data = random.Random(seed).randbytes(size)
    return Digest.of(data, algorithm), data


async def opened(store: IBlobStore, digest: Digest) -> IBlobReader:
    """A reader of what must be there."""
    reader = await store.open(digest)
    if reader is None:
        raise AssertionError(f"{digest} is not there")
    return reader


async def claim(store: IBlobStore, digest: Digest) -> IBlobWriter:
    """The fill of a digest, which nobody else must own."""
    joined = await store.join(digest)
    joined.reader.close()
    if joined.writer is None:
        raise AssertionError(f"{digest} is {joined.reader.state}")
    return joined.writer


async def busy(store: IBlobStore, digest: Digest) -> bool:
    """Whether a digest is committed, or filled by somebody."""
    joined = await store.join(digest)
    joined.reader.close()
    if joined.writer is not None:
        await joined.writer.release()
    return joined.writer is None


async def keep(store: IBlobStore, digest: Digest, data: bytes, piece: int = 64 * KIB) -> None:
    """Fill and commit a blob."""
    writer = await claim(store, digest)
    try:
        await writer.announce(len(data))
        for start in range(writer.offset, len(data), piece):
            await writer.write(data[start : start + piece])
        await writer.commit()
    except BaseException:
        await writer.cancel()
        raise


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
            elif reader.state in (State.VERIFIED, State.WITHDRAWN, State.WRONG):
                return bytes(got)
            else:
                await reader.changed()
        raise AssertionError("no end")
    finally:
        reader.close()


async def fetch(store: IBlobStore, digest: Digest) -> bytes:
    """All that can be read of a blob now."""
    reader = await opened(store, digest)
    try:
        return await read_on(reader)
    finally:
        reader.close()

"""Each call of the disk fails once, at each of its turns: a store says StorageError and nothing else."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any
from unittest import mock

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import StorageError
from tests.unit.storage.fixtures import KIB, blob, fetch, in_thread

CALLS = (
    (os, "open", errno.EMFILE),
    (os, "fstat", errno.EIO),
    (os, "stat", errno.EIO),
    (os, "lstat", errno.EIO),
    (os, "scandir", errno.EMFILE),
    (os, "statvfs", errno.EIO),
    (os, "pwritev", errno.ENOSPC),
    (os, "preadv", errno.EIO),
    (os, "fsync", errno.EIO),
    (os, "rename", errno.EROFS),
    (os, "unlink", errno.EROFS),
    (os, "mkdir", errno.ENOSPC),
    (fcntl, "flock", errno.ENOLCK),
)
TURNS = 12
"""At which a call fails, the first ones; later ones repeat them."""


@define(eq=False)
class Failing:
    """A call that fails at one of its turns."""

    real: Any
    turn: int
    """How many more succeed; below 0 once it failed."""
    number: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.turn -= 1
        if self.turn == -1:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*args, **kwargs)


class Calls(TestCase):
    timeout = 120

    def store(self, directory: str) -> FilesystemStore:
        clock = Clock()
        clock.advance(1_000_000)
        store = FilesystemStore(directory, 500 * KIB, clock, in_thread())
        store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store

    async def use(self, store: FilesystemStore) -> None:
        """All that is done to a store: blobs, of which there is room for two, each read again; its size."""
        for number in range(4):
            digest, data = blob(150 * KIB, number)
            joined = await store.join(digest)
            joined.reader.close()
            if joined.writer is None:
                continue
            try:
                await joined.writer.announce(len(data))
                await joined.writer.write(data)
                await joined.writer.commit()
            except StorageError:
                await joined.writer.release()
                raise
            self.assertEqual(await fetch(store, digest), data)
        await store.used()
        await store.free()

    async def test_each(self) -> None:
        """Whatever fails, and when, it is a StorageError; when the disk is well again all of it works."""
        struck = set()
        for module, name, number in CALLS:
            for turn in range(TURNS):
                store = self.store(self.mktemp())
                call = Failing(getattr(module, name), turn, number)
                with mock.patch.object(module, name, call):
                    try:
                        await self.use(store)
                    except StorageError:
                        pass
                    except OSError as error:
                        self.fail(f"{name}, turn {turn}: {error!r}")
                await self.use(store)
                if call.turn >= 0:
                    break
                struck.add(name)
        self.assertEqual(struck, {name for _, name, _ in CALLS})

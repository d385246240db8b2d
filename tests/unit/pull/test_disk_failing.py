"""Pulls while the disk under the cache fails."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs

from docxy.names import Digest
from docxy.storage import view
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.interfaces import (
    IBlobStore,
)
from tests.fakes import Fault
from tests.unit.pull.harness import BUDGET, REPOSITORY, MirrorCase, drain, reactor
from tests.unit.pull.test_storage_failing import BLOB, MIB, WHOLE
from tests.unit.storage.fixtures import count_blobs_only, in_thread


class DiskFails(MirrorCase):
    """A cache on a disk whose sectors cannot be read, or whose files somebody changes."""

    def make_store(self) -> IBlobStore:
        count_blobs_only(self)
        self.disk = FilesystemStore(self.mktemp(), BUDGET, reactor, in_thread())
        self.disk.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.disk.stop()))
        return self.disk

    def failing(self, name: str, position: int) -> Any:
        """One of os' functions, which fails for bytes that are not in the first MiB; `position` of the offset."""
        real = getattr(os, name)

        def call(*args: Any) -> Any:
            if args[position] >= MIB:
                raise OSError(errno.EIO, "Input/output error")
            return real(*args)

        return mock.patch.object(os, name, call)

    async def test_unreadable(self) -> None:
        """EIO in sendfile, or in a read: the client gets the rest from the upstream, and there is no traceback."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.mirror.blob(digest)
        await drain(self.mirror, digest)
        for names in (("sendfile",), ("preadv",)):
            self.upstream.requests.clear()
            with ExitStack() as stack:
                for name in (*names, "pread"):
                    stack.enter_context(self.failing(name, 2))
                if "sendfile" in names:
                    stack.enter_context(mock.patch.object(view, "_from_page_cache", lambda *args: b""))
                self.assertEqual((await self.mirror.blob(digest)).body == WHOLE, True)
            (request,) = self.upstream.select("blob")
            first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
            self.assertGreaterEqual(int(first), MIB)  # `sendfile` takes 2 MiB at a time
            self.assertEqual(int(last), BLOB.size - 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_other_bytes(self) -> None:
        """What comes from the upstream after a failed read is checked with what the client has had."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.mirror.blob(digest)
        await drain(self.mirror, digest)
        self.upstream.on("blob", Fault(flip=2 * MIB))
        with self.failing("preadv", 2), self.failing("pread", 2):
            self.assertLess(await self.mirror.cut(f"/v2/{REPOSITORY}/blobs/{digest}"), BLOB.size)

    async def test_cut(self) -> None:
        """A file that was cut on the disk is fetched anew, for GET, HEAD and ranges; the operator is told."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        for size, ask in (
            (MIB, lambda: self.mirror.blob(digest)),
            (0, lambda: self.mirror.blob(digest, asked="bytes=5-9")),
            (BLOB.size + 1, lambda: self.mirror.blob(digest, method="HEAD")),
        ):
            await self.mirror.blob(digest)
            await drain(self.mirror, digest)
            self.upstream.requests.clear()
            os.truncate(self.disk._tree.blob(digest), size)
            with capturedLogs() as logs:
                answer = await ask()
            self.assertIn(answer.body, (WHOLE, WHOLE[5:10], b""))
            self.assertLess(answer.status, 300)
            self.assertEqual(len(self.upstream.select("blob")), 1)
            self.assertTrue(any("is damaged" in str(each.get("log_format")) for each in logs))

    async def test_cut_and_index_lost(self) -> None:
        """A large file that was cut, and for which nothing vouches: its clients get the rest from the upstream."""
        digest = self.upstream.add_blob(REPOSITORY, BLOB)
        await self.mirror.blob(digest)
        await drain(self.mirror, digest)
        os.truncate(self.disk._tree.blob(digest), 2 * MIB)
        with mock.patch.object(self.disk._index, "size", lambda digest: None):
            self.disk._sizes._known.clear()
            answers = await gatherResults([Deferred.fromCoroutine(self.mirror.blob(digest)) for _ in range(2)])
        self.assertEqual({each.body == WHOLE for each in answers}, {True})

    async def test_small_and_wrong(self) -> None:
        """A small blob whose bits flipped on the disk is fetched anew, by whoever asks for it first."""
        small = b"x" * 5000
        digest = self.upstream.add_blob(REPOSITORY, small)
        await self.mirror.blob(digest)
        await drain(self.mirror, digest)
        with open(self.disk._tree.blob(digest), "r+b") as file:
            file.write(b"y")
        self.assertEqual((await self.start().blob(digest)).body, small)

    async def test_nothing_left(self) -> None:
        """Blobs that are not there leave no file behind."""
        for status in (404, 503):
            self.upstream.on("blob", Fault(status=status), times=None)
            await self.mirror.blob(Digest.of(b"%d" % status))
            self.upstream.rules.clear()
        self.assertEqual(os.listdir(self.disk._tree.incoming_directory), [])

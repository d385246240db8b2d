"""How this process sees each blob: the one BlobView that all its readers and the writer share.

The law: what a newcomer reads is what the files say at that moment; a file that is not what was committed is
removed, and one for which nothing vouches any more is hashed before it is served.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Awaitable, Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from docxy.names import Digest
from docxy.storage import disk, files
from docxy.storage.committed import CommittedSizes
from docxy.storage.disk import explained
from docxy.storage.files import Claim
from docxy.storage.index import Index
from docxy.storage.interfaces import State
from docxy.storage.paths import Tree
from docxy.storage.upkeep import Upkeep
from docxy.storage.view import BlobView
from docxy.storage.watch import Watch
from docxy.threads import InThread, shielded

_AT_ONCE = 1 << 20
"""Bytes of a file that each who opens it hashes, when nothing vouches for it."""
FIRST = 64 << 20
"""Bytes of such a file of which nothing is shown before it is hashed: of more a client would wait too long."""


class BlobViews:
    """Those of one store in this process, by digest."""

    _log = Logger()

    def __init__(
        self,
        tree: Tree,
        index: Index,
        sizes: CommittedSizes,
        upkeep: Upkeep,
        clock: IReactorTime,
        in_thread: InThread,
        delete: Callable[[Digest], Awaitable[bool]],
    ) -> None:
        """`delete`: removes a committed blob."""
        self._tree = tree
        self._index = index
        self._sizes = sizes
        self._do = upkeep.do
        self._clock = clock
        self._in_thread = in_thread
        self._delete = delete
        self._views: dict[Digest, BlobView] = {}

    def __len__(self) -> int:
        """Blobs that somebody reads or writes here."""
        return len(self._views)

    def known(self, digest: Digest) -> BlobView | None:
        """The BlobView that this process has already, if it still is what a newcomer should read."""
        view = self._views.get(digest)
        if view is None or view.state in (State.WITHDRAWN, State.WRONG):
            return None
        if view.owned:
            return view
        view.hold()  # what the look tells its readers may make them close it
        try:
            if view.watch is not None:
                view.watch.look()
            if view.state not in (State.FILLING, State.STALLED):
                path = self._tree.blob(digest)
                with explained("look at", path):
                    here = files.names(path, os.fstat(view.descriptor)) and view.is_sound
                if view.state is not State.VERIFIED or not here:
                    return None
        finally:
            view.let_go()
        return None if view.closed else view

    async def committed(self, digest: Digest) -> BlobView | None:
        """A committed blob whose file is what was committed; one that is not is removed."""
        path = self._tree.blob(digest)
        with explained("read", path):
            try:
                descriptor = files.open_committed(self._tree, digest, wait=False)
            except BlockingIOError:
                descriptor = await shielded(self._locked(digest), abandoned=disk.close)
            if descriptor is None:
                return None
            try:
                size = os.fstat(descriptor).st_size
                expected = self._sizes.known(digest)
                if expected is None:
                    expected = await self._sizes.expected(digest)
                if expected is None and size <= _AT_ONCE:
                    right = await shielded(self._sizes.is_right(digest, os.dup(descriptor), size))
                    expected = size if right else -1
            except BaseException:
                os.close(descriptor)
                raise
        known = self.known(digest)  # another open may have come first while this one waited
        if known is None and expected is None:
            return self._unsure(digest, descriptor, size)
        if known is not None or size != expected:
            os.close(descriptor)
        if known is None and size != expected:
            await self._drop(digest, size)
            return None
        return known or self.whole(digest, descriptor, size)

    async def _drop(self, digest: Digest, size: int) -> None:
        self._log.error(
            "{path} is damaged: its {size} bytes are not the blob; it is dropped, and fetched again when asked for",
            path=self._tree.blob(digest),
            size=size,
        )
        await self._delete(digest)

    async def _locked(self, digest: Digest) -> int | None:
        with explained("read", self._tree.blob(digest)):
            return await self._in_thread(files.open_committed, self._tree, digest)

    def _unsure(self, digest: Digest, descriptor: int, size: int) -> BlobView:
        """A larger file for which nothing vouches any more is like a fill: whole once it is hashed.

        A very large one is read meanwhile.  What its readers have had is wrong where the file is.
        """
        there = size if size > FIRST else 0
        view = self._add(BlobView(digest, descriptor, None, there, State.FILLING, self._forget))
        view.owned = True
        view.hold()
        self._do(self._vouch(view, size))
        return view

    async def _vouch(self, view: BlobView, size: int) -> None:
        state = State.WITHDRAWN
        try:
            right = await self._sizes.is_right(view.digest, os.dup(view.descriptor), size)
            if right:
                state = State.VERIFIED
            else:  # those who read it may find that what they have had was right
                await self._drop(view.digest, size)
        finally:
            view.owned = False
            view.update(size=size if state is State.VERIFIED else None, state=state)
            view.let_go()

    def whole(self, digest: Digest, descriptor: int, size: int) -> BlobView:
        """Of a committed blob, whose shared lock the descriptor holds."""
        return self._add(BlobView(digest, descriptor, size, size, State.VERIFIED, self._forget))

    def followed(self, digest: Digest) -> BlobView | None:
        """A fill that another process is at, if there is one."""
        path = self._tree.incoming(digest)
        with explained("read", path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except (FileNotFoundError, PermissionError):
                return None
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link is no fill
                    raise
                return None
            try:
                written = not files.try_lock(descriptor, fcntl.LOCK_SH)
            except OSError:
                os.close(descriptor)
                raise
        if not written:
            os.close(descriptor)
            return None
        return self.filled(digest, descriptor)

    def filled(self, digest: Digest, descriptor: int) -> BlobView:
        """A fill whose owner is another process."""
        return self._watched(BlobView(digest, descriptor, None, 0, State.FILLING, self._forget))

    def claimed(self, digest: Digest, claim: Claim) -> BlobView:
        """Of a fill that is ours from now on, held for its writer; those who followed it go on with the same one."""
        view = self._views.get(digest)
        if view is None or not view.is_of(claim.view):
            view = self.renew(digest, claim)
            view.hold()
            return view
        os.close(claim.view)
        view.owned = True
        view.hold()
        if view.watch is not None:
            view.watch.stop()
        view.update(size=claim.size, written=claim.kept, state=State.FILLING)
        return view

    def renew(self, digest: Digest, claim: Claim) -> BlobView:
        """Of a fill whose bytes start anew: another one than those who read the old bytes have."""
        return self._watched(BlobView(digest, claim.view, claim.size, claim.kept, State.FILLING, self._forget))

    def _watched(self, view: BlobView) -> BlobView:
        view.watch = Watch(view, self._tree, self._index, self._clock, self._in_thread)
        return self._add(view)

    def _add(self, view: BlobView) -> BlobView:
        self._views[view.digest] = view
        return view

    def _forget(self, view: BlobView) -> None:
        if self._views.get(view.digest) is view:
            del self._views[view.digest]

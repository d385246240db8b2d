"""Following a fill that another process writes.

The law: what is seen of it is seen in the file itself.  Its length is what has been written, its
lock says whether somebody writes, its time whether that process moves, its name or its mark
(`docxy.storage.holds`) what became of it.  The first look comes when somebody starts to wait, further ones in short
intervals until nobody does.
"""

from __future__ import annotations

import fcntl
import os

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from docxy.storage import files, holds
from docxy.storage.index import Index
from docxy.storage.interfaces import State, StorageError
from docxy.storage.paths import Tree
from docxy.storage.view import BlobView
from docxy.threads import InThread

INTERVAL = 0.03
"""Seconds between two looks."""
BEAT = 3.0
"""Seconds in which a writer that gets no bytes shows that its process lives, by the file's time."""
SILENT = 15.0
"""Seconds after which a writer that shows nothing is taken for one that stands still."""


@define(eq=False)
class Watch:
    """See `docxy.storage.view.IWatch`: keeps one BlobView up to date while somebody waits for it."""

    _view: BlobView
    _tree: Tree
    _index: Index
    _clock: IReactorTime
    _in_thread: InThread
    _next: IDelayedCall | None = field(init=False, default=None)
    _asking: bool = field(init=False, default=False)
    _asked: bool = field(init=False, default=False)
    """Whether the size was asked for when there were bytes, so that it had been announced if it ever is."""
    _seen: tuple[int, int] | None = field(init=False, default=None)
    _since: float = field(init=False, default=0.0)

    _log = Logger()

    def start(self) -> None:
        if self._next is None:
            self._look_and_go_on()

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look_and_go_on(self) -> None:
        self._next = None
        self.look()
        view = self._view
        more = view.awaited and not view.owned and not view.closed
        if self._next is None and more and view.state in (State.FILLING, State.STALLED, State.RELEASED):
            self._next = self._clock.callLater(INTERVAL, self._look_and_go_on)

    def look(self) -> None:
        view = self._view
        if view.owned or view.closed or view.state in (State.VERIFIED, State.WITHDRAWN, State.WRONG):
            return
        try:
            self._look(view)
        except OSError as error:
            self._log.error("cannot follow {digest}: {error}", digest=view.digest, error=error)
            view.update(state=State.WITHDRAWN)

    def _look(self, view: BlobView) -> None:
        found = os.fstat(view.descriptor)
        if files.try_lock(view.descriptor, fcntl.LOCK_SH):
            # The writer is done or gone.  A committed blob stays locked: it is being read.
            found = os.fstat(view.descriptor)
            if files.names(self._tree.blob(view.digest), found) or holds.mark(found) == holds.VERIFIED:
                view.update(size=found.st_size, written=found.st_size, state=State.VERIFIED)
                return
            fcntl.flock(view.descriptor, fcntl.LOCK_UN)
            if holds.mark(found) == holds.WRONG:
                state = State.WRONG
            else:
                state = State.RELEASED if found.st_nlink else State.WITHDRAWN
        else:
            state = State.FILLING if self._moves(found) else State.STALLED
        if view.size is None and not self._asked and state is State.FILLING:
            # No byte is shown until it is clear whether its size is known.
            self._ask_size(bool(found.st_size))
            view.update(state=state)
        else:
            view.update(written=found.st_size, state=state)

    def _moves(self, found: os.stat_result) -> bool:
        seen, now = (found.st_size, found.st_mtime_ns), self._clock.seconds()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since < SILENT

    def _ask_size(self, final: bool) -> None:
        if not self._asking:
            self._asking = True
            Deferred.fromCoroutine(self.learn_size(final))

    async def learn_size(self, final: bool = False) -> None:
        """Take the announced size from the index, when it is there; `final`: it will not come later."""
        try:
            size = await self._in_thread(self._index.size, self._view.digest)
        except StorageError as error:
            self._log.warn("the size of {digest} is unknown: {error}", digest=self._view.digest, error=error)
        else:
            self._asked = final
            self._view.update(size=size)
        finally:
            self._asking = False

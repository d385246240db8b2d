"""Following a fill that another process writes.

The law: what is seen of it is seen in the file itself.  Its length is what has been written, its
lock says whether somebody writes, its name whether it was committed, its link count whether it
was withdrawn.  The first look comes when somebody starts to wait, further ones in short
intervals until nobody does.
"""

from __future__ import annotations

import fcntl
import os

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from docxy.storage import files
from docxy.storage.body import Body
from docxy.storage.index import Index
from docxy.storage.interfaces import State, StorageError
from docxy.storage.paths import Tree
from docxy.storage.threads import InThread

INTERVAL = 0.03
"""Seconds between two looks."""


@define(eq=False)
class Watch:
    """Keeps one Body up to date while somebody waits for it."""

    _body: Body
    _tree: Tree
    _index: Index
    _clock: IReactorTime
    _in_thread: InThread
    _next: IDelayedCall | None = field(init=False, default=None)
    _asking: bool = field(init=False, default=False)

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
        body = self._body
        more = body.awaited and not body.owned and not body.closed
        if self._next is None and more and body.state in (State.FILLING, State.RELEASED):
            self._next = self._clock.callLater(INTERVAL, self._look_and_go_on)

    def look(self) -> None:
        body = self._body
        if body.owned or body.closed or body.state in (State.VERIFIED, State.CANCELLED):
            return
        try:
            self._look(body)
        except OSError as error:
            self._log.error("cannot follow {digest}: {error}", digest=body.digest, error=error)
            body.update(state=State.CANCELLED)

    def _look(self, body: Body) -> None:
        found = os.fstat(body.descriptor)
        if files.try_lock(body.descriptor, fcntl.LOCK_SH):
            # The writer is done or gone.  A committed blob stays locked: it is being read.
            if files.names(self._tree.blob(body.digest), found):
                body.update(size=os.fstat(body.descriptor).st_size, state=State.VERIFIED)
                return
            found = os.fstat(body.descriptor)
            fcntl.flock(body.descriptor, fcntl.LOCK_UN)
            state = State.RELEASED if found.st_nlink else State.CANCELLED
        else:
            state = State.FILLING
        if body.size is None and state is State.FILLING:
            self.ask_size()
        body.update(written=found.st_size, state=state)

    def ask_size(self) -> None:
        if not self._asking:
            self._asking = True
            Deferred.fromCoroutine(self.learn_size())

    async def learn_size(self) -> None:
        """Take the announced size from the index, when it is there."""
        try:
            size = await self._in_thread(self._index.announced, self._body.digest)
        except StorageError as error:
            self._log.warn("the size of {digest} is unknown: {error}", digest=self._body.digest, error=error)
        else:
            self._body.update(size=size)
        finally:
            self._asking = False

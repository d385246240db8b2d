"""Waiting for what another process does to the files of a directory: each change is an event (inotify(7))."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.inotify import IN_CREATE, IN_DELETE, IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, INotify
from twisted.python.filepath import FilePath

_CHANGES = IN_CREATE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE


class WatchedDirectory:
    """A directory that is there, and whose changes are waited for until `close`."""

    def __init__(self, path: str | os.PathLike[str], reactor: Any) -> None:
        self._path = path
        self._changed: Deferred[None] = Deferred()
        self._inotify: Any = INotify(reactor)
        self._inotify.startReading()
        self._inotify.watch(FilePath(os.fspath(path)), mask=_CHANGES, callbacks=[lambda *_: self.wake()])

    def wake(self, result: Any = None) -> Any:
        """Have `until` look again; gives back its argument, so that a Deferred may call it."""
        changed, self._changed = self._changed, Deferred()
        changed.callback(None)
        return result

    def size(self, name: str) -> int:
        """Bytes of a file; -1 where there is none."""
        try:
            return os.path.getsize(os.path.join(self._path, name))
        except FileNotFoundError:
            return -1

    async def until(self, ready: Callable[[], bool]) -> None:
        """Return when `ready`, which is asked at each change, says so."""
        while not ready():
            await self._changed

    def close(self) -> None:
        self._inotify.loseConnection()

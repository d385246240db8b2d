"""The threads in which passwords are checked.

The law: they are few and nobody else's, so that whoever tries many passwords keeps neither
names from being looked up nor blobs from being read.
"""

from __future__ import annotations

import functools
from typing import Any

from twisted.application.service import Service
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from docxy.storage.threads import InThread

THREADS = 2


class PasswordThreads(Service):
    """Run as long as the service does."""

    def __init__(self, reactor: Any) -> None:
        self._pool = ThreadPool(0, THREADS, name="passwords")
        self.in_thread: InThread = functools.partial(deferToThreadPool, reactor, self._pool)

    def startService(self) -> None:
        Service.startService(self)
        self._pool.start()

    def stopService(self) -> None:
        Service.stopService(self)
        self._pool.stop()

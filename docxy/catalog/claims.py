"""Who asks an upstream something that one asker is enough for.

The law: *a claim dies with its process.*  Between processes it is a lock that the kernel keeps: one byte of the claims
file for each key, held by the open file, gone when that is closed, however the process ends.  Within a process it is a
list of those who wait.  Neither lock nor poll touches a database.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import sys
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from docxy.catalog.interfaces import IClaims

POLL = 0.05
"""Seconds between two looks at another process's claim; one for each key and process."""
MAX_WAITING = 10_000
"""Who wait in one process; more do not wait."""


@implementer(IClaims)
class LocalClaims:
    """Of this process alone."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._claimed: dict[str, list[Deferred[bool]]] = {}
        self._waiting = 0

    async def claim(self, key: str, patience: float) -> bool:
        waiting = self._claimed.get(key)
        if waiting is None:
            self._claimed[key] = []
            return True
        if self._waiting >= MAX_WAITING:
            return False
        waiter: Deferred[bool] = Deferred()
        waiting.append(waiter)
        self._waiting += 1
        late = self._clock.callLater(patience, waiter.callback, False)
        try:
            return await waiter
        finally:
            self._waiting -= 1
            if late.active():
                late.cancel()

    def release(self, key: str) -> None:
        for waiter in self._claimed.pop(key):
            if not waiter.called:
                waiter.callback(False)


@implementer(IClaims)
class SharedClaims:
    """Of all processes that open the same file."""

    _log = Logger()

    def __init__(self, path: str, clock: IReactorTime, flushed: Callable[[], Awaitable[None]]) -> None:
        """`flushed`: returns when other processes can read what we wrote.  Raises OSError."""
        self._clock = clock
        self._flushed = flushed
        self._local = LocalClaims(clock)
        self._ours: dict[str, int] = {}
        """Key -> how many claims this process has not given back yet."""
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Other processes may claim what we did."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    async def claim(self, key: str, patience: float) -> bool:
        if not await self._local.claim(key, patience):
            return False
        self._ours[key] = self._ours.get(key, 0) + 1
        try:
            # Counted, not measured: a clock that is set back must not prolong it.
            for _ in range(int(patience / POLL)):
                if self._lock(key, fcntl.LOCK_EX):
                    break
                await deferLater(self._clock, POLL, lambda: None)
        except BaseException:
            self._forget(key)
            self._local.release(key)
            raise
        return True

    def release(self, key: str) -> None:
        self._local.release(key)
        Deferred.fromCoroutine(self._give_back(key)).addErrback(
            lambda why: self._log.failure("a claim was not given back", why)
        )

    async def _give_back(self, key: str) -> None:
        try:
            await self._flushed()
        finally:
            self._forget(key)

    def _forget(self, key: str) -> None:
        self._ours[key] -= 1
        if not self._ours[key]:  # else this process claims it again
            del self._ours[key]
            self._lock(key, fcntl.LOCK_UN)

    def _lock(self, key: str, how: int) -> bool:
        """Whether nobody else has it; where there are no locks, nobody does."""
        if self._descriptor is None:
            return True
        offset = int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest(), "big") >> 2
        try:
            _lock_byte(self._descriptor, offset, how)
        except OSError as error:
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True


def _lock_byte(descriptor: int, offset: int, how: int) -> None:
    """Raises OSError."""
    if sys.platform == "linux":
        # Held by the open file (fcntl(2), "Open file description locks"): two of one process stand in each other's way.
        kind = fcntl.F_UNLCK if how == fcntl.LOCK_UN else fcntl.F_WRLCK
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", kind, os.SEEK_SET, offset, 1, 0))
    else:
        fcntl.lockf(descriptor, how | (0 if how == fcntl.LOCK_UN else fcntl.LOCK_NB), 1, offset)

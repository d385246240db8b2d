"""Whether a password is right.

The law: each attempt that is not remembered costs one bcrypt in a thread, whether there is
such a user or not and whether or not the client waits for it; attempts of one address go one
after the other, so that none escapes the throttle.  No password is kept.
"""

from __future__ import annotations

import hmac
import math
import secrets
from collections import OrderedDict

import bcrypt
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime

from docxy.errors import TooManyRequests
from docxy.gate.addresses import throttled_as
from docxy.gate.htpasswd import HtpasswdFile
from docxy.gate.throttle import Throttle
from docxy.storage.threads import InThread, shielded

REMEMBERED = 300.0
"""Seconds for which a pair that was right is not checked again."""
MAX_REMEMBERED = 10_000
MAX_WAITING = 256
"""Attempts of one address."""
_LENGTH = 72
"""Bytes of a password that bcrypt looks at."""


class Passwords:
    """Checks passwords against the htpasswd file."""

    def __init__(self, file: HtpasswdFile, throttle: Throttle, in_thread: InThread, clock: IReactorTime) -> None:
        self._file = file
        self._throttle = throttle
        self._in_thread = in_thread
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._locks: dict[str, DeferredLock] = {}

    async def verify(self, address: str, user: str, password: str) -> str | None:
        """The stored hash that the password matches, None when it is wrong.

        Raises TooManyRequests, with Retry-After, when the address has to wait.
        """
        address = throttled_as(address)
        self.check_pause(address)
        remembered = self._remembered(user, password)
        if remembered is not None:
            return remembered
        return await shielded(self._in_turn(address, user, password))

    def check_pause(self, address: str) -> None:
        """Raises TooManyRequests when the address has to wait."""
        pause = self._throttle.pause(throttled_as(address))
        if pause > 0:
            raise _too_many(math.ceil(pause))

    def failed(self, address: str, user: str) -> None:
        """Something else than a password was wrong."""
        self._throttle.failed(throttled_as(address), user)

    async def _in_turn(self, address: str, user: str, password: str) -> str | None:
        lock = self._locks.setdefault(address, DeferredLock())
        if len(lock.waiting) >= MAX_WAITING:
            raise _too_many(1)
        await lock.acquire()
        try:
            # What was found out while this one waited counts.
            self.check_pause(address)
            return self._remembered(user, password) or await self._check(address, user, password)
        finally:
            if not lock.waiting:
                self._locks.pop(address, None)
            lock.release()

    async def _check(self, address: str, user: str, password: str) -> str | None:
        accounts = self._file.accounts()
        stored = accounts.hashes.get(user)
        right = await self._in_thread(_matches, password, accounts.decoy if stored is None else stored)
        if stored is None or not right:
            self._throttle.failed(address, user)
            return None
        self._throttle.succeeded(address, user)
        self._right[self._mark(user, password, stored)] = self._clock.seconds() + REMEMBERED
        while len(self._right) > MAX_REMEMBERED:
            self._right.popitem(last=False)
        return stored

    def _remembered(self, user: str, password: str) -> str | None:
        """The hash in force of a pair that was right lately."""
        stored = self._file.accounts().hashes.get(user)
        if stored is None:
            return None
        mark = self._mark(user, password, stored)
        if self._right.get(mark, 0.0) > self._clock.seconds():
            return stored
        self._right.pop(mark, None)
        return None

    def _mark(self, user: str, password: str, stored: str) -> bytes:
        """What a right pair is remembered as; with another hash in the file it is another one."""
        parts = [part.encode("utf-8", "surrogatepass") for part in (user, password, stored)]
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, framed, "sha256")


def _matches(password: str, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password.encode("utf-8")[:_LENGTH], hashed.encode("ascii"))
    except ValueError:
        return False


def _too_many(seconds: int) -> TooManyRequests:
    message = f"too many failed logins from this address; try again in {seconds} s"
    return TooManyRequests(message, headers=(("Retry-After", str(seconds)),))

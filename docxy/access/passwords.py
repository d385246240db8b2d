"""Whether a password is right.

The law: an attempt that is new costs bcrypt's work in a thread, as much for a user that does
not exist as for any that does, whether or not the client waits for it.  The attempts of users
that are not known at an address go one after the other there, so that none escapes the
throttle; a user that is known there waits for nobody else.  No password is kept: what was right
or wrong lately is remembered as a keyed hash, the key of which is in this process alone.
"""

from __future__ import annotations

import hmac
import math
import secrets
from functools import lru_cache

import bcrypt
from cachetools import TTLCache
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime

from docxy.access.htpasswd import HtpasswdFile, cost_of
from docxy.access.throttle import Throttle
from docxy.addresses import throttled_as
from docxy.errors import TooManyLogins
from docxy.single_flight import SingleFlight
from docxy.threads import InThread

REMEMBERED = 24 * 3600.0
"""Seconds for which a pair that was right is not checked again."""
WRONG_FOR = 15 * 60.0
"""Seconds for which a pair that was wrong is not: a machine with an old password guesses nothing new."""
MAX_REMEMBERED = 10_000
"""Pairs that were right, and pairs that were wrong."""
MAX_WAITING = 32
"""Pairs that wait for one before them, at one address."""
MAX_CHECKS = 64
"""Pairs that are checked at once: a user that is not known has to come back then, rather than wait long."""
LENGTH = 72
"""Bytes of a password that bcrypt looks at."""


class Passwords:
    """Checks passwords against the htpasswd file."""

    def __init__(self, file: HtpasswdFile, throttle: Throttle, in_thread: InThread, clock: IReactorTime) -> None:
        self._file = file
        self._throttle = throttle
        self._in_thread = in_thread
        self._key = secrets.token_bytes(32)
        self._right: TTLCache[bytes, None] = TTLCache(MAX_REMEMBERED, REMEMBERED, timer=clock.seconds)
        self._wrong: TTLCache[bytes, None] = TTLCache(MAX_REMEMBERED, WRONG_FOR, timer=clock.seconds)
        self._locks: dict[tuple[str, str], DeferredLock] = {}
        self._turns: SingleFlight[tuple[str, bytes], str | None] = SingleFlight()
        self._checking: SingleFlight[bytes, bool] = SingleFlight()
        self._checks = 0

    async def verify(self, address: str, user: str, password: str) -> str | None:
        """The stored hash that the password matches, None when it is wrong.

        Raises TooManyLogins, with Retry-After, when the user has to wait at this address.
        """
        address = throttled_as(address)
        stored = self._file.accounts().hashes.get(user)
        mark = self._mark(user, password, stored)
        if mark in self._wrong:
            return None
        if stored is not None and mark in self._right and self._throttle.trusts(address, user):
            return stored
        self.check_pause(address, user)
        # The same pair from many machines behind one address takes one turn.
        return await self._turns.do((address, mark), lambda: self._in_turn(address, user, password))

    def check_pause(self, address: str, user: str) -> None:
        """Raises TooManyLogins when the user has to wait at this address."""
        address = throttled_as(address)
        pause = self._throttle.pause(address, user)
        if pause > 0:
            self._throttle.turned_away(address, user)
            raise _too_many(math.ceil(pause))

    def failed(self, address: str, user: str) -> None:
        """Something else than a password was wrong."""
        self._throttle.failed(throttled_as(address), user)

    async def _in_turn(self, address: str, user: str, password: str) -> str | None:
        lane = (address, user if self._throttle.knows(address, user) else "")
        lock = self._locks.setdefault(lane, DeferredLock())
        if len(lock.waiting) >= MAX_WAITING:
            raise _too_many(1)
        await lock.acquire()
        try:
            # What was found out while this one waited counts.
            self.check_pause(address, user)
            return await self._check(address, user, password)
        finally:
            if not lock.waiting:
                self._locks.pop(lane, None)
            lock.release()

    async def _check(self, address: str, user: str, password: str) -> str | None:
        accounts = self._file.accounts()
        stored = accounts.hashes.get(user)
        mark = self._mark(user, password, stored)
        if mark in self._right:
            right = True
        elif mark in self._wrong:
            return None
        else:
            busy = self._checks >= MAX_CHECKS and not self._throttle.knows(address, user)
            if busy and mark not in self._checking:
                raise _too_many(1)
            # A fleet that starts with one account at many addresses is one check.
            right = await self._checking.do(mark, lambda: self._work(mark, password, stored, accounts.cost))
        if stored is None or not right:
            self._throttle.failed(address, user)
            return None
        self._throttle.succeeded(address, user)
        return stored

    async def _work(self, mark: bytes, password: str, stored: str | None, cost: int) -> bool:
        self._checks += 1
        try:
            right = bool(await self._in_thread(_matches, password, stored, cost))
        finally:
            self._checks -= 1
        (self._right if right and stored is not None else self._wrong)[mark] = None
        return right

    def _mark(self, user: str, password: str, stored: str | None) -> bytes:
        """What a pair is remembered as; with another hash in the file it is another one."""
        parts = [part.encode("utf-8", "surrogatepass") for part in (user, password, stored or "")]
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, framed, "sha256")


def _matches(password: str, stored: str | None, cost: int) -> bool:
    """Whether the password has this hash (None: there is no such user), in the time that a hash of `cost` takes."""
    secret = password.encode("utf-8", "surrogatepass")[:LENGTH]
    if stored is None:
        _hash(secret, _decoy(cost))
        return False
    right = _hash(secret, stored)
    # Each cost takes twice the time of the one below: c, c, c + 1, … n - 1 together take as long as n.
    for lower in range(cost_of(stored), cost):
        _hash(secret, _decoy(lower))
    return right


def _hash(secret: bytes, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(secret, hashed.encode("ascii"))
    except ValueError:
        # A NUL is in it, which no hash was made of.
        return False


@lru_cache(maxsize=32)
def _decoy(cost: int) -> str:
    """A hash that no password has."""
    return bcrypt.gensalt(cost).decode("ascii") + "." * 31


def _too_many(seconds: int) -> TooManyLogins:
    message = f"too many failed logins; try again in {seconds} s"
    return TooManyLogins(message, headers=(("Retry-After", str(seconds)),))

"""How often a password may be wrong.

The law: after some failures a user has to wait at the address that they came from, twice as
long after each further one, up to a minute, and nobody else has to.  An address that fails
under many names makes all names wait there but those that logged in from it lately.  What is
kept of all users and addresses together is bounded.
"""

from __future__ import annotations

import hashlib

from attrs import define
from cachetools import TTLCache
from twisted.internet.interfaces import IReactorTime

from docxy.broadcast import Broadcast

FREE = 5
"""Failures of one user at one address until that user has to wait there."""
ADDRESS_FREE = 20
"""Failures of all users at one address until users that are not known there have to wait."""
TRUSTED = 100
"""Failures and attempts during pauses, of a user at an address, until even the right password has to wait there."""
LONGEST = 60.0
"""Seconds of a pause."""
WINDOW = 15 * 60.0
"""Seconds after the last failure for which failures are remembered."""
KNOWN_FOR = 24 * 3600.0
"""Seconds for which a user is known at an address after a login from there."""
MAX_KEPT = 10_000
"""Users at addresses, and addresses, that are remembered; the one that failed longest ago goes first."""

_Key = tuple[str, str]
"""An address, and what stands for a user."""


@define
class _Failures:
    count: int = 0
    last: float = 0.0
    turned_away: int = 0
    """Attempts during pauses."""


class Throttle:
    """Counts failures by user and address, at whichever process they came in.

    Addresses are those of `addresses.throttled_as`.
    """

    def __init__(self, clock: IReactorTime, broadcast: Broadcast) -> None:
        self.clock = clock
        self._users: TTLCache[_Key, _Failures] = TTLCache(MAX_KEPT, WINDOW, timer=clock.seconds)
        self._addresses: TTLCache[str, _Failures] = TTLCache(MAX_KEPT, WINDOW, timer=clock.seconds)
        self._known: TTLCache[_Key, None] = TTLCache(MAX_KEPT, KNOWN_FOR, timer=clock.seconds)
        self._tell_failed = broadcast.topic("failed login", self._failed)
        self._tell_succeeded = broadcast.topic("login", self._succeeded)

    def pause(self, address: str, user: str) -> float:
        """Seconds that a user has to wait still at an address; 0.0: none."""
        wait = self._wait(self._users.get((address, _short(user))), FREE)
        if self.knows(address, user):
            return wait
        return max(wait, self._wait(self._addresses.get(address), ADDRESS_FREE))

    def knows(self, address: str, user: str) -> bool:
        """Whether this user logged in from this address lately."""
        return (address, _short(user)) in self._known

    def trusts(self, address: str, user: str) -> bool:
        """Whether a password of this user that was right lately is let in, though others failed here.

        Not without end: a guesser behind the same address would have as many guesses as requests.
        """
        failures = self._users.get((address, _short(user)))
        tries = 0 if failures is None else failures.count + failures.turned_away
        return self.knows(address, user) and tries < TRUSTED

    def turned_away(self, address: str, user: str) -> None:
        """An attempt met a pause."""
        failures = self._users.get((address, _short(user)))
        if failures is not None:
            failures.turned_away += 1

    def failed(self, address: str, user: str) -> None:
        """An attempt as this user, whether there is one or not, was wrong."""
        self._failed(address, _short(user))
        self._tell_failed(address, _short(user))

    def succeeded(self, address: str, user: str) -> None:
        """This user's failures are forgotten; not others', or an account would be a licence to guess."""
        self._succeeded(address, _short(user))
        self._tell_succeeded(address, _short(user))

    def _wait(self, failures: _Failures | None, free: int) -> float:
        if failures is None or failures.count < free:
            return 0.0
        since = self.clock.seconds() - failures.last
        # The exponent is bounded, or a long-lived attacker would make it a number without end.
        return max(0.0, min(LONGEST, 2.0 ** min(failures.count - free, 10)) - since)

    def _failed(self, address: str, user: str) -> None:
        one = self._users.get((address, user)) or _Failures()
        everyone = self._addresses.get(address) or _Failures()
        for failures in (one, everyone):
            failures.count += 1
            failures.last = self.clock.seconds()
        # Put in anew, which begins their time again.
        self._users[address, user] = one
        self._addresses[address] = everyone

    def _succeeded(self, address: str, user: str) -> None:
        forgotten = self._users.pop((address, user), None)
        everyone = self._addresses.get(address)
        if forgotten is not None and everyone is not None:
            everyone.count = max(0, everyone.count - forgotten.count)
        self._known[address, user] = None


def _short(user: str) -> str:
    """What stands for a user, whose name a client chose: it may be as long as a header."""
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:32]

"""How often an address may be wrong.

The law: after some failures an address has to wait, twice as long after each further one,
up to a minute; what is kept of all addresses together is bounded.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from docxy.gossip import Gossip

FREE = 5
"""Failures until an address has to wait."""
LONGEST = 60.0
"""Seconds of a pause."""
WINDOW = 15 * 60.0
"""Seconds after its last failure for which an address is remembered."""
MAX_ADDRESSES = 10_000
_MAX_USERS = 16
_OTHERS = ""


@define
class _Failures:
    """Of one address."""

    by_user: dict[str, int] = field(factory=dict)
    last: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.by_user.values())


class Throttle:
    """Counts failures by address, as `addresses.throttled_as` has it, at whichever process they were met."""

    def __init__(self, clock: IReactorTime, gossip: Gossip | None = None) -> None:
        self.clock = clock
        self._addresses: OrderedDict[str, _Failures] = OrderedDict()
        """The one that failed last is at the end."""
        gossip = gossip or Gossip()
        self._tell_failed = gossip.topic("failed login", self._failed)
        self._tell_succeeded = gossip.topic("login", self._succeeded)

    def pause(self, address: str) -> float:
        """Seconds that an address has to wait still; 0.0: none."""
        failures = self._addresses.get(address)
        if failures is None or failures.count < FREE:
            return 0.0
        since = self.clock.seconds() - failures.last
        if since >= WINDOW:
            return 0.0
        # The exponent is bounded, or a long-lived attacker would make it a number without end.
        return max(0.0, min(LONGEST, 2.0 ** min(failures.count - FREE, 10)) - since)

    def failed(self, address: str, user: str) -> None:
        """An attempt as this user, whether there is one or not, was wrong."""
        self._failed(address, user)
        self._tell_failed(address, user)

    def _failed(self, address: str, user: str) -> None:
        now = self.clock.seconds()
        failures = self._addresses.pop(address, None)
        if failures is None or now - failures.last >= WINDOW:
            failures = _Failures()
        user = user[:64]
        if user not in failures.by_user and len(failures.by_user) >= _MAX_USERS:
            user = _OTHERS
        failures.by_user[user] = failures.by_user.get(user, 0) + 1
        failures.last = now
        self._addresses[address] = failures
        while len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)

    def succeeded(self, address: str, user: str) -> None:
        """This user's failures are forgotten; not others', or an account would be a licence to guess."""
        self._succeeded(address, user)
        self._tell_succeeded(address, user)

    def _succeeded(self, address: str, user: str) -> None:
        failures = self._addresses.get(address)
        if failures is not None:
            failures.by_user.pop(user[:64], None)
            if not failures.by_user:
                del self._addresses[address]

"""How often an address may be wrong.

The law: after some failures an address has to wait, twice as long after each further one,
up to a minute; what is kept of all addresses together is bounded.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

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


@frozen
class Throttle:
    """Counts failures by address, as `addresses.throttled_as` has it."""

    clock: IReactorTime
    _addresses: OrderedDict[str, _Failures] = field(factory=OrderedDict, init=False)
    """The one that failed last is at the end."""

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
        failures = self._addresses.get(address)
        if failures is not None:
            failures.by_user.pop(user[:64], None)
            if not failures.by_user:
                del self._addresses[address]

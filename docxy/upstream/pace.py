"""docxy's own limit of how fast bytes come from upstreams.

The laws: *no second brings more than the rate*, over all processes together; and *each blob that is fetched gets as
much as any other*, whichever process fetches it and over however many connections.  Bytes are paid for after they
came: who owes does not read on, so that the connection is paused and the upstream slows down.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from docxy.siblings import ISlots

AT_ONCE = 4
"""Portions that are on their way at once: as many as hide how long it takes to ask the process that counts them."""
PORTIONS = 40
"""A second; each is a fortieth of what a second may bring."""


@define(eq=False)
class _Paid:
    """What one blob has paid for."""

    credit: int = 0
    """Bytes; less than nothing: it owes them."""
    lock: DeferredLock = field(factory=DeferredLock)


@define(eq=False)
class _Portion:
    """One that was taken."""

    due: float
    """When it is over, on the clock's seconds."""


class Pace:
    """One limit."""

    _log = Logger()

    def __init__(self, rate: int, name: str, slots: ISlots, clock: IReactorTime) -> None:
        """`rate`: bytes a second; `name`: of what is limited, the same in all processes.

        `slots`: `AT_ONCE` of them, shared by all processes.  A portion takes one for as long as it lasts at this rate.
        """
        self.portion = max(1, rate // PORTIONS)
        self._lasts = AT_ONCE * self.portion / rate
        self._name = name
        self._slots = slots
        self._clock = clock
        self._accounts: WeakValueDictionary[str, _Paid] = WeakValueDictionary()
        self._taken: dict[_Portion, IDelayedCall] = {}
        self._stopped = False
        self._late = 0.0
        """Seconds that portions lasted longer than they should have, and that the next one lasts less."""

    def account(self, blob: str) -> _Paid:
        """That of one blob, for all who fetch it in this process."""
        account = self._accounts.get(blob)
        if account is None:
            account = self._accounts[blob] = _Paid()
        return account

    async def pay(self, account: _Paid, count: int) -> None:
        """Returns when `count` more bytes are paid for."""
        account.credit -= count
        if account.credit >= 0 or self._stopped:
            return
        await account.lock.acquire()
        try:
            while account.credit < 0 and not self._stopped:
                await self._take()
                account.credit += self.portion
        finally:
            account.lock.release()

    async def _take(self) -> None:
        try:
            await self._slots.acquire(self._name)
        except CancelledError:
            raise
        except Exception as error:  # the process that counts is gone, and this one will be
            self._log.debug("cannot ask for a portion of {name}: {why}", name=self._name, why=error)
            return
        if self._stopped:
            self._slots.release(self._name)
            return
        lasts, self._late = max(0.0, self._lasts - self._late), 0.0
        portion = _Portion(self._clock.seconds() + lasts)
        self._taken[portion] = self._clock.callLater(lasts, self._over, portion)

    def _over(self, portion: _Portion) -> None:
        # A timer is always a little late; over a second that would be a good part of the rate.
        self._late = min(self._lasts, self._late + self._clock.seconds() - portion.due)
        del self._taken[portion]
        self._slots.release(self._name)

    def stop(self) -> None:
        """Limit nothing any more, and keep no portion from other processes."""
        self._stopped = True
        while self._taken:
            self._taken.popitem()[1].cancel()
            self._slots.release(self._name)


class Paying:
    """One body's way to pay all limits that hold for it."""

    def __init__(self, paces: Sequence[Pace], blob: str) -> None:
        """`blob`: what is fetched; parts of it pay together."""
        self._ways = [(pace, pace.account(blob)) for pace in paces]

    async def pay(self, count: int) -> None:
        """Returns when `count` more bytes are within every limit."""
        if len(self._ways) == 1:
            ((pace, account),) = self._ways
            await pace.pay(account, count)
            return
        waiting = [Deferred.fromCoroutine(pace.pay(account, count)) for pace, account in self._ways]
        try:
            for each in waiting:
                await each
        finally:
            # Given up, or all over.
            for each in waiting:
                each.addErrback(lambda failure: failure.trap(CancelledError))
                each.cancel()

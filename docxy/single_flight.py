"""One piece of work at a time for each key, its outcome shared by all who ask meanwhile.

The law: the work belongs to no one who waits for it.  A waiter that goes away leaves it
running; nothing is kept once it is done.  An outcome that must be closed is shared as copies,
one for each waiter, each closed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs `work` once for all who ask for the same key while it runs."""

    def __init__(
        self, copy: Callable[[V], V] = lambda outcome: outcome, close: Callable[[V], object] = lambda outcome: None
    ) -> None:
        """`copy`: makes what each waiter gets; `close`: ends what the copies were made of."""
        self._copy = copy
        self._close = close
        self._waiting: dict[K, list[Deferred[V]]] = {}
        self._running: dict[K, Deferred[None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: K) -> bool:
        return key in self._waiting

    def do(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> Deferred[V]:
        """The outcome of the work under this key: joined when it runs already, else started.

        What the work raises, every waiter gets.  Cancelling the Deferred only stops waiting.
        """
        waiter: Deferred[V] = Deferred()
        joined = self._waiting.get(key)
        if joined is not None:
            joined.append(waiter)
            return waiter
        self._waiting[key] = [waiter]
        running = Deferred.fromCoroutine(work())
        # Work that was done at once has no entry to remove.
        self._running[key] = running.addBoth(self._done, key)
        if running.called and key not in self._waiting:
            self._running.pop(key, None)
        return waiter

    def _done(self, outcome: V | Failure, key: K) -> None:
        self._running.pop(key, None)
        for waiter in self._waiting.pop(key):
            if waiter.called:
                continue
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(self._copy(outcome))
        if not isinstance(outcome, Failure):
            self._close(outcome)

    async def stop(self) -> None:
        """Cancel all that runs, and wait until it has ended."""
        running = list(self._running.values())
        for work in running:
            work.cancel()
        await DeferredList(running)

"""Work done off the reactor's thread, and work that is not undone by whoever stops waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger()


class InThread(Protocol):
    """Calls blocking work in a thread: `deferToThreadPool` with its reactor and pool bound."""

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...


def shielded(work: Coroutine[Any, Any, T], abandoned: Callable[[T], object] | None = None) -> Deferred[T]:
    """The outcome of `work`, which goes on to its end even when the Deferred is cancelled.

    A thread cannot be stopped halfway, so neither can what follows it.  `abandoned` gets an
    outcome that nobody waits for any more.
    """
    waiter: Deferred[T] = Deferred()

    def done(outcome: T | Failure) -> None:
        if not waiter.called:
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)
        elif isinstance(outcome, Failure):
            _log.warn("what nobody waited for failed: {failure}", failure=outcome.getErrorMessage())
        elif abandoned is not None:
            abandoned(outcome)

    Deferred.fromCoroutine(work).addBoth(done)
    return waiter


class Line(Generic[T]):
    """Pieces on their way through a thread, in their order: all that come during one job are the next."""

    def __init__(
        self,
        in_thread: InThread,
        work: Callable[[Sequence[bytes], int], T],
        done: Callable[[T], None],
        failed: Callable[[Failure], None],
        position: int,
    ) -> None:
        """`work`: gets the pieces of a job, and where the first of them begins.

        `done`, `failed`: get what became of each job; after a failure there are no more, until more is pushed.
        """
        self._in_thread = in_thread
        self._work = work
        self._done = done
        self._failed = failed
        self._pieces: list[bytes] = []
        self.position = position
        """Where the bytes end that have been through."""
        self.waiting = 0
        """Bytes that have not been through, with those of the job."""
        self.busy = False

    def push(self, pieces: Sequence[bytes]) -> None:
        self._pieces += pieces
        self.waiting += sum(map(len, pieces))
        if not self.busy:
            self._begin()

    def stop(self) -> None:
        """Forget what is in no job yet."""
        self.waiting -= sum(map(len, self._pieces))
        self._pieces.clear()

    def _begin(self) -> None:
        pieces, self._pieces = self._pieces, []
        self.busy = True
        job = self._in_thread(self._work, pieces, self.position)
        job.addBoth(self._ended, sum(map(len, pieces)))

    def _ended(self, outcome: T | Failure, count: int) -> None:
        self.busy = False
        self.waiting -= count
        if isinstance(outcome, Failure):
            self._failed(outcome)
            return
        self.position += count
        if self._pieces:  # the thread goes on while others are told
            self._begin()
        self._done(outcome)

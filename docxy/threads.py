"""Work done off the reactor's thread, and work that goes on when its caller stops waiting."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from threading import Thread
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger()


class InThread(Protocol):
    """Calls blocking work in a thread: `deferToThreadPool` with its reactor and pool bound."""

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...


class Threads(Service):
    """A pool of threads for one kind of work, so that much of that work holds up no other kind."""

    def __init__(self, reactor: Any, most: int, name: str) -> None:
        """`most`: threads at once."""
        self._pool = ThreadPool(0, most, name=name)
        self.in_thread: InThread = partial(deferToThreadPool, reactor, self._pool)

    def startService(self) -> None:
        Service.startService(self)
        self._pool.start()

    def stopService(self) -> None:
        """Returns when all work has ended.  May be called twice."""
        if self.running:
            Service.stopService(self)
            self._pool.stop()


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


def in_own_thread(reactor: Any, name: str) -> InThread:
    """Blocking work that nothing waits for at the stop: each call has a thread that ends with the process.

    For work that may take minutes and leaves nothing half done wherever it ends.
    """

    def begin(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        outcome: Deferred[T] = Deferred()

        def run() -> None:
            try:
                result = work(*args, **kwargs)
            except Exception:
                reactor.callFromThread(outcome.errback, Failure())
            else:
                reactor.callFromThread(outcome.callback, result)

        Thread(target=run, name=name, daemon=True).start()
        return outcome

    return begin

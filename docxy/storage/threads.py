"""Work done off the reactor's thread, and work that is not undone by whoever stops waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

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

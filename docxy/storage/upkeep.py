"""Work on a cache directory that nobody waits for, and the mending of its index.

The law: the first to find the index damaged has it counted anew, once in all processes, while hits go on;
and nothing of this runs when `ended` has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.storage.index import Index, IndexDamaged
from docxy.threads import InThread

P = ParamSpec("P")
T = TypeVar("T")


@define(eq=False)
class Upkeep:
    """Of one store."""

    _directory: str
    """For messages."""
    _index: Index
    _in_thread: InThread
    rebuilding: bool = field(init=False, default=False)
    _running: set[Deferred[None]] = field(init=False, factory=set)

    _log = Logger()

    def indexed(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """As `in_thread`; an index that turns out to be damaged is mended meanwhile."""

        def failed(reason: Failure) -> Failure:
            if isinstance(reason.value, IndexDamaged):
                self.mend(reason.value)
            return reason

        return self._in_thread(work, *args, **kwargs).addErrback(failed)

    def mend(self, error: IndexDamaged) -> None:
        """Count all files in a thread.  Hits go on; nothing new is kept until it is done."""
        if self.rebuilding:
            return
        self.rebuilding = True
        self._log.warn("counting the blobs in {path} anew: {error}", path=self._directory, error=error)

        def counted(outcome: bool | Failure) -> bool | Failure:
            self.rebuilding = False
            if outcome is True:
                self._log.info("counted the blobs in {path}", path=self._directory)
            return outcome

        self.do(self._in_thread(self._index.rebuild).addBoth(counted))

    def do(self, work: Deferred[T] | Coroutine[Any, Any, T]) -> None:
        """Let work run that nobody waits for; what it raises is logged."""
        running = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)

        def done(outcome: object) -> None:
            self._running.discard(noted)
            if isinstance(outcome, Failure):
                self._log.error(
                    "upkeep of {path} failed: {error}", path=self._directory, error=outcome.getErrorMessage()
                )

        noted: Deferred[None] = Deferred()
        self._running.add(noted)
        running.addBoth(done).chainDeferred(noted)

    async def ended(self) -> None:
        """Return when none of it runs, nor what it began meanwhile."""
        while self._running:
            await DeferredList(self._running)

"""The read model as the web sees it, in this process or in the supervisor.

The laws: it gives everything; the web decides what of it a viewer may see.  A snapshot waits for no disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from zope.interface import Interface, implementer

from docxy.observe.history import PullHistory
from docxy.observe.journal import from_json
from docxy.observe.model import SHOWN_PULLS, ReadModel
from docxy.observe.recorder import IModel
from docxy.observe.verdict import verdict


class IView(Interface):
    """Asks the read model."""

    async def snapshot() -> dict[str, Any]:
        """See `ReadModel.snapshot`.  Raises Unseen."""

    async def pulls(most: int, repository: tuple[str, str] | None) -> list[dict[str, Any]]:
        """The newest pulls, those of the last days too; of one repository or of all.  Raises Unseen."""

    def subscribe(changed: Callable[[], object]) -> Callable[[], None]:
        """Have `changed` called, at most once a second, when a snapshot would be another one; returns what ends it."""


@frozen
class Reading:
    """The read model as one process has it."""

    model: IModel
    """Hears what this process does."""
    view: IView
    """Knows what all processes do."""


class Unseen(Exception):
    """The read model cannot be asked now."""


AGAIN = 30.0
"""Seconds after which the history is read again: the docxy from which this one took over may write into it still."""


@implementer(IView)
class LocalView:
    """The read model of this process, with the newest pulls from before its start."""

    def __init__(self, model: ReadModel, history: PullHistory | None, news: News, seconds: Callable[[], float]) -> None:
        """`history`: None where nothing is kept on disk."""
        self._model = model
        self._history = history
        self._news = news
        self._seconds = seconds
        self._before: list[dict[str, Any]] = []
        """The newest pulls that the history had when it was last read."""
        self._is_reading = False
        self._read_at = float("-inf")

    async def snapshot(self) -> dict[str, Any]:
        snapshot = self._model.snapshot()
        missing = SHOWN_PULLS - len(snapshot["pulls"])
        if missing > 0:
            self.look_back()
            seen = {pull["id"] for pull in snapshot["pulls"]}
            snapshot["pulls"] += [pull for pull in self._before if pull["id"] not in seen][:missing]
        return snapshot

    def look_back(self) -> None:
        """Read the newest pulls of the history for the snapshots that come, unless that was done just now."""
        if self._history is None or self._is_reading or self._seconds() - self._read_at < AGAIN:
            return
        self._is_reading = True
        self._history.recent(SHOWN_PULLS).addCallback(self._looked_back)

    def _looked_back(self, found: list[dict[str, Any]]) -> None:
        self._is_reading, self._read_at = False, self._seconds()
        before = _readable(found)
        if before and before != self._before:
            self._before = before
            self._news.publish()

    async def pulls(self, most: int, repository: tuple[str, str] | None) -> list[dict[str, Any]]:
        running = self._model.pulls(most, None if repository is None else "/".join(repository))
        if self._history is None or len(running) >= most:
            return running
        seen = {pull["id"] for pull in running}
        older = _readable(await self._history.recent(most, repository))
        return [*running, *(pull for pull in older if pull["id"] not in seen)][:most]

    def subscribe(self, changed: Callable[[], object]) -> Callable[[], None]:
        return self._news.subscribe(changed)


def _readable(pulls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that this version knows how to show: another version, newer or older, may have written them."""
    found = []
    for pull in pulls:
        try:
            verdict(from_json(pull))
        except (KeyError, TypeError):
            continue
        found.append(pull)
    return found


class News:
    """Tells subscribers that something changed, at most once every `pause` seconds."""

    def __init__(self, clock: Any, pause: float = 1.0) -> None:
        """`clock`: IReactorTime."""
        self._clock = clock
        self._pause = pause
        self._subscribers: list[Callable[[], object]] = []
        self._due = False
        self._resting: Any = None

    def subscribe(self, changed: Callable[[], object]) -> Callable[[], None]:
        """See `IView.subscribe`."""
        self._subscribers.append(changed)

        def unsubscribe() -> None:
            if changed in self._subscribers:
                self._subscribers.remove(changed)
            if not self._subscribers:
                self._rest(None)

        return unsubscribe

    def publish(self) -> None:
        """Something changed."""
        if not self._subscribers:
            return
        if self._resting is not None:
            self._due = True
            return
        self._rest(self._clock.callLater(self._pause, self._rested))
        for changed in list(self._subscribers):
            changed()

    def _rested(self) -> None:
        self._resting = None
        if self._due:
            self.publish()

    def _rest(self, resting: Any) -> None:
        if self._resting is not None:
            self._resting.cancel()
        self._resting, self._due = resting, False

    def stop(self) -> None:
        """No more."""
        self._subscribers.clear()
        self._rest(None)

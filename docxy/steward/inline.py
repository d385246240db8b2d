"""The steward of a stopped docxy's directory, without a reactor: each step is done when it is awaited.

The laws: nothing here waits for another process's news, and nothing comes later: what is due (uses, rows on their
way) is written when the cache is closed.  *Who changes a cache that a docxy uses asks that docxy*: a docxy that
serves holds a shared lock (`storage.presence`), and an act that changes anything is refused while one does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from docxy.catalog.sqlite import SqliteCatalog
from docxy.questions import Nobody
from docxy.settings.model import Config
from docxy.settings.policy import Policy
from docxy.steward.lines import Act, Arguments, Failed, Line, Lines
from docxy.steward.steward import UNKNOWN_BUDGET, Steward, open_cache
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.paths import Tree
from docxy.storage.presence import is_used
from docxy.storage.shares import USUAL, Shares

P = ParamSpec("P")
T = TypeVar("T")


class _WallClock(Clock):
    """The time since the epoch; what is to come later never does."""

    def seconds(self) -> float:
        return time.time()


def at_once(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """Calls work in this thread: the only one there is."""
    return execute(work, *args, **kwargs)


def finish(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of work that waits for nothing."""
    outcome: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(outcome.append)
    if not outcome:
        raise RuntimeError("this waits for another process, which a stopped docxy's directory cannot")
    if hasattr(outcome[0], "raiseException"):
        outcome[0].raiseException()
    found: T = outcome[0]
    return found


@contextmanager
def beside(
    directory: str, budget: int, shares: Shares, clock: IReactorTime | None = None
) -> Iterator[tuple[FilesystemStore, SqliteCatalog]]:
    """Store and catalog of a directory, beside a docxy that serves from it or without one, to add something.

    `budget`: bytes that the cache may take; `shares`: of these; `clock`: None: the time since the epoch.
    Raises Failed.
    """
    store, catalog = open_cache(os.path.abspath(directory), budget, shares, clock or _WallClock(), at_once, at_once)
    try:
        yield store, catalog
    finally:
        finish(store.stop())
        finish(catalog.close())


@contextmanager
def stopped(directory: str, act: Act, config: Config | None = None) -> Iterator[Steward]:
    """The steward of a directory, for one act; `config`: of the docxy that uses it.  Raises Failed."""
    tree = Tree(os.path.abspath(directory))
    if not os.path.exists(tree.index):
        raise Failed(f"{tree.directory} is no cache of docxy's: it has no {os.path.basename(tree.index)}")
    if not act.cache:
        raise Failed("no docxy runs here: leave out --cache")
    if act.changes and is_used(tree):
        raise Failed(f"a docxy that runs uses {tree.directory}: run the command without --cache, to ask that docxy")
    clock = _WallClock()
    shares = USUAL if config is None else Shares.of(config)
    with beside(tree.directory, UNKNOWN_BUDGET, shares, clock) as (store, catalog):
        policy = Policy() if config is None else config.policy
        yield Steward(store, catalog, Nobody(), None, config, lambda: policy, at_once, clock, tree.directory)


def run(directory: str, act: Act, arguments: Arguments, config: Config | None = None) -> Generator[Line, None, None]:
    """What an act says; `config`: see `stopped`.  Raises RegistryError."""
    with stopped(directory, act, config) as steward:
        yield from steps(act.run(steward, arguments))


def steps(lines: Lines) -> Generator[Line, None, None]:
    """The lines of an act that waits for nothing."""
    try:
        while (line := finish(_next(lines))) is not None:
            yield line
    finally:
        finish(lines.aclose())


async def _next(lines: Any) -> Line | None:
    try:
        line: Line = await lines.__anext__()
    except StopAsyncIteration:
        return None
    return line

"""What keeps the catalog's file away from the reactor's thread: reads and writes go through one thread.

The laws:
- *Nobody waits for a disk or a lock.*  Writes go behind, all that come during one transaction in the next one; a read
  that takes longer than PATIENCE finds nothing.
- What memory has is believed as long as the file is known to be changed by nobody else: LAG seconds after the last
  look at it.  A look costs one read.  So another process's word is heard after LAG at the latest.
- What waits to be written has a bound; beyond it the oldest is forgotten, and the operator told.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.catalog.file import CatalogFile, Row, Stamp, Statement
from docxy.catalog.interfaces import is_recent
from docxy.threads import InThread

LAG = 1.0
"""Seconds for which memory is believed without looking at the file."""
PATIENCE = 2.0
"""Seconds for which somebody waits for the thread."""
RETRY = 0.5
"""Seconds between two attempts to write, while writing fails."""
MAX_WRITES = 10_000
"""Rows that wait to be written."""
MAX_WRITE_BYTES = 16 << 20
_COMPLAINT = 60.0
"""Seconds between two lines that say the same."""

Key = tuple[str, ...]
"""A table's name and a row's keys."""


class Broken(Exception):
    """The file cannot be read now."""


@frozen
class Write:
    """A row on its way to the file."""

    statements: tuple[Statement, ...]
    value: Any
    """What the row is then; None: there is none."""
    weight: int
    """Bytes."""


class Behind:
    """Reads and writes of one catalog's file."""

    _log = Logger()

    def __init__(self, file: CatalogFile, in_thread: InThread, clock: IReactorTime) -> None:
        """`in_thread`: runs one job at a time, in order."""
        self._file = file
        self._in_thread = in_thread
        self._clock = clock
        self._stamp: Stamp | None = None
        self._looked = float("-inf")
        self._complained = float("-inf")
        self._pending: dict[Key, Write] = {}
        self._writing: dict[Key, Write] = {}
        self._weight = 0
        self._is_busy = False
        self._is_closed = False
        self._retry: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        self._waiting_next: list[Deferred[None]] = []
        self.generation = 0
        """Changes when rows in memory may be out of date."""

    # -- reading

    @property
    def is_current(self) -> bool:
        """Whether memory of this generation is believed without a look."""
        return is_recent(self._looked, self._clock.seconds(), LAG)

    async def read(self, sql: str, values: Row) -> list[Row]:
        """The rows of a query; memory is up to date with the file then.  Raises Broken."""
        now = self._clock.seconds()
        reading = self._in_thread(self._file.read, sql, values)
        if not reading.called:
            reading.addTimeout(PATIENCE, self._clock)
        try:
            stamp, rows = await reading
        except Exception as error:
            self._complain(error)
            raise Broken from error
        if stamp != self._stamp:
            self._stamp = stamp
            self.generation += 1
        self._looked = now
        return rows

    def find(self, key: Key) -> Write | None:
        """What is on its way to the file under a key."""
        return self._pending.get(key) or self._writing.get(key)

    # -- writing

    def write(self, key: Key, write: Write) -> None:
        """Replaces what waits under the same key."""
        if self._is_closed:
            return
        replaced = self._pending.pop(key, None)
        self._weight += write.weight - (0 if replaced is None else replaced.weight)
        self._pending[key] = write
        while len(self._pending) > MAX_WRITES or self._weight > MAX_WRITE_BYTES:
            self._weight -= self._pending.pop(next(iter(self._pending))).weight
            self._complain("more is to be written than can be: the oldest is forgotten")
        if not self._is_busy and self._retry is None:
            self._begin()

    async def run(self, statement: Statement) -> int:
        """A statement of its own, after what is being written; the number of changed rows, 0 when it fails."""
        try:
            return await self._in_thread(self._file.write, [statement])
        except Exception as error:
            self._complain(error)
            return 0

    async def must_run(self, statements: Sequence[Statement]) -> int:
        """As `run`, in one transaction.  Raises Broken."""
        await self.flushed()
        try:
            return await self._in_thread(self._file.write, statements)
        except Exception as error:
            self._complain(error)
            raise Broken(str(error)) from error

    async def give_back(self, pages: int) -> int:
        """See `CatalogFile.give_back`."""
        try:
            return await self._in_thread(self._file.give_back, pages)
        except Exception as error:
            self._complain(error)
            return 0

    def _begin(self) -> None:
        self._retry = None
        self._is_busy = True
        self._writing, self._pending, self._weight = self._pending, {}, 0
        self._waiting, self._waiting_next = self._waiting_next, []
        statements = [each for write in self._writing.values() for each in write.statements]
        self._in_thread(self._file.write, statements).addBoth(self._wrote)

    def _wrote(self, outcome: int | Failure) -> None:
        self._is_busy = False
        written, self._writing = self._writing, {}
        waiting, self._waiting = self._waiting, []
        if isinstance(outcome, Failure):
            self._complain(outcome.value)
            # What came later stands for what it replaces.
            self._pending = {**written, **self._pending}
            self._weight = sum(write.weight for write in self._pending.values())
            if not self._is_closed:
                self._retry = self._clock.callLater(RETRY, self._begin)
            waiting += self._waiting_next
            self._waiting_next = []
        elif self._pending:
            self._begin()
        for each in waiting:
            if not each.called:
                each.callback(None)

    async def flushed(self) -> None:
        """Returns when all that waits now has been written, could not be, or takes longer than PATIENCE."""
        if self._pending and self._retry is None:
            waiter = self._later(self._waiting_next)
        elif self._is_busy:
            waiter = self._later(self._waiting)
        else:
            return
        if not waiter.called:
            waiter.addTimeout(PATIENCE, self._clock)
        with suppress(TimeoutError):
            await waiter

    def _later(self, waiting: list[Deferred[None]]) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        waiting.append(waiter)
        return waiter

    async def close(self) -> None:
        """A last attempt to write what waits."""
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
            self._begin()
        while self._is_busy:
            await self._later(self._waiting)
        if self._pending:
            self._log.error("{count} rows of the catalog could not be written", count=len(self._pending))
        await self._in_thread(self._file.close)

    def _complain(self, why: object) -> None:
        now = self._clock.seconds()
        if not is_recent(self._complained, now, _COMPLAINT):
            self._complained = now
            self._log.error(
                "the catalog {path} cannot be used, pulls go on without it: {why}", path=self._file.path, why=why
            )


def statements(*pairs: tuple[str, Sequence[Any]]) -> tuple[Statement, ...]:
    """Statements with their values."""
    return tuple(Statement(sql, tuple(values)) for sql, values in pairs)

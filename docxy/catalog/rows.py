"""Rows of one table, by their keys: in memory alone, or in memory before the file.

The law: both have bounds.  Memory before the file may forget any row; memory alone forgets what was used least
recently.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, Generic, Literal, Protocol, TypeVar

from cachetools import LRUCache

from docxy.catalog.behind import Behind, Broken, Write, statements
from docxy.catalog.schema import Table
from docxy.single_flight import SingleFlight


class Unread(enum.Enum):
    """Memory does not know; the file may."""

    UNREAD = "unread"


UNREAD: Final = Unread.UNREAD
Unknown = Literal[Unread.UNREAD]


V = TypeVar("V")
Keys = tuple[str, ...]
TRIM_EVERY = 500
"""Rows that are put between two looks at how many there are: names that never come again come faster than upkeep."""
_ROW_BYTES = 500
"""What a row weighs on its way to the file, about, beside what is in it."""


class IRows(Protocol[V]):
    """A table; the key of a row is that of the table, the upstream's name first if it has one."""

    async def get(self, key: Keys, latest: bool = False) -> V | None:
        """The row; None when there is none or the file cannot be read; `latest`: not from memory."""

    def put(self, key: Keys, value: V) -> None:
        """Write a row, replacing what was there or merged with it, as the table says."""

    def change(self, key: Keys, value: V) -> None:
        """The same, unless another process dropped the row meanwhile."""

    def drop(self, key: Keys) -> None:
        """Remove a row."""


class MemoryRows(Generic[V]):
    """Of this process alone; every key is known."""

    def __init__(self, table: Table[V]) -> None:
        bound = table.most if table.weigh is None else table.in_memory
        self._merge = table.merge
        self.rows: LRUCache[Keys, V] = LRUCache(bound, getsizeof=table.weigh)

    async def get(self, key: Keys, latest: bool = False) -> V | None:
        return self.rows.get(key)

    def put(self, key: Keys, value: V) -> None:
        before = None if self._merge is None else self.rows.get(key)
        self.rows[key] = value if self._merge is None or before is None else self._merge(before, value)

    def change(self, key: Keys, value: V) -> None:
        if key in self.rows:
            self.rows[key] = value

    def drop(self, key: Keys) -> None:
        self.rows.pop(key, None)


class FileRows(Generic[V]):
    """Of the file, what was used last in memory; what is absent is remembered too."""

    def __init__(
        self,
        table: Table[V],
        behind: Behind,
        also: Callable[[Keys], tuple[tuple[str, tuple[object, ...]], ...]] = lambda _: (),
    ) -> None:
        """`also`: what else is run in the transaction that puts a row."""
        self._table = table
        self._behind = behind
        self._also = also
        self._select, self._insert, self._delete = table.select, table.insert, table.delete
        self._update = table.update
        weigh = table.weigh
        size = None if weigh is None else lambda entry: 1024 if entry[1] is None else weigh(entry[1])
        self._memory: LRUCache[Keys, tuple[int, V | None]] = LRUCache(table.in_memory, getsizeof=size)
        self._reading: SingleFlight[Keys, V | None] = SingleFlight()
        self._put = 0

    def peek(self, key: Keys) -> V | Unknown | None:
        """The row that memory has, None when there is none anywhere; UNREAD when only the file can tell."""
        try:
            generation, value = self._memory[key]
        except KeyError:
            return UNREAD
        behind = self._behind
        return value if generation == behind.generation and behind.is_current else UNREAD

    async def get(self, key: Keys, latest: bool = False) -> V | None:
        if not latest:
            known = self.peek(key)
            if known is not UNREAD:
                return known
        write = self._behind.find((self._table.name, *key))
        if write is not None:
            value: V | None = write.value
            return self._written(key, value)
        # What is read for another may have been read before what this one must see.
        return await (self._read(key) if latest else self._reading.do(key, lambda: self._read(key)))

    async def _read(self, key: Keys) -> V | None:
        try:
            rows = await self._behind.read(self._select, key)
        except Broken:
            return None
        write = self._behind.find((self._table.name, *key))
        if write is not None:  # what we wrote meanwhile is newer
            value: V | None = write.value
            return self._written(key, value)
        return self._remember(key, self._table.load(*rows[0]) if rows else None)

    def _remember(self, key: Keys, value: V | None) -> V | None:
        self._memory[key] = (self._behind.generation, value)
        return value

    def _written(self, key: Keys, value: V | None) -> V | None:
        """What is on its way to the file; how it is merged there, only the file can tell."""
        if self._table.merge is None:
            return self._remember(key, value)
        self._memory.pop(key, None)
        return value

    def put(self, key: Keys, value: V) -> None:
        merge = self._table.merge
        write = None if merge is None else self._behind.find((self._table.name, *key))
        if merge is not None and write is not None and write.value is not None:
            value = merge(write.value, value)
        self._write(key, value, self._insert, (*key, *self._table.dump(value)))

    def change(self, key: Keys, value: V) -> None:
        if self._behind.find((self._table.name, *key)) is not None:
            self.put(key, value)
        else:
            self._write(key, value, self._update, (*self._table.dump(value), *key))

    def drop(self, key: Keys) -> None:
        self._write(key, None, self._delete, key)

    def _write(self, key: Keys, value: V | None, sql: str, values: tuple[object, ...]) -> None:
        self._written(key, value)
        weigh = self._table.weigh
        weight = _ROW_BYTES + (0 if value is None or weigh is None else weigh(value))
        also = () if value is None else self._also(key)
        self._put += value is not None
        if value is not None and self._put % TRIM_EVERY == 0:
            also = (*also, (self._table.delete_oldest, (2 * TRIM_EVERY,)))
        self._behind.write((self._table.name, *key), Write(statements((sql, values), *also), value, weight))

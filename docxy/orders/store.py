"""Where orders are kept: a file in the cache's directory, or memory.

    orders.json         all of it; written anew, then renamed, by the process that changes it
    orders.json.lock    held meanwhile

The laws: *an order that was confirmed is never forgotten*: the file is on the disk before a command succeeds, it is
not the catalog's, which may be begun anew, and a process that cannot read it any more goes on with what it read
last.  One that never could read it says so (`problem`), and then nothing may be served.  A look costs a `stat`, so
that every process sees another's change at once.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from docxy.orders.model import MOST, MOST_KNOWN, NONE, Kind, Order, Orders, TooMany

VERSION = 1
LARGEST = 64 << 20
"""Bytes."""
_MODE = 0o600

_Signature = tuple[int, int, int, int]


class OrdersUnusable(Exception):
    """The file cannot be read or written; the message names it and says what to do."""


class IOrders(Interface):
    """All orders of a docxy."""

    problem: str | None = Attribute("Why the orders are not known; None: they are.")

    def look() -> Orders:
        """The orders as they are now; the same object as long as nobody changed them."""

    def put(order: Order) -> None:
        """Keep an order in the place of one with its key.  May block.  Raises TooMany, OrdersUnusable."""

    def lift(kind: Kind, about: str) -> bool:
        """Take an order back; whether there was one.  May block.  Raises OrdersUnusable."""

    def learn(known: Mapping[str, Iterable[str]]) -> None:
        """Note what belongs to recalled digests; see `Orders.known`.  May block.  Raises OrdersUnusable."""


class _Changing:
    """What both do with orders; pure."""

    @staticmethod
    def with_order(before: Orders, order: Order) -> Orders:
        orders = {key: each for key, each in before.orders.items() if key != order.key}
        if len([1 for each in orders.values() if each.kind is order.kind]) >= MOST:
            raise TooMany(f"there are {MOST} orders of the kind {order.kind.value} already: take some back first")
        return Orders({**orders, order.key: order}, before.known)

    @staticmethod
    def with_known(before: Orders, known: Mapping[str, Iterable[str]]) -> Orders:
        news = {recalled: tuple(sorted(digests)) for recalled, digests in known.items()}
        kept = {recalled: digests for recalled, digests in before.known.items() if recalled not in news}
        both = [*kept.items(), *news.items()]
        return Orders(before.orders, dict(both[-MOST_KNOWN:]))


@implementer(IOrders)
class MemoryOrders:
    """Of this process, gone with it."""

    problem = None

    def __init__(self) -> None:
        self._orders = NONE

    def look(self) -> Orders:
        return self._orders

    def put(self, order: Order) -> None:
        self._orders = _Changing.with_order(self._orders, order)

    def lift(self, kind: Kind, about: str) -> bool:
        key = (kind.value, about)
        there = key in self._orders.orders
        left = {each: order for each, order in self._orders.orders.items() if each != key}
        self._orders = Orders(left, self._orders.known)
        return there

    def learn(self, known: Mapping[str, Iterable[str]]) -> None:
        self._orders = _Changing.with_known(self._orders, known)


@implementer(IOrders)
class FileOrders:
    """Of all processes that share a cache's directory."""

    _log = Logger()

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "orders.json")
        self.problem: str | None = None
        self._seen: _Signature | None = None
        self._looked = False
        self._orders = NONE

    def look(self) -> Orders:
        try:
            seen: _Signature | None = _signature(self.path)
        except OSError as error:
            self._cannot(f"cannot read {self.path}: {error.strerror}", None)
            return self._orders
        if self._looked and seen == self._seen:
            return self._orders
        try:
            orders = NONE if seen is None else _read(self.path)
        except OrdersUnusable as error:
            self._cannot(str(error), seen)
            return self._orders
        if seen is None and self._seen is not None:
            # Orders are taken back by command: what removed the file may have meant something else.
            self._cannot(f"{self.path} is gone", None)
            return self._orders
        self._orders, self._seen, self._looked, self.problem = orders, seen, True, None
        return orders

    def _cannot(self, why: str, seen: _Signature | None) -> None:
        if not self._looked:
            self.problem = why
            return
        if seen != self._seen:
            self._seen = seen
            self._log.error("{why}; the orders stay as they were until docxy starts again", why=why)

    def put(self, order: Order) -> None:
        self._change(lambda before: _Changing.with_order(before, order))

    def lift(self, kind: Kind, about: str) -> bool:
        key = (kind.value, about)
        there = False

        def without(before: Orders) -> Orders:
            nonlocal there
            there = key in before.orders
            return Orders({each: order for each, order in before.orders.items() if each != key}, before.known)

        self._change(without)
        return there

    def learn(self, known: Mapping[str, Iterable[str]]) -> None:
        self._change(lambda before: _Changing.with_known(before, known))

    def _change(self, change: Callable[[Orders], Orders]) -> None:
        try:
            with open(os.open(f"{self.path}.lock", os.O_WRONLY | os.O_CREAT, _MODE), "wb") as lock:
                fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
                before = _read(self.path) if os.path.exists(self.path) else self._orders
                after = change(before)
                if after != before:
                    _write(self.path, after)
        except OSError as error:
            raise OrdersUnusable(f"cannot write {self.path}: {error.strerror}") from None


def orders_in(directory: str | None) -> IOrders:
    """The orders of a cache's directory, read now; None: this process keeps its own.

    What is known by then stays in force should the disk fail before the first request.
    """
    orders: IOrders = MemoryOrders() if directory is None else FileOrders(directory)
    orders.look()
    return orders


def _signature(path: str) -> _Signature | None:
    """What changes when the file is replaced; None when there is none.  Raises OSError."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: str) -> Orders:
    """Raises OrdersUnusable."""
    hint = "mend it, or remove it and give the orders again"
    try:
        with open(path, "rb") as file:
            told: Any = json.loads(file.read(LARGEST))
        if told["version"] > VERSION:
            raise OrdersUnusable(f"{path} was written by a newer docxy: run that version again")
        orders = [Order.from_json(each) for each in told["orders"]]
        known = {str(recalled): tuple(str(digest) for digest in digests) for recalled, digests in told["known"].items()}
    except OSError as error:
        raise OrdersUnusable(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise OrdersUnusable(f"{path} is damaged ({error!r}): {hint}"[:500]) from None
    return Orders({order.key: order for order in orders}, known)


def _write(path: str, orders: Orders) -> None:
    """Raises OSError; then the file is as it was."""
    told = {
        "version": VERSION,
        "orders": [order.to_json() for order in orders.orders.values()],
        "known": orders.known,
    }
    made = f"{path}.{os.getpid()}"
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE), "w", encoding="utf-8") as file:
            json.dump(told, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(made)
        raise
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

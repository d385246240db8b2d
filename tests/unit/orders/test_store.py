"""Where orders are kept: one contract for the file and for memory, several processes, damage, and who may read it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from docxy.orders import store
from docxy.orders.model import LONGEST, Kind, Order, TooMany
from docxy.orders.store import FileOrders, IOrders, MemoryOrders, OrdersUnusable, orders_in
from tests.unit.access.harness import logged

DIGEST = "sha256:" + "a" * 64
RECALL = Order(Kind.RECALL, "", DIGEST, "bad", 1000.0, "root")
FREEZE = Order(Kind.FREEZE, "docker.io/library/python:3.12", DIGEST, "", 1001.0, "root")

if TYPE_CHECKING:
    Base = SynchronousTestCase
else:
    Base = object


class Contract(Base):
    def make(self) -> IOrders:
        raise NotImplementedError

    def setUp(self) -> None:
        self.orders = self.make()

    def test_interface(self) -> None:
        """It has the methods that it promises."""
        verifyObject(IOrders, self.orders)

    def test_put_and_lift(self) -> None:
        """An order stands until it is lifted; the same given again takes its place; the oldest come first."""
        self.orders.put(RECALL)
        self.orders.put(FREEZE)
        self.orders.put(evolve(RECALL, reason="worse"))
        self.assertEqual([order.reason for order in self.orders.look().of(Kind.RECALL)], ["worse"])
        self.assertEqual(self.orders.look().of(Kind.FREEZE), [FREEZE])
        self.assertEqual(self.orders.look().of(Kind.PIN), [])
        self.assertFalse(self.orders.lift(Kind.PIN, DIGEST))
        self.assertTrue(self.orders.lift(Kind.RECALL, DIGEST))
        self.assertFalse(self.orders.lift(Kind.RECALL, DIGEST))
        self.assertEqual([*self.orders.look().orders], [FREEZE.key])

    def test_unchanged(self) -> None:
        """As long as nobody changes them, the orders are the same object, and need not be made sense of anew."""
        self.orders.put(RECALL)
        self.assertIs(self.orders.look(), self.orders.look())

    def test_most(self) -> None:
        """Orders of one kind have a bound; one that is there may be given again, and other kinds have room."""
        self.patch(store, "MOST", 3)
        for number in range(3):
            self.orders.put(evolve(RECALL, image=f"docker.io/a/{number}", digest=""))
        self.assertRaises(TooMany, self.orders.put, RECALL)
        self.orders.put(evolve(RECALL, image="docker.io/a/1", digest="", reason="again"))
        self.orders.put(FREEZE)
        self.assertEqual(len(self.orders.look().orders), 4)

    def test_known(self) -> None:
        """What belongs to recalled digests is kept, and has a bound."""
        self.patch(store, "MOST_KNOWN", 2)
        for root in ("one", "two", "three"):
            self.orders.learn({root: {"b", "a"}})
        self.assertEqual(self.orders.look().known, {"two": ("a", "b"), "three": ("a", "b")})


class MemoryTests(Contract, SynchronousTestCase):
    def make(self) -> MemoryOrders:
        return MemoryOrders()


class FileTests(Contract, SynchronousTestCase):
    def make(self) -> FileOrders:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        return FileOrders(str(self.directory))

    @property
    def file(self) -> Path:
        return self.directory / "orders.json"

    def test_others(self) -> None:
        """Another process's order is there at the next look, and after a restart; both may change it."""
        other = FileOrders(str(self.directory))
        self.assertEqual(other.look().orders, {})
        self.orders.put(RECALL)
        self.assertEqual(other.look().of(Kind.RECALL), [RECALL])
        other.put(FREEZE)
        self.assertEqual([*self.orders.look().orders], [RECALL.key, FREEZE.key])
        self.assertEqual([*FileOrders(str(self.directory)).look().orders.values()], [RECALL, FREEZE])

    def test_old_cache(self) -> None:
        """A directory of a docxy that knew no orders has none, and nothing is wrong with it."""
        (self.directory / "catalog.sqlite").write_bytes(b"")
        self.assertEqual(self.orders.look().orders, {})
        self.assertIsNone(self.orders.problem)

    def test_private(self) -> None:
        """Only docxy's user may read the file, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.orders.put(RECALL)
        for name in ("orders.json", "orders.json.lock"):
            self.assertEqual(stat.S_IMODE((self.directory / name).stat().st_mode), 0o600, name)
        self.assertEqual(sorted(os.listdir(self.directory)), ["orders.json", "orders.json.lock"])

    def test_read_at_the_start(self) -> None:
        """What stood when the process started stays in force where the disk fails before the first request."""
        self.orders.put(RECALL)
        orders = orders_in(str(self.directory))

        def failing(path: str) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(store, "_signature", failing)
        self.assertEqual((len(orders.look().orders), orders.problem), (1, None))

    def test_damaged_at_first(self) -> None:
        """A process that cannot read the orders says so: it must not serve as if there were none."""
        self.orders.put(RECALL)
        whole = self.file.read_text()
        long = json.dumps({"version": 1, "orders": [{**RECALL.to_json(), "reason": "x" * (LONGEST + 1)}], "known": {}})
        for content, why in (
            ("{", "damaged"),
            ("[]", "damaged"),
            ('{"version": 1}', "damaged"),
            (long, "too long"),
            (json.dumps({"version": 2}), "newer docxy"),
        ):
            self.file.write_text(content)
            fresh = FileOrders(str(self.directory))
            self.assertEqual(fresh.look().orders, {})
            self.assertIn(why, str(fresh.problem))
            self.assertIn(str(self.file), str(fresh.problem))
            self.assertRaises(OrdersUnusable, fresh.put, FREEZE)
        self.file.write_text(whole)
        self.assertEqual(fresh.look().of(Kind.RECALL), [RECALL])
        self.assertIsNone(fresh.problem)

    def test_damaged_later(self) -> None:
        """A file that is damaged or removed while docxy runs takes no order back, and the log says so once."""
        self.orders.put(RECALL)
        stands = self.orders.look()
        with logged() as lines:
            self.file.write_text("{")
            self.assertIs(self.orders.look(), stands)
            self.assertIs(self.orders.look(), stands)
            self.file.unlink()
            self.assertIs(self.orders.look(), stands)
            self.assertIs(self.orders.look(), stands)
        self.assertIsNone(self.orders.problem)
        self.assertEqual(len(lines), 2)
        self.assertIn("stay as they were", lines[0])
        # An order given now brings those back that stand.
        self.orders.put(FREEZE)
        self.assertEqual([*self.orders.look().orders], [RECALL.key, FREEZE.key])

    def test_cannot_write(self) -> None:
        """An order that could not be written down does not stand, and names the file."""
        self.orders.put(RECALL)
        self.file.unlink()
        self.file.mkdir()
        error = self.assertRaises(OrdersUnusable, self.orders.put, FREEZE)
        self.assertIn(str(self.file), str(error))

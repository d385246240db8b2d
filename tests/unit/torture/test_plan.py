"""What comes from the seed, and what is counted."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.torture import disk
from tests.torture.answers import deformed, right
from tests.torture.faults import KINDS, Weather, draw
from tests.torture.library import SMALL, Shape, build
from tests.torture.marks import NAMES, Marks


class SeedTests(SynchronousTestCase):
    """Everything comes from the seed."""

    def test_library(self) -> None:
        """The same seed gives the same bytes, another one others."""
        shape = Shape(images=3, layers=3, sizes=SMALL)
        one, same, other = build(1, shape), build(1, shape), build(2, shape)
        self.assertEqual([i.versions[0].digest for i in one.images], [i.versions[0].digest for i in same.images])
        self.assertNotEqual(one.images[0].versions[0].digest, other.images[0].versions[0].digest)

    def test_faults(self) -> None:
        """The same request gets the same fault; about the share that the weather says; each kind is met."""
        weather = Weather(rate=0.25)
        drawn = [draw("1", weather, "a", "blob x", number) for number in range(4000)]
        self.assertEqual(drawn, [draw("1", weather, "a", "blob x", number) for number in range(4000)])
        self.assertEqual({*drawn}, {None, *KINDS})
        self.assertLess(abs(sum(each is not None for each in drawn) / 4000 - 0.25), 0.05)
        manifests = {draw("1", weather, "a", "manifest x", number) for number in range(4000)}
        self.assertNotIn("wrong-range", manifests)

    def test_every_fault_shows(self) -> None:
        """Every kind of fault that is an answer changes the answer to a request that it fits."""
        thing = build(1, Shape(images=1, sizes=(1000,))).images[0].blobs[0][1]
        good = right(thing, (10, 500), False)
        for fault in set(KINDS) - {"drop", "reset", "silent"}:
            self.assertNotEqual(deformed(fault, good, 0.5, "http://127.0.0.1:1/"), good, fault)


class MarksTests(SynchronousTestCase):
    """The closing line."""

    def test_summary(self) -> None:
        """Every name is in the line; one mark makes it a failure; only known names are marks."""
        said: list[str] = []
        marks = Marks(said.append)
        marks.count("pulls", 3)
        self.assertTrue(marks.clean)
        self.assertTrue(marks.summary(7, 1.0).startswith("torture ok seed=7 seconds=1 pulls=3 requests=0 kills=0"))
        marks.add("hangs", "it does not end")
        self.assertFalse(marks.clean)
        line = marks.summary(7, 1.0)
        self.assertTrue(line.startswith("torture FAILED"))
        self.assertEqual([word.partition("=")[0] for word in line.partition("| ")[2].split()], list(NAMES))
        self.assertIn("it does not end", said[0])
        self.assertRaises(ValueError, marks.add, "other", "")


class DiskTests(SynchronousTestCase):
    """What a directory takes."""

    def test_used(self) -> None:
        """Blocks are counted, each file once, and a deleted file as long as somebody has it open."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        empty = disk.used(directory)
        (directory / "one").write_bytes(bytes(100_000))
        os.link(directory / "one", directory / "same")
        full = disk.used(directory)
        self.assertIn(full - empty, range(100_000, 120_000))
        with (directory / "one").open("rb"):
            (directory / "one").unlink()
            (directory / "same").unlink()
            self.assertEqual(disk.used(directory, [os.getpid()]), full)
        self.assertEqual(disk.used(directory, [os.getpid()]), empty)

    def test_leftovers(self) -> None:
        """A part of a download is left over once everything was pulled; a file without a byte always is."""
        directory = Path(self.mktemp()).resolve()
        (directory / "incoming").mkdir(parents=True)
        self.assertEqual(disk.leftovers(directory, all_pulled=True), [])
        (directory / "incoming" / "part").write_bytes(b"x")
        (directory / "incoming" / "empty").touch()
        self.assertEqual(disk.leftovers(directory, all_pulled=False), ["incoming/empty"])
        self.assertEqual(disk.leftovers(directory, all_pulled=True), ["incoming/empty", "incoming/part"])

    def test_damaged(self) -> None:
        """A kept file whose bytes are not those of its name is found."""
        directory = Path(self.mktemp()).resolve()
        name = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of b"x"
        path = directory / "blobs" / "sha256" / "2d" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        self.assertEqual(disk.damaged(directory), [])
        path.write_bytes(b"y")
        self.assertEqual(len(disk.damaged(directory)), 1)

"""`verify`: damage is found and named, and removed only when that is asked for."""

from __future__ import annotations

import os
from pathlib import Path

from docxy.names import Digest
from docxy.steward.steward import FORGET
from docxy.storage.paths import Tree
from tests.unit.steward.case import StewardCase


class Verification(StewardCase):
    def setUp(self) -> None:
        super().setUp()
        self.layer = b"l" * 9000
        self.image("library/alpine", ["3.20"], [self.layer])
        self.digest = Digest.of(self.layer)
        self.path = Path(Tree(self.directory).blob(self.digest))

    def damage(self) -> None:
        self.path.write_bytes(b"x" + self.layer[1:])

    def test_well(self) -> None:
        """All is read, and nothing is found."""
        end = self.end("verify")
        self.assertEqual((end["blobs"], end["damaged"], end["skipped"]), (3, 0, 0))
        self.assertGreater(end["bytes"], 9000)

    def test_damaged(self) -> None:
        """Who only looks is told what is damaged and of which images it is, and it stays."""
        self.damage()
        (told,) = self.items("verify")
        self.assertEqual((told["found"], told["digest"]), ("damaged", str(self.digest)))
        self.assertEqual(told["images"], ["docker.io/library/alpine:3.20"])
        self.assertTrue(self.path.exists())

    def test_repair(self) -> None:
        """What is damaged is removed, from memory too, and then all is well."""
        self.damage()
        self.assertEqual(self.end("verify", repair=True)["repaired"], 1)
        self.assertFalse(self.path.exists())
        self.assertIn((FORGET, [str(self.digest)]), self.workers.asked)
        self.assertEqual(self.end("verify")["damaged"], 0)

    def test_missing(self) -> None:
        """A file that somebody removed is found missing, and its count mended."""
        os.unlink(self.path)
        (told,) = self.items("verify", repair=True)
        self.assertEqual(told["found"], "missing")
        self.assertEqual(self.end("verify")["damaged"], 0)

    def test_goes_on(self) -> None:
        """What was hashed lately may be left out: a run that was stopped goes on."""
        self.clock.advance(1000)
        self.end("verify")
        self.clock.advance(100)
        self.assertEqual(self.end("verify", older=200)["skipped"], 3)
        self.assertEqual(self.end("verify", older=50)["skipped"], 0)

    def test_progress(self) -> None:
        """It says how far it is, in bytes."""
        told = [line["progress"] for line in self.act("verify") if line.get("progress", {}).get("unit") == "B"]
        self.assertEqual(told[0]["done"], 0)
        self.assertEqual(told[-1]["done"], told[-1]["total"])

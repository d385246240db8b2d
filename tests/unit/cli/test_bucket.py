"""`docxy gc --archive`, and what `docxy doctor` says of a bucket."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import obstore
from obstore.store import MemoryStore

from docxy.cli import bucket as module
from docxy.cli.bucket import bucket
from docxy.settings.model import ArchiveSettings
from tests.unit.cli.case import AdminCase

SETTINGS = ArchiveSettings("s3://bucket/prefix")
BLOB = "blobs/sha256/ab/" + "ab" * 32


class GcTests(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStore()
        self.patch(module, "_store", lambda settings: self.store)
        self.file = self.directory / "docxy.toml"
        self.file.write_text(f'cache = "{self.directory}"\n[archive]\nurl = "s3://bucket/prefix"\n')
        obstore.put(self.store, BLOB, b"blob")
        later = datetime.now(timezone.utc) + timedelta(days=40)
        clock = mock.Mock(wraps=datetime)
        clock.now.return_value = later
        self.patch(module, "datetime", clock)
        self.mark = f"seen/{(later - timedelta(days=31)).date()}/node-1"

    def gc(self, status: int, *more: str) -> str:
        """All that it says."""
        result = self.run_docxy("gc", "--archive", "--config", str(self.file), *more)
        self.assertEqual(result.exit_code, status, result.output)
        return str(result.output).replace("\n", " ")

    def test_cleans(self) -> None:
        """It says what it would remove, asks first, and removes it; the docxy that runs is not asked."""
        obstore.put(self.store, self.mark, b"")
        self.assertIn("would remove 1 blobs (4 B)", self.gc(0, "--dry-run"))
        self.assertIn("--yes does it", self.gc(1))
        self.assertEqual(json.loads(self.gc(0, "--yes", "--json"))["blobs"], 1)
        self.assertEqual([each["path"] for page in obstore.list(self.store) for each in page], [self.mark])
        self.assertEqual(self.acts, [])

    def test_cannot(self) -> None:
        """Without marks, without an archive, with too short a time, and when the store fails: one line."""
        self.assertIn("the marks of use are none", self.gc(1, "--yes"))
        self.assertIn("at least 2d", self.gc(2, "--yes", "--older-than", "1d"))
        with mock.patch.object(obstore, "list", side_effect=OSError("503 Slow Down\n\nDebug source")):
            self.assertIn("s3://bucket/prefix: 503 Slow Down", self.gc(1, "--yes"))
        self.file.write_text(f'cache = "{self.directory}"\n')
        self.assertIn("names no archive", self.gc(1, "--yes"))


class DoctorTests(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStore()
        self.ends: bool | None = True
        self.patch(module, "_store", lambda settings: self.store)
        self.patch(module, "ends_incomplete", lambda settings: self.ends)

    def found(self) -> list[tuple[str, str]]:
        found = list(bucket(SETTINGS))
        for each in found:
            self.assertEqual(bool(each.mend), each.level != "good", each)
        return [(each.level, each.words) for each in found]

    def test_none(self) -> None:
        """Without an archive there is nothing to say."""
        self.assertEqual(list(bucket(None)), [])

    def test_well(self) -> None:
        """It can be written, read and removed from, and nothing is left there."""
        self.assertEqual([level for level, _ in self.found()], ["good", "good"])
        self.assertEqual(list(obstore.list(self.store)), [])

    def test_rule(self) -> None:
        """Without a rule that ends incomplete uploads it warns, and says so where the store does not tell."""
        self.ends = False
        self.assertIn(("warn", "uploads that a killed docxy left incomplete stay in the bucket for ever"), self.found())
        self.ends = None
        self.assertIn("does not say", self.found()[-1][1])

    def test_rights(self) -> None:
        """What docxy may not do there, and what that needs."""
        for name, words in (("put", "written"), ("get", "read"), ("delete", "removed from")):
            with mock.patch.object(obstore, name, side_effect=PermissionError("403 Forbidden")):
                self.assertEqual(self.found(), [("bad", f"s3://bucket/prefix cannot be {words}: 403 Forbidden")])

    def test_clock(self) -> None:
        """A clock that is an hour behind the store's."""
        real = obstore.head

        def head(store: Any, key: str) -> dict[str, Any]:
            found: dict[str, Any] = dict(real(store, key))
            return {**found, "last_modified": found["last_modified"] + timedelta(hours=1)}

        with mock.patch.object(obstore, "head", head):
            self.assertIn(("bad", "this machine's clock is 60 min behind that of the archive"), self.found())

"""Catalogs of earlier layouts: what they held is found again."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sqlite3

from twisted.python.filepath import FilePath

from docxy.catalog import schema
from docxy.catalog.interfaces import HeldManifest, Sighting
from docxy.database import NewerVersion
from docxy.names import OCI_INDEX, OCI_MANIFEST, Digest
from tests.unit.catalog.case import ONE
from tests.unit.catalog.fixtures import FileCase

BEFORE_VERSIONS = FilePath(__file__).sibling("before_versions.sql")


class Layouts(FileCase):
    """Versions of the file."""

    def old(self) -> None:
        """A file as docxy made it before there were versions."""
        database = sqlite3.connect(self.path)
        database.executescript(BEFORE_VERSIONS.getContent().decode())
        database.close()

    def test_before_versions(self) -> None:
        """Of a cache from before there were versions, every tag, held digest, verdict and fact is found again."""
        self.old()
        catalog = self.open()
        hub, other = catalog.upstream("docker.io"), catalog.upstream("ghcr.io")
        manifest, blob = Digest.of(b"manifest"), Digest.of(b"blob", "sha512")
        tag = self.now(hub.tags.get("library/alpine", "latest"))
        assert tag is not None
        self.assertEqual((tag.digest, tag.media_type, tag.size, tag.checked), (manifest, OCI_INDEX, 1638, 1.8e9))
        tag = self.now(other.tags.get("team/app", "v1"))
        assert tag is not None
        self.assertEqual((tag.digest, tag.media_type, tag.retry), (Digest.of(b"v1"), OCI_MANIFEST, 1.8e9 + 10))
        self.assertEqual(self.now(hub.held.manifest("library/alpine", manifest)), HeldManifest(OCI_INDEX, 1638, 1.8e9))
        self.assertTrue(self.now(hub.held.blob("library/alpine", blob)))
        self.assertTrue(self.now(other.held.blob("team/app", blob)))
        credential = catalog.secret.credential("Bearer fixture")
        self.assertEqual(self.now(other.verdicts.allowed_at("team/app", credential)), 1.8e9)
        self.assertEqual(self.now(hub.verdicts.allowed_at("library/alpine", "")), 1.8e9)
        self.assertEqual(self.now(hub.verdicts.public_at("library/alpine")), 1.8e9)
        seen = hub.history.sighting("library/alpine", manifest)
        self.assertEqual(self.now(seen), Sighting(1.8e9))
        (change,) = self.now(other.history.changes("team/app", "v1", 10))
        self.assertEqual((change.digest, change.at, change.first), (Digest.of(b"v1"), 1.8e9, 1.8e9))
        self.assertIn("auth.docker.io", catalog.facts.get("challenge of docker.io") or "")

    def test_no_trace(self) -> None:
        """Of an old file neither keys nor unsalted hashes of credentials stay."""
        self.old()
        self.now(self.open().close())
        left = b"".join(each.getContent() for each in FilePath(self.directory).children())
        for trace in (b"0" * 64, b"1" * 64, b"40cb4ee24f4c44a6f8ee3cca7b4d199e6eec71d400c43e47fd28424b4cf0b120"):
            self.assertNotIn(trace, left)

    def test_newer(self) -> None:
        """A file of a newer docxy is left alone, and the error says what to do."""
        self.now(self.open().close())
        database = sqlite3.connect(self.path)
        database.execute(f"PRAGMA user_version = {schema.SCHEMA.version + 1}")
        database.close()
        before = FilePath(self.path).getContent()
        error = self.assertRaises(NewerVersion, self.open)
        for word in (self.path, "newer docxy", "remove this file"):
            self.assertIn(word, str(error))
        self.assertEqual(FilePath(self.path).getContent(), before)

    def test_interrupted(self) -> None:
        """Tables that could not be made are made by the next attempt: version and tables come together."""
        database = sqlite3.connect(self.path)
        database.execute("PRAGMA journal_mode = WAL")
        database.close()
        self.open().upstream("u").tags.keep("r", "t", ONE, "type", 7)
        self.assertIsNotNone(self.now(self.open().upstream("u").tags.get("r", "t")))

    def test_purge_reads_indexes(self) -> None:
        """To find what is past its use no table is read: each has an index by age."""
        self.now(self.open().close())
        database = sqlite3.connect(self.path)
        self.addCleanup(database.close)
        for table in schema.TABLES:
            plan = " ".join(
                str(row[3]) for row in database.execute(f"EXPLAIN QUERY PLAN {table.delete_before}", (0, 1)).fetchall()
            )
            self.assertIn(f"COVERING INDEX {table.name}_{table.stamp} ({table.stamp}<?)", plan)

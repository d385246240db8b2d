"""The tables of the index, and the steps from those of docxy's first version.

The law: a step never changes once a docxy has taken it; another one follows it.
"""

from __future__ import annotations

from docxy.database import Schema

_FIRST = """
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    last_used REAL NOT NULL,
    checked REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX by_use ON blobs (last_used);
CREATE INDEX by_check ON blobs (checked) WHERE committed;
CREATE TABLE total (bytes INTEGER NOT NULL, complete INTEGER NOT NULL);
INSERT INTO total VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON blobs
    BEGIN UPDATE total SET bytes = bytes + new.size; END;
CREATE TRIGGER resized AFTER UPDATE OF size ON blobs
    BEGIN UPDATE total SET bytes = bytes + new.size - old.size; END;
CREATE TRIGGER removed AFTER DELETE ON blobs
    BEGIN UPDATE total SET bytes = bytes - old.size; END;
"""

# The first version counted bytes, not blocks, and had no place for a size that nobody knows, nor for
# what is known of an interrupted fill: `synced` bytes are sure, all others only in the same `boot`.
_COUNT_BLOCKS = """
DROP TRIGGER added;
DROP TRIGGER resized;
DROP TRIGGER removed;
DROP INDEX by_use;
DROP INDEX by_check;
ALTER TABLE blobs RENAME TO first_blobs;
UPDATE total SET bytes = 0;
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER,
    counted INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    last_used REAL NOT NULL,
    checked REAL NOT NULL DEFAULT 0,
    synced INTEGER NOT NULL DEFAULT 0,
    boot TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX by_use ON blobs (last_used);
CREATE INDEX by_check ON blobs (checked) WHERE committed;
CREATE INDEX fills ON blobs (digest) WHERE NOT committed;
CREATE TRIGGER added AFTER INSERT ON blobs
    BEGIN UPDATE total SET bytes = bytes + new.counted; END;
CREATE TRIGGER resized AFTER UPDATE OF counted ON blobs
    BEGIN UPDATE total SET bytes = bytes + new.counted - old.counted; END;
CREATE TRIGGER removed AFTER DELETE ON blobs
    BEGIN UPDATE total SET bytes = bytes - old.counted; END;
INSERT INTO blobs (digest, size, counted, committed, last_used, checked)
    SELECT digest, size, (size + 4095) / 4096 * 4096, committed, last_used, checked FROM first_blobs;
DROP TABLE first_blobs;
"""

_PINS = """
CREATE TABLE pins (digest TEXT PRIMARY KEY) WITHOUT ROWID;
"""
"""What is not evicted, whether or not it is here now: a row outlives its blob's."""

_REMEMBERED = """
CREATE TABLE remembered (digest TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX remembered_until ON remembered (until);
"""
"""What the history of tags names; see `docxy.storage.remembered`."""

_ARCHIVED = """
ALTER TABLE blobs ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;
CREATE INDEX not_archived ON blobs (digest) WHERE committed AND NOT archived;
"""
"""What is in the archive too, as far as this cache knows."""

_LARGE = """
CREATE INDEX by_counted ON blobs (counted);
"""
"""For what few blobs are large; see `docxy.storage.large`."""

SCHEMA = Schema((_FIRST, _COUNT_BLOCKS, _PINS, _REMEMBERED, _ARCHIVED, _LARGE))

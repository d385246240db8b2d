"""The catalog's tables, how today's layout came about, and how much may be kept.

    held       this repository of this upstream served this digest, as a blob or as a manifest
    tags       where a tag pointed when the upstream was last asked
    listings   pages of tags and of referrers
    verdicts   this credential could read this repository (keyed: see `secret`)
    tokens     whose a relayed token is (keyed), `''`: an anonymous client's, and what it was asked for
    public     repositories that anonymous clients could read
    facts      anything with a name
    sightings  since when this repository of this upstream is known to have a manifest
    history    where a tag pointed from some time on; an empty digest: it was gone

Version 0 is a file without tables, or one of docxy's before there were versions: step 1 makes the former into the
latter.  A purge finds what is past its use, and what is oldest, by an index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import evolve, frozen

from docxy.catalog.interfaces import ListingRecord, RelayedToken, TagRecord
from docxy.database import Schema
from docxy.names import Digest

V = TypeVar("V")

_BEFORE_VERSIONS = """
CREATE TABLE IF NOT EXISTS held (
    upstream TEXT, repository TEXT, digest TEXT, kind TEXT, media_type TEXT, size INTEGER, seen REAL,
    used REAL, PRIMARY KEY (upstream, repository, digest, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_used ON held (used);
CREATE TABLE IF NOT EXISTS tags (
    upstream TEXT, repository TEXT, tag TEXT, digest TEXT, media_type TEXT, size INTEGER,
    checked REAL, retry REAL, PRIMARY KEY (upstream, repository, tag)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_checked ON tags (checked);
CREATE TABLE IF NOT EXISTS verdicts (
    upstream TEXT, repository TEXT, credential TEXT, at REAL,
    PRIMARY KEY (upstream, repository, credential)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS strangers (credential TEXT PRIMARY KEY, until REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS public (
    upstream TEXT, repository TEXT, at REAL, PRIMARY KEY (upstream, repository)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""

_FIRST_VERSION = """
DROP TABLE IF EXISTS claims;
DROP TABLE IF EXISTS missing;
DROP TABLE IF EXISTS listings;
CREATE TABLE listings (
    upstream TEXT, repository TEXT, page TEXT, media_type TEXT, link TEXT, checked REAL, size INTEGER, body BLOB,
    PRIMARY KEY (upstream, repository, page));
CREATE INDEX listings_checked ON listings (checked, upstream, repository, page);
CREATE INDEX listings_bound ON listings (upstream, checked, repository, page, size);
UPDATE OR REPLACE verdicts SET credential = keyed(credential);
CREATE INDEX verdicts_at ON verdicts (at);
DROP TABLE strangers;
CREATE TABLE tokens (credential TEXT PRIMARY KEY, owner TEXT, repositories TEXT, until REAL) WITHOUT ROWID;
CREATE INDEX tokens_until ON tokens (until);
CREATE INDEX public_at ON public (at);
DELETE FROM facts WHERE name IN ('gate key', 'pass key');
"""
"""Pages are asked for again: they had no bound.  Keys are derived from the secret since, and tokens live for minutes.
A page's body stands behind what is read without it."""

_HISTORY = """
CREATE TABLE sightings (
    upstream TEXT, repository TEXT, digest TEXT, first REAL, used REAL, excused INTEGER,
    PRIMARY KEY (upstream, repository, digest)) WITHOUT ROWID;
CREATE INDEX sightings_used ON sightings (used);
CREATE TABLE history (
    upstream TEXT, repository TEXT, tag TEXT, at REAL, digest TEXT,
    PRIMARY KEY (upstream, repository, tag, at)) WITHOUT ROWID;
CREATE INDEX history_at ON history (upstream, at, repository, tag);
INSERT INTO sightings SELECT upstream, repository, digest, seen, used, 0 FROM held WHERE kind = 'manifest';
INSERT OR IGNORE INTO sightings SELECT upstream, repository, digest, min(checked), max(checked), 0 FROM tags
    GROUP BY upstream, repository, digest;
INSERT INTO history SELECT upstream, repository, tag, (
    SELECT first FROM sightings WHERE sightings.upstream = tags.upstream AND sightings.repository = tags.repository
    AND sightings.digest = tags.digest), digest FROM tags;
"""
"""A cache from before knows when each manifest was served last: no later than that it was first seen."""

SCHEMA = Schema((_BEFORE_VERSIONS, _FIRST_VERSION, _HISTORY))

CATALOG_SHARE = 1 / 8
"""Of the cache's budget, what the rows of the catalog may take."""
ROW_BYTES = 450
"""Of one row in the file, about, with its place in the indices."""
FEWEST = 200
"""Rows of each table, however small the cache is."""
MAX_PAGES = 1000
"""Pages of one upstream that are kept."""
MAX_PAGE_BYTES = 32 << 20
"""Bytes of the pages of one upstream that are kept."""
TRIM_PAGES = f"""
DELETE FROM listings WHERE upstream = ? AND (repository, page) IN (
    SELECT repository, page FROM (
        SELECT repository, page, sum(size) OVER newest AS bytes, row_number() OVER newest AS number
        FROM listings WHERE upstream = ?
        WINDOW newest AS (ORDER BY checked DESC, repository DESC, page DESC ROWS UNBOUNDED PRECEDING))
    WHERE bytes > {MAX_PAGE_BYTES} OR number > {MAX_PAGES})
"""


@frozen
class HeldRow:
    """A row of `held`."""

    media_type: str
    size: int
    seen: float
    used: float


@frozen
class SightingRow:
    """A row of `sightings`."""

    first: float
    used: float
    excused: int
    """1: see `Sighting`."""

    def merged(self, other: SightingRow) -> SightingRow:
        """What two processes saw."""
        return SightingRow(min(self.first, other.first), max(self.used, other.used), max(self.excused, other.excused))


@frozen
class TokenRow:
    """A row of `tokens`."""

    token: RelayedToken
    until: float


@frozen
class Table(Generic[V]):
    """A table, its rows as values."""

    name: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    load: Callable[..., V]
    """A row's columns -> its value."""
    dump: Callable[[V], tuple[Any, ...]]
    """The other way round."""
    in_memory: int
    """Rows that a process keeps in memory; with `weigh`, what they may weigh together."""
    stamp: str
    """The column by which rows grow old."""
    most: int
    """Rows that are kept in all; what is oldest by its stamp goes first."""
    weigh: Callable[[V], int] | None = None
    merge: Callable[[V, V], V] | None = None
    """What becomes of a row that is put where there is one; None: the new one stands."""
    conflict: str = ""
    """The same in SQL; empty: the new one stands."""

    def within(self, budget: int) -> Table[V]:
        """The same, with fewer rows where the cache is so small that they would take much of it."""
        share = budget * CATALOG_SHARE / (ROW_BYTES * sum(table.most for table in TABLES))
        return self if share >= 1 else evolve(self, most=max(FEWEST, int(self.most * share)))

    @property
    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {self._where}"

    @property
    def insert(self) -> str:
        names = (*self.keys, *self.columns)
        into = f"INTO {self.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        if self.conflict:
            return f"INSERT {into} ON CONFLICT ({', '.join(self.keys)}) DO UPDATE SET {self.conflict}"
        return f"INSERT OR REPLACE {into}"

    @property
    def update(self) -> str:
        return f"UPDATE {self.name} SET {', '.join(f'{each} = ?' for each in self.columns)} WHERE {self._where}"

    @property
    def delete(self) -> str:
        return f"DELETE FROM {self.name} WHERE {self._where}"

    @property
    def delete_before(self) -> str:
        """Deletes rows whose stamp is before a time, up to a limit."""
        return self._delete_those(f"WHERE {self.stamp} < ? ORDER BY {self.stamp} LIMIT ?")

    @property
    def delete_oldest(self) -> str:
        """Deletes rows beyond the table's bound, up to a limit."""
        surplus = f"(SELECT count(*) FROM {self.name}) - {self.most}"
        return self._delete_those(f"ORDER BY {self.stamp} LIMIT max(0, min(?, {surplus}))")

    def _delete_those(self, chosen: str) -> str:
        """`chosen`: the end of a SELECT of their keys."""
        keys = ", ".join(self.keys)
        return f"DELETE FROM {self.name} WHERE ({keys}) IN (SELECT {keys} FROM {self.name} {chosen})"

    @property
    def _where(self) -> str:
        return " AND ".join(f"{key} = ?" for key in self.keys)


HELD: Table[HeldRow] = Table(
    "held",
    ("upstream", "repository", "digest", "kind"),
    ("media_type", "size", "seen", "used"),
    HeldRow,
    lambda row: (row.media_type, row.size, row.seen, row.used),
    in_memory=20_000,
    stamp="used",
    most=250_000,
)
TAGS: Table[TagRecord] = Table(
    "tags",
    ("upstream", "repository", "tag"),
    ("digest", "media_type", "size", "checked", "retry"),
    lambda digest, *rest: TagRecord(Digest.parse(digest), *rest),
    lambda tag: (str(tag.digest), tag.media_type, tag.size, tag.checked, tag.retry),
    in_memory=10_000,
    stamp="checked",
    most=100_000,
)
LISTINGS: Table[ListingRecord] = Table(
    "listings",
    ("upstream", "repository", "page"),
    ("media_type", "link", "checked", "size", "body"),
    lambda media_type, link, checked, _, body: ListingRecord(media_type, bytes(body), link, checked),
    lambda page: (page.media_type, page.link, page.checked, len(page.body), page.body),
    in_memory=4 << 20,
    stamp="checked",
    most=20_000,
    weigh=lambda page: 1024 + len(page.body),
)
VERDICTS: Table[float] = Table(
    "verdicts",
    ("upstream", "repository", "credential"),
    ("at",),
    float,
    lambda at: (at,),
    in_memory=20_000,
    stamp="at",
    most=100_000,
)
PUBLIC: Table[float] = Table(
    "public",
    ("upstream", "repository"),
    ("at",),
    float,
    lambda at: (at,),
    in_memory=10_000,
    stamp="at",
    most=100_000,
)
TOKENS: Table[TokenRow] = Table(
    "tokens",
    ("credential",),
    ("owner", "repositories", "until"),
    lambda owner, repositories, until: TokenRow(RelayedToken(owner, frozenset(repositories.split())), until),
    lambda row: (row.token.owner, " ".join(sorted(row.token.repositories)), row.until),
    in_memory=10_000,
    stamp="until",
    most=100_000,
)
SIGHTINGS: Table[SightingRow] = Table(
    "sightings",
    ("upstream", "repository", "digest"),
    ("first", "used", "excused"),
    SightingRow,
    lambda row: (row.first, row.used, row.excused),
    in_memory=20_000,
    stamp="used",
    most=250_000,
    merge=SightingRow.merged,
    conflict="first = min(first, excluded.first), used = max(used, excluded.used), "
    "excused = max(excused, excluded.excused)",
)
TABLES: tuple[Table[Any], ...] = (HELD, TAGS, LISTINGS, VERDICTS, PUBLIC, TOKENS, SIGHTINGS)

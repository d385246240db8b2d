"""One upstream's part of the catalog: every key holds the upstream, so that equal paths never mix.

The law: a repository is known to hold a digest, and a credential to read a repository,
only because the upstream itself said so.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from docxy.names import Digest
from docxy.storage.catalog import Catalog

_USE_NOTED = 6 * 3600.0
"""Seconds between two notes of a use: reading is cheap, writing less so."""


@frozen
class HeldManifest:
    """A manifest as its repository served it."""

    media_type: str
    size: int
    seen: float
    """When the upstream last served it; seconds since the epoch."""


@frozen
class TagRecord:
    """Where a tag pointed."""

    digest: Digest
    media_type: str
    size: int
    checked: float
    """When the upstream last said so; seconds since the epoch."""
    retry: float
    """Until when the upstream is not asked again, because it failed to answer."""


@frozen
class ListingRecord:
    """A page as the upstream gave it."""

    media_type: str
    body: bytes
    link: str | None
    checked: float


@frozen
class UpstreamCatalog:
    """What is known of one upstream."""

    whole: Catalog
    upstream: str

    def hold(self, repository: str, digest: Digest, media_type: str = "", size: int = 0) -> None:
        """The upstream just served this under this repository."""
        now = self.whole.seconds()
        self.whole.run(
            "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            self.upstream,
            repository,
            str(digest),
            "manifest" if media_type else "blob",
            media_type,
            size,
            now,
            now,
        )

    def holds_blob(self, repository: str, digest: Digest) -> bool:
        """Whether the upstream once served this blob under this repository; a use of it."""
        return self._use(repository, digest, "blob") is not None

    def held_manifest(self, repository: str, digest: Digest) -> HeldManifest | None:
        """A manifest that the upstream once served under this repository; a use of it."""
        row = self._use(repository, digest, "manifest")
        return None if row is None else HeldManifest(str(row[0]), int(row[1]), float(row[2]))

    def _use(self, repository: str, digest: Digest, kind: str) -> Any:
        row = self.whole.row(
            "SELECT media_type, size, seen, used FROM held "
            "WHERE upstream = ? AND repository = ? AND digest = ? AND kind = ?",
            self.upstream,
            repository,
            str(digest),
            kind,
        )
        if row is not None and self.whole.seconds() - row[3] > _USE_NOTED:
            self.whole.run(
                "UPDATE held SET used = ? WHERE upstream = ? AND repository = ? AND digest = ? AND kind = ?",
                self.whole.seconds(),
                self.upstream,
                repository,
                str(digest),
                kind,
            )
        return row

    def repositories(self, after: str, limit: int, public_since: float | None) -> list[str]:
        """Repositories that something is held of, sorted, behind a name; with `public_since` only what is public."""
        rows = self.whole.rows(
            "SELECT DISTINCT repository FROM held WHERE upstream = ? AND repository > ? AND (? IS NULL OR EXISTS "
            "(SELECT 1 FROM public WHERE public.upstream = held.upstream AND public.repository = held.repository "
            "AND public.at >= ?)) ORDER BY repository LIMIT ?",
            self.upstream,
            after,
            public_since,
            public_since,
            limit,
        )
        return [str(row[0]) for row in rows]

    def any_manifest(self, repository: str) -> Digest | None:
        """Some manifest that this repository held lately."""
        row = self.whole.row(
            "SELECT digest FROM held WHERE upstream = ? AND repository = ? AND kind = 'manifest' "
            "ORDER BY seen DESC LIMIT 1",
            self.upstream,
            repository,
        )
        return None if row is None else Digest.parse(row[0])

    def drop(self, repository: str, digest: Digest) -> None:
        """The upstream does not have this under this repository any more."""
        self.whole.run(
            "DELETE FROM held WHERE upstream = ? AND repository = ? AND digest = ?",
            self.upstream,
            repository,
            str(digest),
        )

    def tag(self, repository: str, tag: str) -> TagRecord | None:
        """Where a tag pointed."""
        row = self.whole.row(
            "SELECT digest, media_type, size, checked, retry FROM tags "
            "WHERE upstream = ? AND repository = ? AND tag = ?",
            self.upstream,
            repository,
            tag,
        )
        return None if row is None else TagRecord(Digest.parse(row[0]), *row[1:])

    def keep_tag(self, repository: str, tag: str, digest: Digest, media_type: str, size: int) -> None:
        """The upstream just said where a tag points."""
        self.whole.run(
            "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            self.upstream,
            repository,
            tag,
            str(digest),
            media_type,
            size,
            self.whole.seconds(),
        )

    def postpone_tag(self, repository: str, tag: str, until: float) -> None:
        """The upstream failed to answer; it is not asked about this tag until then."""
        self.whole.run(
            "UPDATE tags SET retry = ? WHERE upstream = ? AND repository = ? AND tag = ?",
            until,
            self.upstream,
            repository,
            tag,
        )

    def drop_tag(self, repository: str, tag: str) -> None:
        """The upstream has no such tag any more."""
        self.whole.run(
            "DELETE FROM tags WHERE upstream = ? AND repository = ? AND tag = ?", self.upstream, repository, tag
        )

    def miss(self, repository: str, reference: str, credential: str, message: str, until: float) -> None:
        """The upstream does not have this, as far as this credential sees."""
        self.whole.run(
            "INSERT OR REPLACE INTO missing VALUES (?, ?, ?, ?, ?, ?)",
            self.upstream,
            repository,
            reference,
            credential,
            message,
            until,
        )

    def missed(self, repository: str, reference: str, credential: str) -> str | None:
        """The message of a miss that still stands."""
        row = self.whole.row(
            "SELECT message FROM missing WHERE upstream = ? AND repository = ? AND reference = ? "
            "AND credential = ? AND until > ?",
            self.upstream,
            repository,
            reference,
            credential,
            self.whole.seconds(),
        )
        return None if row is None else str(row[0])

    def listing(self, repository: str, page: str) -> ListingRecord | None:
        """A page that was kept."""
        row = self.whole.row(
            "SELECT media_type, body, link, checked FROM listings WHERE upstream = ? AND repository = ? AND page = ?",
            self.upstream,
            repository,
            page,
        )
        return None if row is None else ListingRecord(*row)

    def keep_listing(self, repository: str, page: str, media_type: str, body: bytes, link: str | None) -> None:
        """The upstream just gave this page."""
        self.whole.run(
            "INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?, ?, ?, ?)",
            self.upstream,
            repository,
            page,
            media_type,
            body,
            link,
            self.whole.seconds(),
        )

    def drop_listing(self, repository: str, page: str) -> None:
        """The upstream has no such page any more."""
        self.whole.run(
            "DELETE FROM listings WHERE upstream = ? AND repository = ? AND page = ?", self.upstream, repository, page
        )

    def allow(self, repository: str, credential: str) -> None:
        """The upstream just let this credential read this repository."""
        self.whole.run(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)",
            self.upstream,
            repository,
            credential,
            self.whole.seconds(),
        )

    def allowed_at(self, repository: str, credential: str) -> float | None:
        """When the upstream last let this credential read this repository."""
        row = self.whole.row(
            "SELECT at FROM verdicts WHERE upstream = ? AND repository = ? AND credential = ?",
            self.upstream,
            repository,
            credential,
        )
        return None if row is None else float(row[0])

    def revoke(self, repository: str, credential: str) -> None:
        """The upstream refused this credential."""
        self.whole.run(
            "DELETE FROM verdicts WHERE upstream = ? AND repository = ? AND credential = ?",
            self.upstream,
            repository,
            credential,
        )

    def publish(self, repository: str) -> None:
        """A stranger was just let in."""
        self.whole.run(
            "INSERT OR REPLACE INTO public VALUES (?, ?, ?)", self.upstream, repository, self.whole.seconds()
        )

    def unpublish(self, repository: str) -> None:
        """A stranger was just refused."""
        self.whole.run("DELETE FROM public WHERE upstream = ? AND repository = ?", self.upstream, repository)

    def public_at(self, repository: str) -> float | None:
        """When a stranger was last let in."""
        row = self.whole.row("SELECT at FROM public WHERE upstream = ? AND repository = ?", self.upstream, repository)
        return None if row is None else float(row[0])

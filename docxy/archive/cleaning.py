"""What nobody used for long, removed from the archive.  Everything here blocks: it is a command's, not the daemon's.

The law: *nothing goes that a mark of use speaks for, nor what is younger than that, and nothing at all while there are
no marks for all of that time*.  Of the bucket only what docxy writes is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any

from attrs import define

from docxy.archive.interfaces import ArchiveError

MOST_USED = 2_000_000
"""Blobs of which is remembered that they were used: some 200 MB."""
AT_ONCE = 500
"""Objects that are removed by one request."""
_BLOB = re.compile(r"blobs/(sha256|sha512)/[0-9a-f]{2}/([0-9a-f]{64,128})")
_SEEN = re.compile(r"seen/(\d{4}-\d\d-\d\d)/[^/]+")
_LINE = re.compile(rb"(?:sha256|sha512):([0-9a-f]{64,128})")
_KEY = 24
"""Digits of a digest that are remembered: where two blobs share them, one of them stays too long."""


@define
class Cleaned:
    """What was removed, or would be."""

    blobs: int = 0
    frees: int = 0
    """Bytes."""
    tags: int = 0
    kept: int = 0
    """Blobs that stay."""


def clean(store: Any, days: int, now: datetime, dry_run: bool, progress: Callable[[int], object]) -> Cleaned:
    """Remove blobs that were not used for `days` days; `progress`: called with how many objects were looked at.

    Raises ArchiveError where that cannot be known; what obstore does.
    """
    import obstore  # it is an extra

    since = now.astimezone(timezone.utc).date() - timedelta(days=days)
    marks = _marks(obstore.list(store, "seen/"))
    before = [day for day in marks if day <= since]
    if not before:
        first = f"go back to {min(marks)} only" if marks else "are none"
        raise ArchiveError(
            f"nothing was removed: the marks of use {first}, so nobody knows what was not used since {since}; "
            "each docxy of this release writes them; try again when they are old enough"
        )
    used: set[bytes] = set()
    for day, names in marks.items():
        for name in names if day >= since else ():
            data = bytes(obstore.get(store, name).bytes())
            used.update(bytes.fromhex(found[:_KEY].decode("ascii")) for found in _LINE.findall(data))
        if len(used) > MOST_USED:
            raise ArchiveError(
                f"nothing was removed: more than {MOST_USED} blobs were used since {since}; "
                "let the bucket's lifecycle rule expire objects by their age instead"
            )
    done = Cleaned()

    def old() -> Iterator[str]:
        for each in _old(_listed(obstore.list(store, "blobs/"), progress), since):
            found = _BLOB.fullmatch(each["path"])
            if found is None:
                continue
            if bytes.fromhex(found[2][:_KEY]) in used:
                done.kept += 1
                continue
            done.blobs += 1
            done.frees += int(each["size"])
            yield each["path"]

    def records() -> Iterator[str]:
        # A record of a tag is written again every ten minutes while the tag is pulled.
        for each in _old(_listed(obstore.list(store, "tags/"), progress), since):
            done.tags += 1
            yield each["path"]
        for day, names in marks.items():
            if day < max(before):
                yield from names

    for paths in (old(), records()):
        for some in _some(paths):
            if not dry_run:
                obstore.delete(store, some)
    return done


def _marks(pages: Iterable[Any]) -> dict[date, list[str]]:
    """The records of uses, by their day."""
    marks: dict[date, list[str]] = {}
    for each in _listed(pages, lambda count: None):
        found = _SEEN.fullmatch(each["path"])
        if found is not None:
            marks.setdefault(date.fromisoformat(found[1]), []).append(each["path"])
    return marks


def _listed(pages: Iterable[Any], progress: Callable[[int], object]) -> Iterator[Mapping[str, Any]]:
    for page in pages:
        progress(len(page))
        yield from page


def _old(objects: Iterable[Mapping[str, Any]], since: date) -> Iterator[Mapping[str, Any]]:
    """Those that were written before that day."""
    return (each for each in objects if each["last_modified"].astimezone(timezone.utc).date() < since)


def _some(paths: Iterator[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for path in paths:
        some.append(path)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some

"""The object store behind the cache, as commands look at it and clean it, without the docxy that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from secrets import token_hex
from typing import Any

import click
from attrs import asdict

from docxy.archive import clients
from docxy.archive.cleaning import Cleaned, clean
from docxy.archive.interfaces import ArchiveError
from docxy.archive.lifecycle import ends_incomplete
from docxy.cli.admin import print_json
from docxy.cli.checks import Finding, skewed
from docxy.cli.failure import Failure
from docxy.cli.screen import console
from docxy.daemon.listeners import has_ipv6
from docxy.observe.verdict import amount
from docxy.settings.load import load
from docxy.settings.model import ArchiveSettings, ConfigError

FEWEST_DAYS = 2
"""Marks have a date, and clocks and days differ."""
_RULE = "give the bucket the rule AbortIncompleteMultipartUpload: docs/archive.md, Keeping the bucket small"


def clean_archive(file: str | None, older: float, dry_run: bool, as_json: bool) -> None:
    """`docxy gc --archive`; `older`: seconds.  Raises Failure, click.UsageError."""
    days = int(older // 86400)
    if days < FEWEST_DAYS:
        raise click.UsageError(f"--older-than: at least {FEWEST_DAYS}d")
    given = {} if file is None else {"config": file}
    try:
        config = load(given, os.environ, root=os.geteuid() == 0, ipv6=has_ipv6())
        clients.check(config.archive, None)
    except ConfigError as error:
        raise Failure(str(error)) from None
    if config.archive is None:
        raise Failure("the configuration names no archive; --config FILE names the file that has the table [archive]")
    try:
        done = clean(_store(config.archive), days, datetime.now(timezone.utc), dry_run, lambda count: None)
    except ArchiveError as error:
        raise Failure(str(error)) from None
    except Exception as error:  # whatever obstore raises
        raise Failure(f"{config.archive.url}: {clients.words(error)}") from None
    if as_json:
        print_json({**asdict(done), "dry_run": dry_run})
    else:
        console().print(_told(done, days, dry_run))


def _told(done: Cleaned, days: int, dry_run: bool) -> str:
    did = "would remove" if dry_run else "removed"
    return (
        f"{did} {done.blobs} blobs ({amount(done.frees)}) and {done.tags} records of tags that nobody used for "
        f"{days} days; {done.kept} older blobs stay, for they were used"
    )


def _store(settings: ArchiveSettings) -> Any:
    return clients.connect(settings).writing


def bucket(settings: ArchiveSettings | None) -> Iterator[Finding]:
    """Whether docxy can do there what it has to, for `docxy doctor`."""
    if settings is None:
        return
    import obstore  # it is an extra, and there: docxy would not start without it

    key, data = f"check-{token_hex(4)}", b"docxy doctor\n"
    doing, mend = "reached", "look at url, endpoint, region and the key, and at the store"
    try:
        store = _store(settings)
        doing, mend = "written", "let docxy write: docs/archive.md, Rights in the bucket"
        began = datetime.now(timezone.utc)
        obstore.put(store, key, data, use_multipart=False)
        doing, mend = "read", "let docxy read: docs/archive.md, Rights in the bucket"
        written = obstore.head(store, key)["last_modified"]
        if bytes(obstore.get(store, key).bytes()) != data:
            yield Finding(
                "bad", "archive", f"{settings.url}: what was written is not what is read", "look at the store"
            )
        doing, mend = "removed from", "let docxy remove objects: docs/archive.md, Rights in the bucket"
        obstore.delete(store, key)
    except Exception as error:  # whatever obstore raises
        yield Finding("bad", "archive", f"{settings.url} cannot be {doing}: {clients.words(error)}", mend)
        return
    yield Finding("good", "archive", f"{settings.url} can be written, read and removed from")
    found = skewed("the archive", (written - began).total_seconds())
    if found is not None:
        yield found
    ends = ends_incomplete(settings)
    if ends is False:
        yield Finding(
            "warn", "archive", "uploads that a killed docxy left incomplete stay in the bucket for ever", _RULE
        )
    elif ends:
        yield Finding("good", "archive", "incomplete uploads end by a rule of the bucket")
    elif not settings.url.startswith("az:"):  # where they end by themselves
        yield Finding("good", "archive", f"the store does not say whether incomplete uploads end there: {_RULE}")

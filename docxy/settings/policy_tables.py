"""What of the configuration file is policy: what the operator wants done about images, while docxy runs.

The law: *a wrong policy is none*: `parse` gives all of a file's policy or raises ConfigError, so that what is in
force is never half of one.  It is read again at a SIGHUP (`docxy.daemon.policy`); what else of the file
is, `docxy.settings.changeable` says.  A new kind of table is a field of `Policy`, a key of `KEYS` and a reader here.

A file of recalls (`recall_file`), one a line: a digest, spaces, the reason; `#` begins a comment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from docxy.names import Digest
from docxy.settings import keep, parsers
from docxy.settings.image_names import ImageName, parse_digest, parse_image, parse_one_tag
from docxy.settings.model import ConfigError, Upstream
from docxy.settings.policy import CooldownRule, Freeze, Policy, Recall
from docxy.settings.tables import TomlTable
from docxy.settings.upstreams import cooldown

KEYS = frozenset({"freeze", "keep", "recall", "recall_file", "cooldown"})
"""Keys of the file that are policy."""
FREEZE_KEYS = frozenset({"image", "digest"})
RECALL_KEYS = frozenset({"image", "digest", "reason"})
COOLDOWN_KEYS = frozenset({"images", "min_age", "on_new"})
MOST = 10_000
"""Tables of one kind, and lines of a file of recalls."""
MOST_KEEPS = 100
LARGEST_FILE = 8 << 20
"""Bytes of a file of recalls."""
LONGEST_REASON = 300
"""Characters."""
NO_REASON = "the operator gave no reason"


def parse(tables: Mapping[str, Any], source: str, upstreams: Sequence[Upstream]) -> Policy:
    """The policy of a file's tables; reads the file of recalls.

    `tables`: of the file those of `KEYS`; `source`: the file they are from.  Raises ConfigError.
    """
    recalls = [_recall(table, upstreams) for table in _tables(tables, "recall", source)]
    if "recall_file" in tables:
        recalls += _recall_file(TomlTable(tables, source).text("recall_file", parsers.path), f"recall_file in {source}")
    if len(recalls) > MOST:
        raise ConfigError(f"{source}: there are {len(recalls)} recalls, and docxy keeps {MOST}")
    freezes = tuple(_freeze(table, upstreams) for table in _tables(tables, "freeze", source))
    seen: dict[str, Digest] = {}
    for each in freezes:
        if seen.setdefault(str(each.image), each.digest) != each.digest:
            raise ConfigError(f"{source}: two of the [[freeze]] tables want other digests of {each.image}")
    tables_of_keep = _tables(tables, "keep", source)
    if len(tables_of_keep) > MOST_KEEPS:
        raise ConfigError(f"{source}: there are {len(tables_of_keep)} [[keep]] tables, and docxy takes {MOST_KEEPS}")
    keeps = tuple(keep.read(table, upstreams) for table in tables_of_keep)
    cooldowns = tuple(_cooldown(table, upstreams) for table in _tables(tables, "cooldown", source))
    return Policy(freezes, tuple(recalls), keeps, cooldowns)


def _tables(tables: Mapping[str, Any], key: str, source: str) -> list[TomlTable]:
    entries = tables.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(f"{source}: {key} must be [[{key}]] tables")
    if len(entries) > MOST:
        raise ConfigError(f"{source}: there are {len(entries)} [[{key}]] tables, and docxy keeps {MOST}")
    return [TomlTable(entry, f"[[{key}]] {n} in {source}") for n, entry in enumerate(entries, 1)]


def _freeze(table: TomlTable, upstreams: Sequence[Upstream]) -> Freeze:
    table.only(FREEZE_KEYS)
    for key in sorted(FREEZE_KEYS):
        if key not in table:
            raise table.error(f"{key} is missing")
    image = table.text("image", lambda text: parse_one_tag(text, upstreams))
    if image.digest is not None:
        raise table.error("image: the digest has a key of its own")
    return Freeze(image, table.text("digest", parse_digest))


def _recall(table: TomlTable, upstreams: Sequence[Upstream]) -> Recall:
    table.only(RECALL_KEYS)
    reason = table.text("reason", parse_reason) if "reason" in table else NO_REASON
    if ("digest" in table) == ("image" in table):
        raise table.error("give either digest or image")
    if "digest" in table:
        return Recall(table.text("digest", parse_digest), None, reason)
    image = table.text("image", lambda text: parse_image(text, upstreams))
    return Recall(image.digest, None, reason) if image.digest is not None else Recall(None, image, reason)


def _cooldown(table: TomlTable, upstreams: Sequence[Upstream]) -> CooldownRule:
    table.only(COOLDOWN_KEYS)
    for key in ("images", "min_age"):
        if key not in table:
            raise table.error(f"{key} is missing")

    def image(text: str) -> ImageName:
        found = parse_image(text, upstreams)
        if found.digest is not None:
            raise ValueError("has a digest: a cooldown is of names")
        return found

    images = tuple(table.texts("images", image))
    if not images:
        raise table.error("images: it names none")
    return CooldownRule(images, cooldown(table))


def parse_reason(text: str) -> str:
    """Raises ValueError whose message follows the text in a sentence."""
    if not text.isprintable() or len(text) > LONGEST_REASON:
        raise ValueError(f"is not a reason: one line of at most {LONGEST_REASON} characters")
    return text.strip() or NO_REASON


def _recall_file(path: str, source: str) -> list[Recall]:
    try:
        if os.path.getsize(path) > LARGEST_FILE:
            raise ConfigError(f"{source}: {path} is larger than {parsers.shown_size(LARGEST_FILE)}")
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigError(f"{source}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: {path}: not UTF-8") from None
    found = []
    for number, line in enumerate(lines, 1):
        digest, _, reason = line.strip().partition(" ")
        if not digest or digest.startswith("#"):
            continue
        try:
            found.append(Recall(parse_digest(digest), None, parse_reason(reason)))
        except ValueError as error:
            raise ConfigError(f"{source}: {path}, line {number}: {parsers.shown(line)} {error}") from None
    return found

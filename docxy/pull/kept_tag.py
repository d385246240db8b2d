"""A tag as it is kept for one client: once for all that take every kind, once for each narrower choice.

Pure.  The law: what a tag is kept under follows from the tag and the client's `Accept` alone.
"""

from __future__ import annotations

from attrs import frozen

from docxy.catalog.interfaces import TagRecord
from docxy.content import Manifest
from docxy.names import Tag
from docxy.pull.caller import Caller


@frozen
class KeptTag:
    """What serves one client's request for a tag."""

    name: str | None
    """What it is kept under: the tag, and what the client's Accept selects of it; None: it is not kept."""
    accept: tuple[str, ...]
    """What the upstream is asked with."""
    record: TagRecord | None = None
    manifest: Manifest | None = None
    """What the record leads to, when the bytes that the request needs are here."""


def variant_of(tag: Tag, caller: Caller) -> KeptTag:
    """What this client's narrow Accept selects of a tag; a space is in no tag's name."""
    variant = caller.accept.variant
    return KeptTag(None if variant is None else f"{tag.name} {variant}", caller.accept.lines)

"""What a manifest leads to.

Pure.  The law: whatever JSON an upstream sent, nothing here raises.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from docxy.content import parse_object
from docxy.errors import RegistryError
from docxy.names import Digest


@frozen
class Leads:
    """The digests in a manifest or an index."""

    manifests: dict[Digest, str] = field(factory=dict)
    """With their platforms, as `linux/arm64/v8`; empty where none is said."""
    config: Digest | None = None
    layers: tuple[Digest, ...] = ()


NOWHERE = Leads()


def leads(body: bytes) -> Leads:
    """Where a manifest leads; nowhere, if it is none."""
    parsed = parse_object(body)
    if parsed is None:
        return NOWHERE
    children: dict[Digest, str] = {}
    for entry in _list(parsed, "manifests"):
        digest = _digest(entry)
        if digest is not None:
            children[digest] = platform(entry.get("platform"))
    # Docker's first schema has `fsLayers`, an ORAS artifact `blobs`.
    layers = [_digest(entry) for key in ("layers", "fsLayers", "blobs") for entry in _list(parsed, key)]
    return Leads(children, _digest(parsed.get("config")), tuple(layer for layer in layers if layer is not None))


def platform(said: object) -> str:
    """`linux/arm64/v8` from an index's platform or from an image's config; empty where it does not say."""
    if not isinstance(said, dict):
        return ""
    parts = [said.get(key) for key in ("os", "architecture", "variant")]
    words = [part for part in parts if isinstance(part, str) and part and part.isprintable() and len(part) <= 32]
    return "/".join(words) if len(words) >= 2 and "unknown" not in words else ""


def _list(parsed: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = parsed.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _digest(entry: object) -> Digest | None:
    text = (entry.get("digest") or entry.get("blobSum")) if isinstance(entry, dict) else None
    try:
        return Digest.parse(text) if isinstance(text, str) else None
    except RegistryError:
        return None

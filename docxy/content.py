"""What an upstream serves and docxy passes on: manifests and listings, as values.

Pure.  The law: these functions answer for any JSON that an upstream sends, and never raise.  A document that
one client reads as an index and another as a manifest is neither (CVE-2021-41190).
"""

from __future__ import annotations

import json
import re
from contextlib import suppress

from attrs import frozen

from docxy.errors import RegistryError
from docxy.names import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, Descriptor, Digest

LARGEST_MANIFEST = 8 * 1024 * 1024
"""Bytes; the distribution-spec asks for at least 4 MiB."""
Pairs = tuple[tuple[str, str], ...]
"""Headers: name and value."""


@frozen
class Manifest:
    """A manifest or index, or what a HEAD said about it."""

    media_type: str
    digest: Digest
    size: int
    """Bytes."""
    body: bytes | None
    """The exact bytes; None after a HEAD."""
    passed: Pairs = ()
    """Headers to pass on."""


@frozen
class Listing:
    """A page of tags or of referrers."""

    media_type: str
    body: bytes
    link: str | None
    """The upstream's `Link`: the values of all its lines, joined with commas."""
    passed: Pairs = ()
    assumed: bool = False
    """Whether the upstream said nothing that shows who may read the repository: docxy answers in its place."""


EMPTY_INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode("ascii")
"""The answer of a referrers API that knows of none."""


MOST_CONTAINERS = 100_000
"""Objects and lists of a document: four times what an index of 4 MiB has.  Millions of them, `[],[],[]`, fit into
a manifest too, and would take seconds to read."""
MOST_VALUES = 1_000_000
"""Values of a document; a page of a registry that ignores `n` has hundreds of thousands of tags."""


def parse_object(body: bytes) -> dict[str, object] | None:
    """The JSON object that these bytes are; None when they are none, or one of too many parts."""
    if body.count(b"[") + body.count(b"{") > MOST_CONTAINERS or body.count(b",") > MOST_VALUES:
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def flaw(body: bytes, media_type: str) -> str | None:
    """Why these bytes are no manifest or index of this media type, as the end of a sentence; None when they are.

    Checks only what every kind of manifest has in common.  ORAS' artifact manifests have no
    `schemaVersion`, and Docker's first schema has no `mediaType`.
    """
    parsed = parse_object(body)
    if parsed is None:
        return "is not a JSON object, or has too many parts"
    if not media_type.startswith("application/"):
        return f"has the type {media_type}, which no manifest has"
    if not parsed.keys() & {"schemaVersion", "mediaType"} or parsed.get("schemaVersion", 2) not in (1, 2):
        return "is JSON, but no manifest"
    # OCI image-spec: where a manifest names its own type, the header must agree.
    if parsed.get("mediaType", media_type) != media_type:
        return f"says of itself that it is not {media_type}, the type it was sent as"
    index, manifest = bool(parsed.get("manifests")), any(parsed.get(key) for key in ("config", "layers", "fsLayers"))
    if (index and (manifest or media_type in MANIFEST_TYPES)) or (manifest and media_type in INDEX_TYPES):
        return "can be read as an index and as a manifest (CVE-2021-41190)"
    return None


LONGEST_LIST = 1000
"""Entries of a manifest that are looked at."""


def listed(manifest: Manifest) -> list[Descriptor]:
    """Config and layers of a platform's manifest, in order; nothing for an index.

    Leaves out layers that lie elsewhere (foreign ones, with `urls`) and malformed entries.
    """
    parsed = None if manifest.body is None else parse_object(manifest.body)
    if parsed is None or manifest.media_type not in MANIFEST_TYPES:
        return []
    layers = parsed.get("layers")
    entries = [parsed.get("config"), *(layers if isinstance(layers, list) else [])][:LONGEST_LIST]
    return [found for found in map(descriptor_of, entries) if found is not None]


def complete(manifest: Manifest) -> list[Descriptor] | None:
    """All that a manifest or index consists of, in order, each once: config and layers, or an index's manifests.

    None when something of it cannot be had under the manifest's own repository (a foreign layer, with `urls`), is
    malformed, or is more than `LONGEST_LIST`, and for other kinds of manifest.
    """
    parsed = None if manifest.body is None else parse_object(manifest.body)
    if parsed is None or manifest.media_type not in MANIFEST_TYPES | INDEX_TYPES:
        return None
    is_index = manifest.media_type in INDEX_TYPES
    entries = parsed.get("manifests" if is_index else "layers", [])
    if not isinstance(entries, list) or len(entries) >= LONGEST_LIST:
        return None
    found: dict[Digest, Descriptor] = {}
    for entry in entries if is_index else [parsed.get("config"), *entries]:
        descriptor = descriptor_of(entry)
        if descriptor is None:
            return None
        found.setdefault(descriptor.digest, descriptor)
    return list(found.values())


class _Named(str):
    """A digest that a manifest names."""


def named(body: bytes) -> frozenset[str]:
    """Every digest that a manifest or an index names as a part of it, in any list and any number.

    Its children, config, layers and blobs; not its `subject`, which it is only about.  Go's decoder, which most
    clients have, takes a key in any case and any of several equal ones: what any client may read is found.
    Raises ValueError for what is no JSON.
    """

    def look(pairs: list[tuple[str, object]]) -> list[object]:
        kept: list[object] = []
        for key, value in pairs:
            name = key.casefold()
            if isinstance(value, str):
                kept += [_Named(value)] if name in ("digest", "blobsum") else []
            elif name != "subject":
                kept.append(value)
        return kept

    try:
        waiting: list[object] = [json.loads(body, object_pairs_hook=look)]
    except RecursionError:
        raise ValueError("the manifest is nested too deep") from None
    found: set[str] = set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, _Named):
            found.add(str(each))
    return frozenset(found)


def children(body: bytes) -> frozenset[str]:
    """The digests of the manifests that an index lists; nothing for anything else."""
    entries = (parse_object(body) or {}).get("manifests")
    digests = [entry.get("digest") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return frozenset(digest for digest in digests if isinstance(digest, str))


def index_manifests(index: Manifest) -> list[Digest]:
    """The manifests that an index names, attestations too; nothing for other manifests.  Leaves out malformed ones."""
    parsed = None if index.body is None or index.media_type not in INDEX_TYPES else parse_object(index.body)
    entries = None if parsed is None else parsed.get("manifests")
    found: list[Digest] = []
    for entry in entries[:LONGEST_LIST] if isinstance(entries, list) else ():
        digest = entry.get("digest") if isinstance(entry, dict) else None
        with suppress(RegistryError):
            found += [Digest.parse(digest)] if isinstance(digest, str) else []
    return found


_PLATFORM = ("os", "architecture", "variant")
_NAME = re.compile(r"[a-z0-9._-]{1,32}")


def platforms(index: Manifest) -> dict[str, str]:
    """The manifests of an index by digest, with their platforms, as `linux/arm64/v8`; nothing for other manifests.

    Leaves out what has no platform, or as attestations do the platform `unknown`.
    """
    parsed = None if index.body is None or index.media_type not in INDEX_TYPES else parse_object(index.body)
    entries = None if parsed is None else parsed.get("manifests")
    found: dict[str, str] = {}
    for entry in entries[:LONGEST_LIST] if isinstance(entries, list) else ():
        platform = entry.get("platform") if isinstance(entry, dict) else None
        names = [platform.get(key) for key in _PLATFORM] if isinstance(platform, dict) else []
        said = [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)]
        digest = entry.get("digest") if isinstance(entry, dict) else None
        if len(said) >= 2 and "unknown" not in said and isinstance(digest, str) and len(digest) < 200:
            found[digest] = "/".join(said)
    return found


def descriptor_of(entry: object) -> Descriptor | None:
    if not isinstance(entry, dict) or entry.get("urls"):
        return None
    media_type, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    # JSON knows 1e999 and true; a size is a number of bytes that a file can have.
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        return None
    if not isinstance(media_type, str) or not isinstance(digest, str):
        return None
    parsed = Digest.maybe(digest)
    return None if parsed is None else Descriptor(media_type, parsed, size)


def is_referrers_list(manifest: Manifest, subject: Digest) -> bool:
    """Whether what lies under a subject's fallback tag lists its referrers.

    GitLab takes that tag for the digest itself and sends the subject (oras-go issue 1396).
    """
    parsed = None if manifest.body is None else parse_object(manifest.body)
    return (
        parsed is not None
        and manifest.media_type == OCI_INDEX
        and manifest.digest != subject
        and isinstance(parsed.get("manifests"), list)
    )

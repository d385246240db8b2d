"""What images an archive holds: an OCI layout's, or those of `docker load`.

The laws: an archive of today holds manifests, and they are taken as they are; what an older docker wrote has none, so
one is made of its config and layers.  A digest that a file's name or a config tells is checked where its bytes are
read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from attrs import frozen

from docxy.content import descriptor_of, parse_object
from docxy.errors import RegistryError
from docxy.names import DOCKER_MANIFEST, INDEX_TYPES, MANIFEST_TYPES, Descriptor, Digest
from docxy.pull.archive.plan import NAME, REF
from docxy.steward.archive import ArchiveFileError, OpenedArchive

_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20


@frozen
class ArchivedImage:
    """One image of an archive."""

    root: Descriptor
    """Its manifest or index."""
    names: tuple[str, ...]
    """As the archive has them; none where it has none."""
    made: Mapping[Digest, bytes]
    """A manifest that is in no archive, because an older docker wrote that."""
    files: Mapping[Digest, str]
    """Blobs whose files are not named by their digest."""


def images(archive: OpenedArchive) -> list[ArchivedImage]:
    """The images of an archive.  Raises ArchiveError."""
    loadable = _loadable(archive)
    index = parse_object(archive.document("index.json"))
    if index is not None:
        entries = index.get("manifests")
        found = [_of_layout(archive, entry, loadable) for entry in (entries if isinstance(entries, list) else [])]
    else:
        found = [_of_docker(archive, entry) for entry in loadable]
    if not found:
        raise ArchiveFileError(f"{archive.path} holds no image: it has no index.json or manifest.json that names one")
    return found


def _of_layout(archive: OpenedArchive, entry: object, loadable: list[dict[str, object]]) -> ArchivedImage:
    root = descriptor_of(entry)
    if root is None or root.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        raise ArchiveFileError(f"{archive.path}: index.json names what is no image of today: {str(entry)[:200]!a}")
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    said = annotations if isinstance(annotations, dict) else {}
    # Some tools write the full name where the specification has the tag alone.
    names = [name for name in (said.get(NAME), said.get(REF)) if isinstance(name, str) and ("/" in name or ":" in name)]
    return ArchivedImage(root, tuple(names[:1]) or _repo_tags(archive, root, loadable), {}, {})


def _repo_tags(archive: OpenedArchive, root: Descriptor, loadable: list[dict[str, object]]) -> tuple[str, ...]:
    """The names that docker's own file has for a manifest: it knows images by their config."""
    manifest = parse_object(archive.document(archive.blob(root.digest) or "")) or {}
    config = descriptor_of(manifest.get("config"))
    path = None if config is None else archive.blob(config.digest)
    return next((_tags(entry) for entry in loadable if path is not None and entry.get("Config") == path), ())


def _loadable(archive: OpenedArchive) -> list[dict[str, object]]:
    try:
        entries = json.loads(archive.document("manifest.json") or b"[]")
    except (ValueError, RecursionError):
        raise ArchiveFileError(f"{archive.path}: manifest.json is no JSON") from None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _tags(entry: Mapping[str, object]) -> tuple[str, ...]:
    tags = entry.get("RepoTags")
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()


def _of_docker(archive: OpenedArchive, entry: Mapping[str, object]) -> ArchivedImage:
    path = str(entry.get("Config"))
    data = archive.document(path)
    config = Digest.of(data)
    parsed = parse_object(data)
    layers = entry.get("Layers")
    if parsed is None or not isinstance(layers, list):
        raise ArchiveFileError(f"{archive.path}: the config {path[:200]!a} of manifest.json is not there, or is none")
    files = {config: path}
    descriptors = []
    for digest, kind, name in _layers(archive, parsed, [str(layer) for layer in layers]):
        files[digest] = name
        descriptors.append({"mediaType": kind, "size": archive.sizes[name], "digest": str(digest)})
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": _DOCKER_CONFIG, "size": len(data), "digest": str(config)},
        "layers": descriptors,
    }
    body = json.dumps(manifest, separators=(",", ":")).encode("ascii")
    root = Descriptor(DOCKER_MANIFEST, Digest.of(body), len(body))
    return ArchivedImage(root, _tags(entry), {root.digest: body}, files)


def _layers(
    archive: OpenedArchive, config: Mapping[str, object], names: list[str]
) -> Iterator[tuple[Digest, str, str]]:
    """Digest, media type and file of each layer."""
    rootfs = config.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or len(ids) != len(names):
        raise ArchiveFileError(f"{archive.path}: a config and manifest.json do not have the same layers")
    for told, name in zip(ids, names, strict=True):
        if name not in archive.sizes:
            raise ArchiveFileError(f"{archive.path}: the layer {name[:200]!a} is not there")
        with archive.open(name) as file:
            head = file.read(2)
            if head == _GZIP:
                # The config knows the digest of what is in it, not its own.
                hasher = Digest.of(b"").hasher()
                while head:
                    hasher.update(head)
                    head = file.read(_PIECE)
                yield Digest("sha256", hasher.hexdigest()), f"{_LAYER}.gzip", name
            else:
                yield _digest(archive, told), _LAYER, name


def _digest(archive: OpenedArchive, told: object) -> Digest:
    try:
        return Digest.parse(str(told))
    except RegistryError as error:
        raise ArchiveFileError(f"{archive.path}: a config names a layer that cannot be: {error}") from None

"""The tar of images: an OCI layout that `docker load` takes as well.

Pure.  The law: the plan follows from the manifests alone, so that the tar's length, its ETag and each byte's place
are known before any layer is here; the same images are the same tar on every docxy.

    oci-layout, index.json      OCI image-spec, image layout
    manifest.json               what `docker load` reads; only where all that is in it can run
    blobs/sha256/…              manifests first, then configs and layers, each once

The names are where containerd, docker and podman look for them: in annotations of `index.json` and as `RepoTags`.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from attrs import frozen

from docxy.names import OCI_INDEX, Descriptor, Digest
from docxy.pull.archive.contents import Contents
from docxy.pull.archive.puller import Puller
from docxy.pull.archive.tar import END, directory, header, padding
from docxy.routing import Named
from docxy.settings.image_names import HUB

NAME = "io.containerd.image.name"
"""Annotation: the image's full name."""
REF = "org.opencontainers.image.ref.name"
"""Annotation of the image-spec: its tag."""


@frozen
class Blob:
    """A blob's place in the tar."""

    puller: Puller
    digest: Digest
    size: int


Part = bytes | Blob


@frozen
class Plan:
    """A tar that can be begun at any byte."""

    parts: Sequence[Part]
    ends: Sequence[int]
    """Where each part ends."""
    size: int
    digest: Digest
    """Of what the tar consists of: its ETag."""

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Plan:
        """Puts parts in a row."""
        parts = [part for part in parts if not isinstance(part, bytes) or part]
        hasher = hashlib.sha256()
        for part in parts:
            # A blob's digest is in the header before it.
            hasher.update(part if isinstance(part, bytes) else b"%d" % part.size)
        ends = list(accumulate(_size(part) for part in parts))
        return cls(parts, ends, ends[-1], Digest("sha256", hasher.hexdigest()))

    def within(self, first: int, stop: int) -> Iterator[tuple[Part, int, int]]:
        """The parts that lie in a span, each with where to begin and to end in it."""
        number = bisect_right(self.ends, first)
        while first < stop:
            part, end = self.parts[number], self.ends[number]
            begin = end - _size(part)
            yield part, first - begin, min(stop, end) - begin
            first, number = end, number + 1


def _size(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part.size


def plan(images: Sequence[tuple[Contents, Puller]]) -> Plan:
    """The tar of some images, in their order."""
    return Plan.of(_parts(images))


def _parts(images: Sequence[tuple[Contents, Puller]]) -> Iterator[Part]:
    yield from _file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    index = [_indexed(image) for image, _ in images]
    yield from _file("index.json", _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index}))
    if all(image.config is not None for image, _ in images):
        yield from _file("manifest.json", _json([_loadable(image) for image, _ in images]))
    manifests = {manifest.digest: manifest for image, _ in images for manifest in image.manifests}
    blobs: dict[Digest, tuple[Descriptor, Puller]] = {}
    for image, puller in images:
        for descriptor in image.blobs:
            blobs.setdefault(descriptor.digest, (descriptor, puller))
    yield directory("blobs")
    for algorithm in sorted({digest.algorithm for digest in (*manifests, *blobs)}):
        yield directory(f"blobs/{algorithm}")
    for digest, manifest in manifests.items():
        yield from _file(_path(digest), manifest.body or b"")
    for digest, (descriptor, puller) in blobs.items():
        if digest in manifests:
            continue
        yield header(_path(digest), descriptor.size)
        if descriptor.size:
            yield Blob(puller, digest, descriptor.size)
        yield padding(descriptor.size)
    yield END


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield header(name, len(data)) + data + padding(len(data))


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def _indexed(image: Contents) -> dict[str, object]:
    """An image's entry in `index.json`."""
    root, label = image.root, image.name.label
    entry: dict[str, object] = {"mediaType": root.media_type, "digest": str(root.digest), "size": len(root.body or b"")}
    entry["annotations"] = {NAME: image.name.name, **({} if label is None else {REF: label.name})}
    return entry


def _loadable(image: Contents) -> dict[str, object]:
    """An image's entry in `manifest.json`."""
    assert image.config is not None
    return {
        "Config": _path(image.config.digest),
        "RepoTags": [familiar(image.name)] if image.name.label is not None else None,
        "Layers": [_path(layer.digest) for layer in image.layers],
    }


def familiar(name: Named) -> str:
    """As docker shows it: Docker Hub's without the registry."""
    text = name.name
    return text.removeprefix(f"{HUB}/").removeprefix("library/") if name.upstream.name == HUB else text

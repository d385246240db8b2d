"""What the fake upstream holds: blobs, manifests and tags by repository.

Pure.  The law: a blob or manifest is found only under a repository that it was added to.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import define, field, frozen

from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Digest

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

BLOCK = 65536


class Body(Protocol):
    """Bytes that can be read anywhere."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes at `offset`."""


@frozen
class Bytes:
    """A body in memory."""

    data: bytes = b""

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@frozen
class Pattern:
    """A body made on the fly: large, deterministic, in no memory.

    Every block of 64 KiB starts with its own number, so that a misplaced block has wrong bytes.
    """

    size: int
    seed: str = ""

    @property
    def digest(self) -> Digest:
        return _pattern_digest(self)

    def read(self, offset: int, length: int) -> bytes:
        end = min(self.size, offset + length)
        first, last = offset // BLOCK, -(-end // BLOCK)
        blocks = b"".join(n.to_bytes(8, "big") + _noise(self.seed) for n in range(first, last))
        return blocks[offset - first * BLOCK : end - first * BLOCK]


@functools.lru_cache(maxsize=64)
def _noise(seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(BLOCK - 8)


@functools.lru_cache(maxsize=64)
def _pattern_digest(pattern: Pattern) -> Digest:
    hasher = hashlib.sha256()
    for offset in range(0, pattern.size, BLOCK):
        hasher.update(pattern.read(offset, BLOCK))
    return Digest("sha256", hasher.hexdigest())


Blob = Bytes | Pattern


@frozen
class Manifest:
    body: bytes
    media_type: str
    digest: Digest

    def parsed(self) -> dict[str, Any]:
        """The JSON object; empty when the body is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": len(self.body)}


@define
class Repository:
    blobs: dict[str, Blob] = field(factory=dict)
    manifests: dict[str, Manifest] = field(factory=dict)
    """By digest."""
    tags: dict[str, str] = field(factory=dict)
    """Tag -> digest."""

    def manifest(self, reference: str) -> Manifest | None:
        return self.manifests.get(self.tags.get(reference, reference))


@define(eq=False, slots=False)
class Content:
    """The adders; `Upstream` is one, so tests call them there."""

    repositories: dict[str, Repository] = field(factory=dict, init=False)

    def _repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def add_blob(self, repository: str, blob: bytes | Blob) -> Digest:
        """Put a blob into a repository; `Pattern(200 << 20)` is one of 200 MiB that takes no memory."""
        stored = Bytes(blob) if isinstance(blob, bytes) else blob
        self._repository(repository).blobs[str(stored.digest)] = stored
        return stored.digest

    def add_manifest(
        self, repository: str, reference: str | None, body: bytes, media_type: str = OCI_MANIFEST
    ) -> Digest:
        """Put a manifest, under a tag too unless the reference is None.

        A reference with a colon is taken for its digest, true or not.  Moves the tag if it was there.
        """
        digest = Digest.parse(reference) if reference and ":" in reference else Digest.of(body)
        held = self._repository(repository)
        held.manifests[str(digest)] = Manifest(body, media_type, digest)
        if reference and ":" not in reference:
            held.tags[reference] = str(digest)
        return digest

    def add_image(
        self,
        repository: str,
        tag: str | None = "latest",
        layers: Sequence[bytes | Blob] = (b"layer",),
        *,
        docker: bool = False,
        architecture: str = "amd64",
    ) -> Digest:
        """An image for one platform, of OCI or Docker media types; the digest of its manifest."""
        digests = [self.add_blob(repository, layer) for layer in layers]
        config = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in digests]},
        }
        config_digest = self.add_blob(repository, json.dumps(config).encode())
        config_type, layer_type = (DOCKER_CONFIG, DOCKER_LAYER) if docker else (OCI_CONFIG, OCI_LAYER)
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self._blob_descriptor(repository, config_digest, config_type),
            "layers": [self._blob_descriptor(repository, digest, layer_type) for digest in digests],
        }
        return self.add_manifest(repository, tag, json.dumps(manifest).encode(), media_type)

    def add_index(
        self, repository: str, tag: str | None, platforms: Mapping[str, Digest], *, docker: bool = False
    ) -> Digest:
        """An index of manifests that were added before, by architecture."""
        held = self._repository(repository)
        media_type = DOCKER_LIST if docker else OCI_INDEX
        manifests = [
            {**held.manifests[str(digest)].descriptor(), "platform": {"architecture": name, "os": "linux"}}
            for name, digest in platforms.items()
        ]
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
        return self.add_manifest(repository, tag, json.dumps(index).encode(), media_type)

    def add_two_platforms(self, repository: str, tag: str | None = "latest", *, docker: bool = False) -> Digest:
        """An index of an amd64 and an arm64 image, one small layer each."""
        platforms = {
            name: self.add_image(repository, None, [f"layer for {name}".encode()], docker=docker, architecture=name)
            for name in ("amd64", "arm64")
        }
        return self.add_index(repository, tag, platforms, docker=docker)

    def add_referrer(self, repository: str, subject: Digest, artifact_type: str = "application/example") -> Digest:
        """An artifact (a signature, say) whose subject is that manifest."""
        empty = self.add_blob(repository, b"{}")
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": self._blob_descriptor(repository, empty, "application/vnd.oci.empty.v1+json"),
            "layers": [],
            "subject": self._repository(repository).manifests[str(subject)].descriptor(),
        }
        return self.add_manifest(repository, None, json.dumps(manifest).encode(), OCI_MANIFEST)

    def layers(self, repository: str, reference: str | Digest) -> list[Digest]:
        """The digests of the config and the layers of an image, in the manifest's order."""
        manifest = self.repositories[repository].manifest(str(reference))
        if manifest is None:
            raise LookupError(f"{repository} has no {reference}")
        parsed = manifest.parsed()
        return [Digest.parse(each["digest"]) for each in [parsed["config"], *parsed["layers"]]]

    def _blob_descriptor(self, repository: str, digest: Digest, media_type: str) -> dict[str, Any]:
        size = self._repository(repository).blobs[str(digest)].size
        return {"mediaType": media_type, "digest": str(digest), "size": size}

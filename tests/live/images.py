"""The images of the test bed, made from busybox without any network, the same in every run.

| repository      | what                                                     |
|-----------------|----------------------------------------------------------|
| `library/small` | Docker media types, runnable                             |
| `library/list`  | Docker manifest list: amd64 and arm64                    |
| `library/multi` | OCI index: amd64 and arm64                               |
| `library/large` | OCI, runnable, one layer over 200 MB that won't compress |
| `team/app`      | OCI, runnable, a name with a slash                       |
| `library/lazy`  | OCI, runnable, an eStargz layer                          |
| `alice/private` | Docker media types, runnable, for alice only             |

An index's manifest for this machine's platform is runnable, the other holds only a file.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import random
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from tests.live import estargz

ESTARGZ = "library/lazy"
LARGE = 208 * 1024 * 1024
"""Bytes of the one file in the large layer."""

OCI = {
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
}
DOCKER = {
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
}
LINKS = ("sh", "echo", "cat", "sha256sum")
"""What busybox is called beside its own name."""
ARCHITECTURES = ("amd64", "arm64")


def host_architecture() -> str:
    """This machine's, as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@frozen
class Manifest:
    """One manifest or index."""

    media_type: str
    body: bytes

    @property
    def digest(self) -> str:
        """Of the body."""
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"


@frozen
class Image:
    """One repository with one tag, `latest`."""

    repository: str
    top: Manifest
    """What the tag means: a manifest or an index."""
    children: Mapping[str, Manifest]
    """An index's manifests by architecture; empty for a single manifest."""
    blobs: Mapping[str, Path]
    """Configs and layers by digest."""
    runnable: bool = True
    """Whether `/bin/echo` in it runs on this machine."""

    @property
    def digest(self) -> str:
        """What `latest` resolves to."""
        return self.top.digest

    @property
    def short(self) -> str:
        """As one says it to docker: without `library/`."""
        return self.repository.removeprefix("library/")

    @property
    def local(self) -> Manifest:
        """The manifest for this machine."""
        return self.children.get(host_architecture(), self.top)

    @property
    def config(self) -> str:
        """Digest of this machine's config: docker's and podman's image id."""
        digest: str = json.loads(self.local.body)["config"]["digest"]
        return digest

    @property
    def layers(self) -> list[tuple[str, int]]:
        """Digest and size of this machine's layers."""
        return [(layer["digest"], layer["size"]) for layer in json.loads(self.local.body)["layers"]]


@define
class _Layer:
    """Takes a tar stream, keeps it gzipped, knows both digests."""

    path: Path
    size: int = 0
    plain: hashlib._Hash = field(factory=hashlib.sha256)
    packed: hashlib._Hash = field(factory=hashlib.sha256)

    def build(self, fill: Callable[[tarfile.TarFile], None]) -> None:
        """Write everything; stored, not deflated, for speed."""
        gzip = zlib.compressobj(0, wbits=31)
        with self.path.open("wb") as file:

            def keep(data: bytes) -> None:
                self.packed.update(data)
                self.size += len(data)
                file.write(data)

            class Sink(io.RawIOBase):
                def write(_, data: bytes) -> int:
                    self.plain.update(data)
                    keep(gzip.compress(data))
                    return len(data)

            with tarfile.open(mode="w|", fileobj=Sink(), format=tarfile.GNU_FORMAT) as tar:
                fill(tar)
            keep(gzip.flush())


class _Noise(io.RawIOBase):
    """A file of bytes that won't compress, the same every time."""

    def __init__(self) -> None:
        self._random = random.Random("docxy")

    def read(self, size: int = -1) -> bytes:
        return self._random.randbytes(size)


def _add(tar: tarfile.TarFile, name: str, content: bytes | io.RawIOBase, size: int, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    tar.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else content)


class Builder:
    """Makes images of one busybox, their blobs as files in one directory."""

    def __init__(self, directory: Path, busybox: Path) -> None:
        self._directory = directory
        self._busybox = busybox.read_bytes()

    def all(self) -> dict[str, Image]:
        """Every image of the bed by repository."""
        images = [
            self.single("library/small", DOCKER),
            self.index("library/list", DOCKER),
            self.index("library/multi", OCI),
            self.single("library/large", OCI, noise=LARGE),
            self.single("team/app", OCI),
            self.estargz(ESTARGZ),
            self.single("alice/private", DOCKER),
        ]
        return {image.repository: image for image in images}

    def single(self, repository: str, types: Mapping[str, str], *, noise: int = 0) -> Image:
        """An image for this machine only; `noise`: bytes of a big file in the second layer."""
        blobs: dict[str, Path] = {}
        manifest = self._manifest(repository, host_architecture(), types, blobs, noise)
        return Image(repository, manifest, {}, blobs)

    def index(self, repository: str, types: Mapping[str, str]) -> Image:
        """An image for both architectures."""
        blobs: dict[str, Path] = {}
        children = {a: self._manifest(repository, a, types, blobs, 0) for a in ARCHITECTURES}
        described = [
            {
                "mediaType": child.media_type,
                "digest": child.digest,
                "size": len(child.body),
                "platform": {"architecture": architecture, "os": "linux"},
            }
            for architecture, child in children.items()
        ]
        body = {"schemaVersion": 2, "mediaType": types["index"], "manifests": described}
        return Image(repository, Manifest(types["index"], _json(body)), children, blobs)

    def attested(self, repository: str) -> Image:
        """An image for both architectures with an attestation for each, as `docker buildx build` makes them."""
        plain = self.index(repository, OCI)
        blobs, children = dict(plain.blobs), dict(plain.children)
        described = json.loads(plain.top.body)["manifests"]
        for architecture, child in plain.children.items():
            statement = self._kept(_json({"_type": "https://in-toto.io/Statement/v0.1", "subject": child.digest}))
            layer = _described("application/vnd.in-toto+json", statement, blobs)
            layer["annotations"] = {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
            rootfs = {"type": "layers", "diff_ids": [layer["digest"]]}
            config = self._kept(_json({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": rootfs}))
            body = {
                "schemaVersion": 2,
                "mediaType": OCI["manifest"],
                "config": _described(OCI["config"], config, blobs),
                "layers": [layer],
            }
            attestation = Manifest(OCI["manifest"], _json(body))
            children[f"attestation of {architecture}"] = attestation
            described.append(
                {
                    "mediaType": attestation.media_type,
                    "digest": attestation.digest,
                    "size": len(attestation.body),
                    "annotations": {
                        "vnd.docker.reference.digest": child.digest,
                        "vnd.docker.reference.type": "attestation-manifest",
                    },
                    "platform": {"architecture": "unknown", "os": "unknown"},
                }
            )
        body = {"schemaVersion": 2, "mediaType": OCI["index"], "manifests": described}
        return Image(repository, Manifest(OCI["index"], _json(body)), children, blobs)

    def layered(self, repository: str, count: int) -> Image:
        """An image for this machine with so many layers."""
        blobs: dict[str, Path] = {}
        layers = [self._base(host_architecture())]
        layers += [self._named(f"{repository} {number}", 0) for number in range(1, count)]
        return Image(repository, self._of(layers, repository, host_architecture(), OCI, blobs), {}, blobs)

    def zstd(self, repository: str) -> Image:
        """An image for this machine whose layers are compressed with zstd."""
        blobs: dict[str, Path] = {}
        layers = [self._base(host_architecture()), self._named(f"{repository} zstd", 0)]
        for layer in layers:
            content = zlib.decompress(layer.path.read_bytes(), wbits=31)
            layer.path = self._kept(_zstd(content))
        types = {**OCI, "layer": "application/vnd.oci.image.layer.v1.tar+zstd"}
        return Image(repository, self._of(layers, repository, host_architecture(), types, blobs), {}, blobs)

    def estargz(self, repository: str) -> Image:
        """An image for this machine with an eStargz layer."""
        files = {"bin/busybox": (self._busybox, 0o755), "etc/image": (repository.encode(), 0o644)}
        for name in LINKS:
            files[f"bin/{name}"] = (f'#!/bin/busybox sh\nexec /bin/busybox {name} "$@"\n'.encode(), 0o755)
        packed, plain, toc = estargz.build(files)
        layer = _Layer(self._kept(packed))
        layer.plain.update(plain)
        blobs: dict[str, Path] = {}
        body = json.loads(self._of([layer], repository, host_architecture(), OCI, blobs).body)
        body["layers"][0]["annotations"] = {estargz.ANNOTATION: toc}
        return Image(repository, Manifest(OCI["manifest"], _json(body)), {}, blobs)

    def sha512(self, repository: str) -> Image:
        """An image for this machine whose config and layers are named by sha512."""
        blobs: dict[str, Path] = {}
        layers = [self._base(host_architecture()), self._named(f"{repository} sha512", 0)]
        manifest = self._of(layers, repository, host_architecture(), OCI, blobs, "sha512")
        return Image(repository, manifest, {}, blobs)

    def _manifest(
        self, repository: str, architecture: str, types: Mapping[str, str], blobs: dict[str, Path], noise: int
    ) -> Manifest:
        layers = [self._base(architecture), self._named(f"{repository} {architecture}", noise)]
        return self._of(layers, repository, architecture, types, blobs)

    def _of(
        self,
        layers: Sequence[_Layer],
        repository: str,
        architecture: str,
        types: Mapping[str, str],
        blobs: dict[str, Path],
        algorithm: str = "sha256",
    ) -> Manifest:
        """The manifest of these layers; its config and they are named by digests of this algorithm."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "Labels": {"repository": repository}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.plain.hexdigest()}" for layer in layers]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "docxy tests"} for _ in layers],
        }
        written = self._kept(_json(config))
        body = {
            "schemaVersion": 2,
            "mediaType": types["manifest"],
            "config": _described(types["config"], written, blobs, algorithm),
            "layers": [_described(types["layer"], layer.path, blobs, algorithm) for layer in layers],
        }
        return Manifest(types["manifest"], _json(body))

    def _kept(self, content: bytes) -> Path:
        path = self._directory / hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
        return path

    def _base(self, architecture: str) -> _Layer:
        def fill(tar: tarfile.TarFile) -> None:
            if architecture != host_architecture():
                _add(tar, "architecture", architecture.encode(), len(architecture))
                return
            _add(tar, "bin/busybox", self._busybox, len(self._busybox), 0o755)
            for name in LINKS:
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)

        return self._layer(f"base-{architecture}", fill)

    def _named(self, name: str, noise: int) -> _Layer:
        def fill(tar: tarfile.TarFile) -> None:
            _add(tar, "etc/image", name.encode(), len(name))
            if noise:
                _add(tar, "noise", _Noise(), noise)

        return self._layer(name.replace("/", "-").replace(" ", "-"), fill)

    def _layer(self, name: str, fill: Callable[[tarfile.TarFile], None]) -> _Layer:
        layer = _Layer(self._directory / name)
        layer.build(fill)
        return layer


def _described(media_type: str, path: Path, blobs: dict[str, Path], algorithm: str = "sha256") -> dict[str, object]:
    """The descriptor of a file, which becomes one of the blobs."""
    content = path.read_bytes()
    digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    blobs[digest] = path
    return {"mediaType": media_type, "size": len(content), "digest": digest}


def _zstd(content: bytes) -> bytes:
    """A zstd frame (RFC 8878) of blocks that are stored as they are."""
    block = 1 << 17
    # A window of 128 KiB, no checksum, no size of the content.
    frame = bytearray(b"\x28\xb5\x2f\xfd\x00\x38")
    for start in range(0, len(content), block):
        piece = content[start : start + block]
        last = start + block >= len(content)
        frame += (len(piece) << 3 | last).to_bytes(3, "little") + piece
    return bytes(frame)


def _json(value: object) -> bytes:
    # Indented like docker's own: whoever re-encodes a manifest changes its digest.
    return json.dumps(value, indent=3).encode()

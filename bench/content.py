"""What is pulled: random blobs and a manifest, pushed to the registry that is everyone's upstream."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from attrs import define, field, frozen

REPOSITORY = "bench/content"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "*/*",
    )
)
"""What containerd asks for manifests with."""
_PIECE = 1 << 20


class PushFailed(Exception):
    """The registry did not take something; the message has its answer."""


@frozen
class Blob:
    digest: str
    size: int

    @property
    def path(self) -> str:
        return f"/v2/{REPOSITORY}/blobs/{self.digest}"


@define
class Content:
    """Makes and pushes; `url` is the registry's, `log` is what the mirrors' upstream prints."""

    url: str
    log: Path
    _noise: bytes = field(factory=lambda: os.urandom(16 * _PIECE), init=False)

    def blob(self, size: int) -> Blob:
        """A new one, unlike any other, not compressible.  Raises PushFailed."""
        mark = os.urandom(16)
        hasher = hashlib.sha256()
        for piece in self._pieces(mark, size):
            hasher.update(piece)
        blob = Blob(f"sha256:{hasher.hexdigest()}", size)
        self._upload(blob, REPOSITORY, self._pieces(mark, size))
        return blob

    def manifest(self) -> str:
        """The path of one with ten layers, about 2 KB."""
        config, layer = self.blob(1024), self.blob(1024)
        body = _manifest(config, [layer] * 10)
        path = f"/v2/{REPOSITORY}/manifests/sha256:{hashlib.sha256(body).hexdigest()}"
        self._put(path, iter([body]), len(body), MANIFEST_TYPE)
        return path

    def tag(self, manifest: str) -> str:
        """The path of a tag `latest` for the manifest at a path."""
        _, body, _ = self._ask("GET", manifest, headers={"Accept": MANIFEST_TYPE})
        path = f"/v2/{REPOSITORY}/manifests/latest"
        self._put(path, iter([body]), len(body), MANIFEST_TYPE)
        return path

    def image(self, repository: str, sizes: Sequence[int]) -> str:
        """`repository:latest`, with a layer of each of these sizes that a container engine can unpack."""
        layers, names = [], []
        for number, size in enumerate(sizes):
            layer, name = _layer(f"file{number}", os.urandom(size))
            layers.append(self._push(layer, repository))
            names.append(name)
        config = json.dumps(
            {
                "architecture": architecture(),
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": names},
            }
        ).encode()
        body = _manifest(self._push(config, repository), layers)
        self._put(f"/v2/{repository}/manifests/latest", iter([body]), len(body), MANIFEST_TYPE)
        return f"{repository}:latest"

    def sent(self, blob: Blob) -> int:
        """Bytes of a blob that the upstream has sent since it started, as its access log has it."""
        sent = 0
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                _, found, rest = line.partition(f'"GET {blob.path} HTTP/')
                if found:
                    sent += int(rest.split()[2])
        return sent

    def _push(self, data: bytes, repository: str) -> Blob:
        blob = Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
        self._upload(blob, repository, iter([data]))
        return blob

    def _upload(self, blob: Blob, repository: str, pieces: Iterator[bytes | memoryview]) -> None:
        status, answer, location = self._ask("POST", f"/v2/{repository}/blobs/uploads/")
        if status != 202:
            raise PushFailed(f"{status} {answer!r}")
        parts = urlsplit(location)
        path = f"{parts.path}?{parts.query}&digest={blob.digest}"
        self._put(path, pieces, blob.size, "application/octet-stream")

    def _pieces(self, mark: bytes, size: int) -> Iterator[memoryview]:
        yield memoryview(mark)[:size]
        left, noise = size - len(mark), memoryview(self._noise)
        while left > 0:
            start = left % (len(noise) - _PIECE)
            yield noise[start : start + min(_PIECE, left)]
            left -= _PIECE

    def _put(self, path: str, body: Iterator[bytes | memoryview], size: int, kind: str) -> None:
        headers = {"Content-Length": str(size), "Content-Type": kind}
        status, answer, _ = self._ask("PUT", path, body, headers)
        if status != 201:
            raise PushFailed(f"{status} {answer!r}")

    def _ask(
        self,
        method: str,
        path: str,
        body: Iterator[bytes | memoryview] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, str]:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("Location", "")
        finally:
            connection.close()


def _manifest(config: Blob, layers: Sequence[Blob]) -> bytes:
    """Of Docker's kind."""

    def described(blob: Blob, kind: str) -> dict[str, object]:
        return {"mediaType": f"application/vnd.docker.{kind}", "size": blob.size, "digest": blob.digest}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described(config, "container.image.v1+json"),
            "layers": [described(layer, "image.rootfs.diff.tar.gzip") for layer in layers],
        },
        indent=1,
    ).encode()


def _layer(name: str, data: bytes) -> tuple[bytes, str]:
    """A layer with one file, and the digest of its tar."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    # Noise does not get smaller; level 1 finds that out fastest.
    return gzip.compress(tar.getvalue(), 1), f"sha256:{hashlib.sha256(tar.getvalue()).hexdigest()}"


def architecture() -> str:
    """This machine's, as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

"""What is pulled: random blobs and a manifest, pushed to the registry that is everyone's upstream."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from attrs import define, field, frozen

from bench.processes import HOST

REPOSITORY = "bench/content"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
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
    """Makes and pushes; `log` is what the upstream prints."""

    port: int
    log: Path
    _noise: bytes = field(factory=lambda: os.urandom(16 * _PIECE), init=False)

    def blob(self, size: int) -> Blob:
        """A new one, unlike any other, not compressible.  Raises PushFailed."""
        mark = os.urandom(16)
        hasher = hashlib.sha256()
        for piece in self._pieces(mark, size):
            hasher.update(piece)
        blob = Blob(f"sha256:{hasher.hexdigest()}", size)
        status, answer, location = self._ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
        if status != 202:
            raise PushFailed(f"{status} {answer!r}")
        parts = urlsplit(location)
        path = f"{parts.path}?{parts.query}&digest={blob.digest}"
        self._put(path, self._pieces(mark, size), size, "application/octet-stream")
        return blob

    def manifest(self) -> str:
        """The path of one with ten layers, about 2 KB."""
        config, layer = self.blob(1024), self.blob(1024)
        described = {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 1024}
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": config.size,
                    "digest": config.digest,
                },
                "layers": [{**described, "digest": layer.digest}] * 10,
            },
            indent=1,
        ).encode()
        path = f"/v2/{REPOSITORY}/manifests/sha256:{hashlib.sha256(body).hexdigest()}"
        self._put(path, iter([body]), len(body), MANIFEST_TYPE)
        return path

    def sent(self, blob: Blob) -> int:
        """Bytes of a blob that the upstream has sent since it started, as its access log has it."""
        sent = 0
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                _, found, rest = line.partition(f'"GET {blob.path} HTTP/1.1" ')
                if found:
                    sent += int(rest.split()[1])
        return sent

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
        connection = HTTPConnection(HOST, self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("Location", "")
        finally:
            connection.close()

"""A private Docker Hub on loopback, made of real parts.

::

      docker, containerd, podman, skopeo       on a Machine (machine.py, clients.py)
                     |
                     v
                   docxy                       (daemon.py)
                  /  |  \\
         /v2/…   /   |   \\   GET and POST /token
                v    |    v
      docker-registry|   token service         (tokens.py)
      127.0.0.1      |   127.0.0.1
        |   401 with a challenge, then trusts what the token service signed
        |            |
        | 307 for    | blobs/sha256/ab/<hex>/data
        | every blob v
        +-------->  nginx, 127.0.0.2
                    serves the registry's storage directory;
                    403 to whoever sends it an Authorization header, as a CDN does

Anyone may pull `library/…` and `team/…`, and only the account `alice` may pull `alice/…`
(images.py says what is there).  Tokens live 60 s.  Each of the three parts is a Daemon
that can be stopped and started again on its port; `watch_…()` gives what it is asked.

The law: nothing listens beyond loopback, nothing is fetched from anywhere, and nothing of
it is left when `stop` returns.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from attrs import define, field

from tests.harness.certificates import SEC1, issue
from tests.harness.processes import CHECKOUT, Daemon, accepts, free_port, which
from tests.live.images import Builder, Image, Manifest
from tests.live.tokens import Settings, Signer
from tests.live.watching import Watch, blobs_line, registry_line, tokens_line

USER, PASSWORD = "alice", "correct-horse-battery-staple"
"""The one account."""
TOKEN_LIFETIME = 60
"""Seconds."""
HOST = "127.0.0.1"
CDN_HOST = "127.0.0.2"
"""Another host than the registry's, not only another port."""
SLOW = 20 * 1024 * 1024
"""Bytes a second, when blobs are slow: the large layer takes 10 s then."""
SERVICE = "registry.bed.test"


class PushFailed(Exception):
    """The registry did not take an image; the message has its answer."""


@define
class Bed:
    """The running whole; `start` and `stop` it, or use it as a context manager."""

    directory: Path
    """Its own, existing and empty."""
    images: dict[str, Image] = field(factory=dict, init=False)
    """By repository."""
    port: int = field(factory=free_port, init=False)
    token_port: int = field(factory=free_port, init=False)
    blob_port: int = field(init=False)
    signer: Signer = field(init=False)
    registry: Daemon = field(init=False)
    blobs: Daemon = field(init=False)
    tokens: Daemon = field(init=False)
    _open: ExitStack = field(factory=ExitStack, init=False)

    def __attrs_post_init__(self) -> None:
        self.blob_port = free_port(CDN_HOST)
        pair = issue(common_name="docxy test token service")
        self.signer = Signer(pair.pem.decode(), pair.key_pem(SEC1).decode(), "bed", SERVICE, TOKEN_LIFETIME)
        self.registry = self._registry()
        self.blobs = self._blobs()
        self.tokens = self._tokens()

    def __enter__(self) -> Bed:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The registry's, for `--upstream`."""
        return f"http://{HOST}:{self.port}"

    @property
    def realm(self) -> str:
        """The token service's."""
        return f"http://{HOST}:{self.token_port}/token"

    def start(self) -> None:
        """Start every part and push the images; about 3 s."""
        with ExitStack() as started:
            for part in (self.tokens, self.blobs, self.registry):
                part.start()
                started.callback(part.stop)
            self._push_all()
            self._open = started.pop_all()

    def stop(self) -> None:
        """Stop every part."""
        self._open.close()

    def watch_registry(self) -> Watch:
        """What the registry is asked from now on."""
        return Watch(_at_end(self.registry.log), registry_line, (HOST, self.port))

    def watch_blobs(self) -> Watch:
        """What nginx is asked from now on."""
        return Watch(_at_end(self._access), blobs_line, (CDN_HOST, self.blob_port))

    def watch_tokens(self) -> Watch:
        """What the token service is asked from now on."""
        return Watch(_at_end(self.tokens.log), tokens_line, (HOST, self.token_port))

    def refuse_tokens(self, status: int | None) -> None:
        """Let the token service answer everything with this status; None: as always."""
        if status is None:
            self._refusal.unlink(missing_ok=True)
        else:
            self._refusal.write_text(str(status))

    def slow_blobs(self, slow: bool) -> None:
        """Let nginx send at SLOW, or again as fast as it can; holds for requests made from now on."""
        if slow:
            self._slow.touch()
        else:
            self._slow.unlink(missing_ok=True)

    @contextmanager
    def off(self) -> Iterator[None]:
        """All three parts are off while this is open."""
        parts = (self.tokens, self.blobs, self.registry)
        for part in parts:
            part.stop()
        try:
            yield
        finally:
            for part in parts:
                part.start()

    @property
    def builder(self) -> Builder:
        """Makes images like those that are there."""
        busybox = which("busybox")
        assert busybox is not None
        built = self.directory / "built"
        built.mkdir(exist_ok=True)
        return Builder(built, Path(busybox))

    def push(self, image: Image) -> None:
        """Put an image into the registry; raises PushFailed."""
        token = self.signer.token("pusher", [(image.repository, ("pull", "push"))])
        push_to(HTTPConnection(HOST, self.port, timeout=60, blocksize=1 << 20), image, token)

    def _push_all(self) -> None:
        self.images = self.builder.all()
        for image in self.images.values():
            self.push(image)

    @property
    def _refusal(self) -> Path:
        return self.directory / "tokens-refuse"

    @property
    def _slow(self) -> Path:
        return self.directory / "blobs-slow"

    @property
    def _access(self) -> Path:
        return self.directory / "blobs-access.log"

    @property
    def _storage(self) -> Path:
        return self.directory / "storage"

    def _registry(self) -> Daemon:
        trusted = self.directory / "token-service.pem"
        trusted.write_text(self.signer.certificate)
        settings = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self._storage)}, "delete": {"enabled": True}},
            "middleware": {
                "storage": [{"name": "redirect", "options": {"baseurl": f"http://{CDN_HOST}:{self.blob_port}"}}]
            },
            "http": {"addr": f"{HOST}:{self.port}", "secret": "only one instance"},
            "auth": {
                "token": {
                    "realm": self.realm,
                    "service": SERVICE,
                    "issuer": self.signer.issuer,
                    "rootcertbundle": str(trusted),
                }
            },
        }
        # JSON is YAML too.
        config = self.directory / "registry.yml"
        config.write_text(json.dumps(settings, indent=1))
        argv = [which("docker-registry") or "docker-registry", "serve", str(config)]
        return Daemon("docker-registry", argv, self.directory / "registry.log", accepts(self.port))

    def _blobs(self) -> Daemon:
        config = self.directory / "nginx.conf"
        temporary = "\n".join(
            f"{kind}_temp_path {self.directory}/nginx-{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"""
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/blobs-error.log;
events {{ worker_connections 1024; }}
http {{
    {temporary}
    log_format requests escape=json
        '{{"method":"$request_method","path":"$request_uri","status":"$status","sent":"$body_bytes_sent","range":"$http_range"}}';
    access_log {self._access} requests;
    default_type application/octet-stream;
    sendfile on;
    server {{
        listen {CDN_HOST}:{self.blob_port};
        if (-f {self._slow}) {{ set $limit_rate {SLOW}; }}
        location / {{ return 404; }}
        location /docker/registry/v2/blobs/ {{
            if ($http_authorization) {{ return 403; }}
            root {self._storage};
        }}
    }}
}}
"""
        )
        argv = [which("nginx") or "nginx", "-c", str(config), "-e", str(self.directory / "blobs-error.log")]
        self._access.touch()
        return Daemon("nginx", argv, self.directory / "blobs.log", accepts(self.blob_port, CDN_HOST))

    def _tokens(self) -> Daemon:
        path = self.directory / "tokens.json"
        Settings(self.token_port, self.signer, {USER: PASSWORD}, ("library/", "team/"), str(self._refusal)).save(path)
        argv = [sys.executable, "-m", "tests.live.tokens", str(path)]
        environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        return Daemon("token service", argv, self.directory / "tokens.log", accepts(self.token_port), environ)


def push_to(connection: HTTPConnection, image: Image, token: str | None) -> None:
    """Put an image into a registry and close the connection to it; raises PushFailed.

    `token`: None where none is asked for.
    """
    try:
        push = _Push(connection, image.repository, token)
        for digest, path in image.blobs.items():
            push.blob(digest, path)
        for child in image.children.values():
            push.manifest(child.digest, child)
        push.manifest("latest", image.top)
    finally:
        connection.close()


@define
class _Push:
    """Uploads to one repository."""

    _connection: HTTPConnection
    _repository: str
    _token: str | None

    def blob(self, digest: str, path: Path) -> None:
        begun = self._request("POST", f"/v2/{self._repository}/blobs/uploads/", 202)
        location = urlsplit(begun.headers["Location"])
        with path.open("rb") as body:
            self._request(
                "PUT",
                f"{location.path}?{location.query}&digest={digest}",
                201,
                body,
                {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)},
            )

    def manifest(self, reference: str, manifest: Manifest) -> None:
        path = f"/v2/{self._repository}/manifests/{reference}"
        self._request("PUT", path, 201, manifest.body, {"Content-Type": manifest.media_type})

    def _request(
        self,
        method: str,
        path: str,
        expected: int,
        body: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> HTTPResponse:
        # A registry that refuses does not read the body: ask with the token at once.
        headers = {**({"Authorization": f"Bearer {self._token}"} if self._token else {}), **(headers or {})}
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        text = response.read().decode(errors="replace")
        if response.status != expected:
            raise PushFailed(f"{method} {path}: {response.status} {text}")
        return response


def _at_end(log: Path) -> IO[bytes]:
    file = log.open("rb")
    file.seek(0, os.SEEK_END)
    return file

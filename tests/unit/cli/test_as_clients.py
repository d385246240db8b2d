"""A pull as docker, containerd and podman do it: what they ask, and what of the answers they would fail at."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from docxy.cli.as_clients import as_clients
from docxy.cli.images import named as named_image
from docxy.names import OCI_INDEX, OCI_MANIFEST
from docxy.settings.upstreams import preset

CONFIG, LAYER = b"{}", b"layer"


def named(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "x", "digest": named(CONFIG), "size": len(CONFIG)},
        "layers": [{"mediaType": "x", "digest": named(LAYER), "size": len(LAYER)}],
    }
).encode()
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": named(MANIFEST),
                "size": 1,
                "platform": {"os": "linux", "architecture": "arm64"},
            }
        ],
    }
).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, list[str]], list[str]]] = []
        self.token: str | None = None
        self.left_out: set[str] = set()
        self.broken = False
        self.found = {named(body): body for body in (CONFIG, LAYER, MANIFEST, INDEX)}
        self.realm = f"http://127.0.0.1:{self.server_port}/auth/token"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Not for the console."""

    def do_GET(self) -> None:
        server, split = self.server, urlsplit(self.path)
        server.asked.append((self.command, split.path, parse_qs(split.query), self.headers.get_all("Accept", [])))
        if split.path == "/auth/token":
            self.answer(200, json.dumps({"token": server.token}).encode())
        elif server.token is not None and self.headers["Authorization"] != f"Bearer {server.token}":
            self.answer(401, b"{}", ("WWW-Authenticate", f'Bearer realm="{server.realm}",service="s"'))
        elif split.path == "/v2/":
            self.answer(200, b"{}")
        else:
            reference = split.path.rpartition("/")[2]
            body = server.found.get(named(INDEX) if reference == "1" else reference)
            kind = OCI_INDEX if body == INDEX else OCI_MANIFEST
            if body is None:
                self.answer(404, json.dumps({"errors": [{"message": "not here"}]}).encode())
            else:
                digest = ("Docker-Content-Digest", named(body))
                self.answer(200, body[:-1] + b"?" if server.broken else body, ("Content-Type", kind), digest)

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            if name not in self.server.left_out:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class AsClients(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        serving = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def found(self, image: str = "alpine:1", token: str | None = None) -> dict[str, tuple[str, str]]:
        wanted = named_image(image, [preset("docker.io"), preset("ghcr.io")])
        told = list(as_clients(self.url, "docker.io", wanted, lambda: token))
        for each in told:
            self.assertEqual(bool(each.mend), each.level != "good")
        return {each.what: (each.level, each.words) for each in told}

    def test_sequences(self) -> None:
        """Each client's requests, in its order, with its Accept and its way to name the registry."""
        found = self.found()
        self.assertEqual([level for level, _ in found.values()], ["good"] * 3)
        base, ns = "/v2/library/alpine", {"ns": ["docker.io"]}
        index, manifest = (f"manifests/{named(body)}" for body in (INDEX, MANIFEST))
        blobs = [f"blobs/{named(body)}" for body in (CONFIG, LAYER)]
        rest = [("GET", each) for each in (index, manifest, *blobs)]
        shown = [(method, path, query) for method, path, query, _ in self.server.asked]
        docker: list[Any] = [
            ("GET", "/v2/", {}),
            *((m, f"{base}/{p}", {}) for m, p in (("HEAD", "manifests/1"), *rest)),
        ]
        containerd = [(m, f"{base}/{p}", ns) for m, p in (("HEAD", "manifests/1"), *rest)]
        podman: list[Any] = [
            ("GET", "/v2/", {}),
            *(("GET", f"/v2/docker.io/library/alpine/{p}", {}) for p in ("manifests/1", manifest, *blobs)),
        ]
        self.assertEqual(shown, [*docker, *containerd, *podman])
        accepts = [len(accept) for method, path, _, accept in self.server.asked if path.endswith("/manifests/1")]
        self.assertEqual(accepts, [4, 1, 6])

    def test_other_registry(self) -> None:
        """docker uses a mirror for Docker Hub only."""
        self.assertEqual(list(self.found("ghcr.io/o/i:1")), ["as containerd", "as podman"])

    def test_headers(self) -> None:
        """docker and containerd need what podman does without."""
        self.server.left_out = {"Docker-Content-Digest"}
        found = self.found()
        self.assertEqual(
            [found[f"as {name}"][0] for name in ("docker", "containerd", "podman")], ["bad", "bad", "good"]
        )
        self.assertIn("Docker-Content-Digest", found["as docker"][1])

    def test_wrong_bytes(self) -> None:
        """Bytes that are not those of their digest are found."""
        self.server.broken = True
        self.assertEqual({level for level, _ in self.found().values()}, {"bad"})

    def test_missing(self) -> None:
        """What is not there, with what docxy says of it."""
        self.assertIn("answers 404: not here", self.found("alpine:2")["as podman"][1])

    def test_login(self) -> None:
        """A token is fetched where docxy says, or is the one that docxy gave out; a wrong one is not used for ever."""
        self.server.token = "t"
        self.assertEqual({level for level, _ in self.found().values()}, {"good"})
        self.server.asked.clear()
        self.assertEqual({level for level, _ in self.found(token="t").values()}, {"good"})
        self.assertNotIn("/auth/token", [path for _, path, _, _ in self.server.asked])
        self.assertIn("answers 401", self.found(token="wrong")["as docker"][1])

    def test_realm(self) -> None:
        """No other server is asked for a token."""
        self.server.token, self.server.realm = "t", "http://127.0.0.1:9/token"
        self.assertIn("check public_url", self.found()["as containerd"][1])

    def test_nobody(self) -> None:
        """A port on which nobody serves."""
        self.url = "http://127.0.0.1:9"
        self.assertIn("Connection refused", self.found()["as docker"][1])

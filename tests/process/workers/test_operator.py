"""Every command of an operator against a docxy with two workers that is busy with a pull."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from docxy.names import OCI_MANIFEST
from tests.harness.docxy import environment
from tests.harness.processes import free_port
from tests.process.workers.harness import WorkersCase

DOCXY = [sys.executable, "-c", "from docxy.cli.main import main; main()"]
SLOW = hashlib.shake_128(b"slow").digest(3 << 20)
CONFIG = b'{"os": "linux", "architecture": "amd64"}'


def named(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry(ThreadingHTTPServer):
    """Images of one layer, and one blob whose end comes when the test wants it."""

    daemon_threads = True

    def __init__(self) -> None:
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), Handler)
        self.down = False
        self.gate = threading.Event()
        self.blobs = {named(CONFIG): CONFIG, named(SLOW): SLOW}
        self.manifests: dict[str, bytes] = {}

    def add(self, tag: str, layer: bytes) -> str:
        """An image; its digest."""
        self.blobs[named(layer)] = layer
        described = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": named(CONFIG),
            "size": len(CONFIG),
        }
        one = {"mediaType": "application/octet-stream", "digest": named(layer), "size": len(layer)}
        body = json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": [one]}
        ).encode()
        self.manifests[tag] = self.manifests[named(body)] = body
        return named(body)


class Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        reference = self.path.partition("?")[0].rpartition("/")[2]
        is_manifest = "/manifests/" in self.path
        body = (
            b"{}"
            if self.path == "/v2/"
            else (self.server.manifests if is_manifest else self.server.blobs).get(reference)
        )
        if self.server.down or body is None:
            self.send_response(503 if self.server.down else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", OCI_MANIFEST if is_manifest else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:-1])
            if body is SLOW:
                self.server.gate.wait(90)
            self.wfile.write(body[-1:])

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Not for the console."""


class OperatorTests(WorkersCase):
    timeout = 300

    def setUp(self) -> None:
        self.registry = Registry()
        serving = threading.Thread(target=self.registry.serve_forever, args=(0.05,))
        serving.start()
        for end in (serving.join, self.registry.server_close, self.registry.shutdown, self.registry.gate.set):
            self.addCleanup(end)
        self.one = self.registry.add("v1", b"a" * 200_000)
        self.two = self.registry.add("v2", b"b" * 100_000)
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        # Trial's directories can be too deep for the path of a Unix socket.
        self.socket = f"/tmp/docxy-operator-{free_port()}.sock"
        self.addCleanup(Path(self.socket).unlink, missing_ok=True)
        self.accounts, self.file = directory / "htpasswd", directory / "docxy.toml"
        self.said(0, "password", "alice", "--stdin", "--cost", "4", "--file", str(self.accounts), input="secret\n")
        self.file.write_text(
            f'admin_socket = "{self.socket}"\nprefetch = false\n[access]\nhtpasswd = "{self.accounts}"\n'
            '[[access.rules]]\nusers = ["alice"]\nrepositories = ["fake.test/**"]\n'
            f'[[upstreams]]\nname = "fake.test"\nurl = "http://127.0.0.1:{self.registry.server_port}"\nprivate = true\n'
        )
        self.start(DOCXY_CONFIG=str(self.file))

    def run_docxy(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DOCXY, *arguments],
            env=environment(ADMIN_SOCKET=getattr(self, "socket", "")),
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def said(self, status: int, *arguments: str, input: str | None = None) -> str:
        found = self.run_docxy(*arguments, input=input)
        self.assertEqual(found.returncode, status, f"{arguments}: {found.stdout}{found.stderr}")
        return found.stdout

    def told(self, status: int, *arguments: str) -> Any:
        return json.loads(self.said(status, *arguments, "--json"))

    def get(self, connection: HTTPConnection, path: str, token: str | None = None) -> int:
        basic = f"Basic {base64.b64encode(b'alice:secret').decode()}"
        authorization = basic if token is None else f"Bearer {token}"
        return self.status(connection, path, {"Authorization": authorization, "Accept": OCI_MANIFEST})

    def test_commands(self) -> None:
        """What is cached is seen, removed from every worker, verified; a pull under way is not disturbed."""
        workers = [self.connect(pid) for pid in self.workers()]
        base = "/v2/o/i"
        for connection in workers:
            for path in ("manifests/v1", f"manifests/{self.one}", "manifests/v2", f"blobs/{named(CONFIG)}"):
                self.assertEqual(self.get(connection, f"{base}/{path}"), 200)
        for image in (b"a" * 200_000, b"b" * 100_000):
            self.assertEqual(self.get(workers[0], f"{base}/blobs/{named(image)}"), 200)
        busy = self.connection()
        authorization = {"Authorization": f"Basic {base64.b64encode(b'alice:secret').decode()}"}
        pull = self.ask(busy, f"{base}/blobs/{named(SLOW)}", authorization)
        self.assertEqual(pull.status, 200)

        self.assertEqual(self.get(workers[0], "/acts/ls"), 404, "no port serves what the admin socket does")
        found = self.told(0, "ls", "o/*")
        self.assertEqual([each["image"] for each in found["images"]], ["fake.test/o/i:v1", "fake.test/o/i:v2"])
        self.assertEqual(found["images"][0]["platforms"], ["linux/amd64"])
        (shown,) = self.told(0, "show", "o/i:v1")
        self.assertEqual([layer["cached"] for layer in shown["manifests"][0]["layers"]], [True, True])
        self.assertGreater(self.told(0, "du")["used"], 300_000)
        self.assertEqual(self.told(0, "verify")["damaged"], 0)

        dry = self.told(0, "rm", "o/i:v1", "--dry-run")
        self.assertEqual(self.run_docxy("rm", "o/i:v1").returncode, 1, "nobody was asked")
        gone = self.told(0, "rm", "o/i:v1", "--yes")
        self.assertEqual((gone["frees"], gone["blobs"]), (dry["frees"], 2))
        self.said(1, "show", "o/i:v1")
        self.registry.down = True
        for connection in workers:
            for path in (f"manifests/{self.one}", f"blobs/{named(b'a' * 200_000)}"):
                self.assertEqual(self.get(connection, f"{base}/{path}"), 503, "it is in no worker's memory")
            self.assertEqual(self.get(connection, f"{base}/manifests/{self.two}"), 200, "another image stays")
        self.registry.down = False
        self.assertEqual(self.told(0, "gc", "--yes")["images"], 0)

        token = self.said(0, "token", "-u", "alice", "fake.test/o/i").strip()
        for connection in workers:
            self.assertEqual(self.get(connection, "/v2/fake.test/o/i/manifests/v2", token), 200)
        self.said(1, "token", "-u", "bob", "o/i")
        self.assertEqual({each["worker"] for each in self.told(0, "reload")["files"]}, {None, 1, 2})
        self.accounts.write_text("broken\n")
        self.assertEqual(self.told(1, "reload")["refused"], 2)
        for connection in workers:
            self.assertEqual(self.get(connection, f"{base}/manifests/v2"), 200, "the old accounts stay")

        self.registry.gate.set()
        self.assertEqual(hashlib.sha256(pull.read()).hexdigest(), named(SLOW)[7:])

        self.assertIn("without --cache", self.run_docxy("gc", "--cache", self.cache, "--yes").stderr)
        self.assertEqual(len(self.told(0, "ls", "--cache", self.cache)["images"]), 1)
        self.daemon.stop()
        self.said(3, "ls")
        self.assertEqual(len(self.told(0, "ls", "--cache", self.cache)["images"]), 1)
        self.assertEqual(self.told(0, "verify", "--cache", self.cache)["damaged"], 0)
        self.assertEqual(self.told(0, "rm", "**", "--cache", self.cache, "--yes")["images"], 1)
        self.said(1, "ls", "--cache", self.cache)

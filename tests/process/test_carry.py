"""Images on their way: warmed by one docxy, exported, imported by another that has no registry, pulled there."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.names import OCI_INDEX, OCI_MANIFEST
from tests.harness.docxy import environment, spawn
from tests.harness.processes import fetch, free_port
from tests.process.test_cli import DOCXY

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(data), **more}


class Library:
    """What the registry holds: `o/i:v1` and `o/i:v2` for two platforms, which share a layer."""

    def __init__(self) -> None:
        self.content: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.left: int | None = None
        """Of 100 pulls; None: there is no limit."""
        shared = os.urandom(3 << 20)
        for tag in ("v1", "v2"):
            children = []
            for architecture in ("amd64", "arm64"):
                config = json.dumps({"os": "linux", "architecture": architecture, "tag": tag}).encode()
                layers = [shared, f"{tag} for {architecture}".encode() * 50_000]
                manifest = {
                    "schemaVersion": 2,
                    "mediaType": OCI_MANIFEST,
                    "config": self.add(config, CONFIG),
                    "layers": [self.add(layer, LAYER) for layer in layers],
                }
                platform = {"os": "linux", "architecture": architecture}
                children.append(self.add(json.dumps(manifest).encode(), OCI_MANIFEST, platform=platform))
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
            added = self.add(json.dumps(index).encode(), OCI_INDEX)
            self.content[tag] = self.content[added["digest"]]
        self.shared = described(shared, LAYER)["digest"]

    def add(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        entry = described(data, media_type, **more)
        self.content[entry["digest"]] = (media_type, data)
        return entry


class Registry(BaseHTTPRequestHandler):
    """Serves a Library."""

    protocol_version = "HTTP/1.1"
    library: Library

    def do_GET(self) -> None:
        self.library.asked.append(self.path)
        found = self.library.content.get(self.path.rpartition("/")[2])
        kind, body = found or ("application/json", b"{}")
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.library.left is not None:
            self.send_header("ratelimit-limit", "100;w=21600")
            self.send_header("ratelimit-remaining", f"{self.library.left};w=21600")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Not for the console."""


class Carried(SynchronousTestCase):
    workers = 2

    def setUp(self) -> None:
        self.library = Library()
        handler = type("Handler", (Registry,), {"library": self.library})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.serving = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.serving.start()
        self.addCleanup(self.registry_ends)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def registry_ends(self) -> None:
        if self.serving.is_alive():
            self.server.shutdown()
            self.serving.join()
            self.server.server_close()

    def start(self, name: str, policy: str = "") -> tuple[int, dict[str, str]]:
        """A docxy with a cache of its own: its port, and the environment for commands; `policy`: more of its file."""
        port = free_port()
        socket = f"/tmp/docxy-carry-{port}.sock"
        self.addCleanup(Path(socket).unlink, missing_ok=True)
        file = self.directory / f"{name}.toml"
        file.write_text(
            f'cert = "off"\nport = {port}\ninterface = "127.0.0.1"\ncache = "{self.directory}/{name}"\n'
            f'cache_size = "1GB"\nadmin_socket = "{socket}"\nworkers = {self.workers}\n'
            f'public_url = "http://127.0.0.1:{port}"\n'
            f'[[upstreams]]\nname = "fake.test"\nurl = "http://127.0.0.1:{self.server.server_port}"\nprivate = true\n'
            f"{policy}"
        )
        self.daemon = daemon = spawn(self, [*DOCXY, "run", "--config", str(file)], environment(PYTHONUNBUFFERED="1"))
        daemon.healthy(f"http://127.0.0.1:{port}/startup")
        return port, {"DOCXY_CONFIG": str(file)}

    def test_keep(self) -> None:
        """What `[[keep]]` names is fetched without a pull; a SIGHUP adds to it at once, in all workers."""
        port, environ = self.start("kept", '[[keep]]\nimages = ["fake.test/o/i:v1"]\n')
        self.daemon.until(lambda: "kept fake.test/o/i:v1: 1 images" in self.daemon.text())
        asked = len(self.library.asked)
        self.pull(port, "v1")
        self.assertFalse([each for each in self.library.asked[asked:] if "/blobs/" in each])
        file = Path(environ["DOCXY_CONFIG"])
        file.write_text(file.read_text().replace("o/i:v1", "o/i:v2"))
        self.daemon.signal(signal.SIGHUP)
        self.daemon.until(lambda: "kept fake.test/o/i:v2: 1 images" in self.daemon.text())
        asked = len(self.library.asked)
        self.pull(port, "v2")
        self.assertFalse([each for each in self.library.asked[asked:] if "/blobs/" in each])

    def test_floor(self) -> None:
        """A pull limit that is nearly used up is left to others; a lower floor takes of it."""
        _, environ = self.start("limited")
        self.library.left = 8
        self.docxy(environ, "warm", "fake.test/o/i:v1", "--floor", "5")
        asked = len(self.library.asked)
        (row,) = self.docxy(environ, "warm", "fake.test/o/i:v2", status=1)["images"]
        self.assertEqual(row["status"], 429)
        self.assertFalse([each for each in self.library.asked[asked:] if "/blobs/" in each])
        (row,) = self.docxy(environ, "warm", "fake.test/o/i:v2", "--floor", "5")["images"]
        self.assertEqual((row["error"], row["fetched"] > 0), ("", True))

    def docxy(self, environ: Mapping[str, str], *arguments: str, status: int = 0) -> Any:
        done = subprocess.run(
            [*DOCXY, *arguments, "--json"], env=environment(**environ), capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return json.loads(done.stdout) if done.stdout else done.stderr

    def pull(self, port: int, reference: str, architecture: str = "amd64") -> None:
        """A pull of all that one platform is made of; every byte must be right."""
        wanted = [reference]
        while wanted:
            reference = wanted.pop()
            kind = "blobs" if self.library.content[reference][0] in (CONFIG, LAYER) else "manifests"
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            self.addCleanup(connection.close)
            headers = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}"}
            connection.request("GET", f"/v2/o/i/{kind}/{reference}", headers=headers)
            response = connection.getresponse()
            body = response.read()
            self.assertEqual(response.status, 200, (reference, body[:200]))
            content = json.loads(body) if kind == "manifests" else {}
            if "sha256:" in reference:
                self.assertEqual(f"sha256:{hashlib.sha256(body).hexdigest()}", reference)
            for child in content.get("manifests", []):
                if child["platform"]["architecture"] == architecture:
                    wanted.append(child["digest"])
            wanted += [each["digest"] for each in [content.get("config"), *content.get("layers", [])] if each]

    def test_carry(self) -> None:
        """warm, then all is a hit; export, a differential one too; import where there is no registry; pulls there."""
        port, here = self.start("here")
        told = self.docxy(here, "warm", "fake.test/o/i:v1")
        (row,) = told["images"]
        self.assertGreater(row["fetched"], 3 << 20)
        asked = len(self.library.asked)
        (row,) = self.docxy(here, "warm", "fake.test/o/i:v1", "--platform", "linux/amd64")["images"]
        self.assertEqual((row["fetched"], row["error"]), (0, ""))
        self.assertEqual(self.docxy(here, "warm", "o/i:none", status=1)["failed"], 1)
        self.pull(port, "v1")
        self.assertFalse([each for each in self.library.asked[asked:] if "/blobs/" in each])

        whole, top = str(self.directory / "v1.tar"), str(self.directory / "v2.tar")
        self.docxy(here, "export", "fake.test/o/i:v1", "-o", whole, "--platform", "all")
        told = self.docxy(here, "export", "fake.test/o/i:v2", "-o", top, "--platform", "all", "--since", whole)
        self.assertEqual(told["left_out"], 1)
        self.assertLess(told["bytes"], os.path.getsize(whole) - (2 << 20))
        with tarfile.open(top) as archive:
            self.assertNotIn(f"blobs/sha256/{self.library.shared[7:]}", archive.getnames())
        self.assertEqual(sorted(path.name for path in self.directory.glob(".*")), [])

        self.registry_ends()
        there, environ = self.start("there")
        told = self.docxy(environ, "import", top, status=1)
        self.assertEqual(told["images"][0]["lacking"], [self.library.shared])
        self.assertGreaterEqual(fetch(f"http://127.0.0.1:{there}/v2/o/i/manifests/v2")[0], 500)
        self.assertEqual(self.docxy(environ, "import", whole)["incomplete"], 0)
        self.assertEqual(self.docxy(environ, "import", top)["incomplete"], 0)
        for tag in ("v1", "v2"):
            for architecture in ("amd64", "arm64"):
                self.pull(there, tag, architecture)
        self.docxy(environ, "warm", "fake.test/o/i:v2")

"""A thousand clients that ask for a large manifest and do not read it cost docxy next to nothing."""

from __future__ import annotations

import hashlib
import json
import resource
import socket
from contextlib import ExitStack, closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docxy.names import OCI_INDEX
from tests.harness.docxy import environment, spawn
from tests.harness.processes import accepts, free_port
from tests.harness.servers import QuietHandler, serve
from tests.process.test_cli import DOCXY

CLIENTS = 1000
LIMIT = 150_000_000
"""Bytes that the one process that serves may have resident."""
DIFFERENT = 60
"""Manifests that together are half as large again as that."""


def _manifest(tag: str) -> bytes:
    noise = {"noise": "x" * 3_900_000, "tag": f"{tag:>10}"}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": noise}).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


MANIFEST = _manifest("latest")
DIGEST = _digest(MANIFEST)


class Registry(QuietHandler):
    """Indexes nearly as large as docxy takes them, another one under each tag."""

    def do_GET(self) -> None:
        manifest = _manifest(self.path.rpartition("/")[2])
        self.send_response(200)
        self.send_header("Content-Type", OCI_INDEX)
        self.send_header("Docker-Content-Digest", _digest(manifest))
        self.send_header("Content-Length", str(len(manifest)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(manifest)

    do_HEAD = do_GET


class DocxyCase(SynchronousTestCase):
    """One process, plain HTTP."""

    def setUp(self) -> None:
        before = _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)

    def docxy(self, files: int | None = None) -> int:
        """The port of a docxy.

        `files`: how many it may have open, of which its soft limit is less; None: as many as this process.
        """
        upstream = serve(self, Registry)
        port = free_port()
        options = ["run", f"--port=tcp:{port}:interface=127.0.0.1", "--workers=1", "--access-log=off"]
        options += [f"--upstream={upstream}", f"--cache={Path(self.mktemp()).resolve()}"]
        argv = [*DOCXY, *options]
        if files is not None:
            argv = ["sh", "-c", f'ulimit -n {files}; ulimit -S -n 100; exec "$@"', "sh", *argv]
        self.daemon = spawn(self, argv, environment(PUBLIC_URL=f"http://127.0.0.1:{port}"))
        self.daemon.until(accepts(port))
        return port


class StalledTests(DocxyCase):
    """Clients that do not read."""

    def setUp(self) -> None:
        super().setUp()
        self.port = self.docxy()

    def resident(self) -> None:
        """Fails when docxy is too large."""
        resident = self.daemon.peak()
        self.assertLess(resident, LIMIT, f"{resident / 1e6:.0f} MB resident")

    def test_manifests(self) -> None:
        """All have the head of the answer; docxy stays small; one that reads on gets the right bytes."""
        with ExitStack() as clients:
            first = clients.enter_context(closing(_ask(self.port)))
            self.assertEqual(_read(first), DIGEST)
            stalled = [clients.enter_context(closing(_ask(self.port))) for _ in range(CLIENTS)]
            heads = [client.recv(15) for client in stalled]
            self.assertEqual({*heads}, {b"HTTP/1.1 200 OK"})
            self.resident()
            self.assertEqual(_read(stalled[CLIENTS // 2]), DIGEST)

    def test_different_manifests(self) -> None:
        """Each client another manifest: those that have stood still for longest are dropped, docxy stays small."""
        with ExitStack() as clients:
            for number in range(DIFFERENT):
                client = clients.enter_context(closing(_ask(self.port, str(number))))
                self.assertEqual(client.recv(15), b"HTTP/1.1 200 OK")
            self.resident()
            # The last one was not dropped, and who reads gets all of it.
            self.assertEqual(_read(client, b"HTTP/1.1 200 OK"), _digest(_manifest(str(DIFFERENT - 1))))
            reads = clients.enter_context(closing(_ask(self.port, "0")))
            self.assertEqual(_read(reads), _digest(_manifest("0")))


class IdleTests(DocxyCase):
    """Clients that ask for nothing."""

    def test_descriptors(self) -> None:
        """More connections than docxy may have files: others are closed, those that came first are served from disk."""
        port = self.docxy(files=200)
        with ExitStack() as clients:
            served = [clients.enter_context(closing(_ask(port, "latest"))) for _ in range(2)]
            self.assertEqual(_read(served[0]), DIGEST)
            idle = [clients.enter_context(closing(_connected(port))) for _ in range(250)]
            self.assertTrue(all(_is_closed(client) for client in idle[150:]))
            self.assertEqual(_read(served[1]), DIGEST)
            idle[0].sendall(_request("other"))
            self.assertEqual(_read(idle[0]), _digest(_manifest("other")))
        self.assertEqual(self.daemon.text().count("clients have 150 connections open"), 1)


def _connected(port: int) -> socket.socket:
    """A client that has asked for nothing yet, with little room for what it does not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    client.settimeout(60)
    # A connection that docxy closes at once may be over before this returns.
    client.connect_ex(("127.0.0.1", port))
    return client


def _request(tag: str) -> bytes:
    return f"GET /v2/o/i/manifests/{tag} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n".encode()


def _ask(port: int, tag: str = "latest") -> socket.socket:
    """A client that has asked."""
    client = _connected(port)
    client.sendall(_request(tag))
    return client


def _is_closed(client: socket.socket) -> bool:
    """Whether docxy has closed it; waits for that."""
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _read(client: socket.socket, received: bytes = b"") -> str:
    """The digest of the body: what comes last, as long as the manifest; `received`: what was read before."""
    while len(received.partition(b"\r\n\r\n")[2]) < len(MANIFEST):
        piece = client.recv(1 << 20)
        assert piece, "the answer was cut short"
        received += piece
    body = received.partition(b"\r\n\r\n")[2]
    return f"sha256:{hashlib.sha256(body).hexdigest()}"

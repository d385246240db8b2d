"""A docxy with workers, an upstream in threads, and connections of which it is known who serves them.

Who accepts a connection is up to the kernel.  So all workers but one are stopped (SIGSTOP) while a
connection is made and first used.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from ssl import CERT_NONE, SSLContext, create_default_context

from twisted.trial.unittest import SynchronousTestCase

from docxy.names import OCI_MANIFEST
from tests.harness.docxy import start_docxy
from tests.harness.processes import Daemon, free_port
from tests.harness.servers import QuietHandler, serve

MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()


class Upstream:
    """A registry whose blobs come when the test opens the gate."""

    def __init__(self, test: SynchronousTestCase, tls: SSLContext | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifest = MANIFEST
        """What every tag leads to."""
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.limited = False
        """Whether it answers 429."""
        self.status = 200
        self.headers: Mapping[str, str] = {}
        """Of all other answers; what they have besides."""
        self.gate = threading.Event()
        self.held = 1
        """Bytes of each blob, its last ones, that come when the gate is open."""
        self.changed = threading.Condition()
        upstream = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                upstream.answer(self)

            do_HEAD = do_GET

        self.url = serve(test, Handler, tls)
        test.addCleanup(self.gate.set)

    def add(self, size: int, seed: str = "") -> str:
        """A blob's path."""
        data = hashlib.shake_128(f"{size} {seed}".encode()).digest(size)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return f"/v2/team/app/blobs/{digest}"

    def until_asked(self, count: int) -> None:
        """Returns when so many requests have come."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.asked) >= count, 30):
                raise AssertionError(f"asked only for {self.asked}")

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        with self.changed:
            self.asked.append(f"{request.command} {request.path}")
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.changed.notify_all()
        try:
            self._answer(request)
        finally:
            with self.changed:
                self.at_once -= 1

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body, kind = self.manifest, OCI_MANIFEST
        if "/blobs/" in request.path:
            body, kind = self.blobs[request.path.rpartition("/")[2]], "application/octet-stream"
        if self.limited:
            request.send_response(429)
            request.send_header("Retry-After", "60")
            body = b""
        else:
            request.send_response(self.status)
            for name, value in self.headers.items():
                request.send_header(name, value)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET" and body and "/blobs/" in request.path and not self.limited:
            self.send(request, memoryview(body))
        elif request.command == "GET":
            request.wfile.write(body)

    def send(self, request: BaseHTTPRequestHandler, blob: memoryview) -> None:
        """The bytes of a blob, as the gate lets them through."""
        request.wfile.write(blob[: len(blob) - self.held])
        if self.held:
            self.gate.wait(60)
        request.wfile.write(blob[len(blob) - self.held :])


class WorkersCase(SynchronousTestCase):
    """Starts docxy with two workers."""

    timeout = 120

    def start(self, args: Sequence[str] = (), count: int = 2, **environ: str) -> Daemon:
        self.port = free_port()
        self.cache = str(Path(self.mktemp()).resolve())
        environ = {"CERT_PATH": "off", "PORT": str(self.port), "CACHE_DIR": self.cache, **environ}
        self.daemon = start_docxy(self, {**environ, "INTERFACE": "127.0.0.1", "WORKERS": str(count)}, args)
        self.until_workers(count)
        return self.daemon

    def until_workers(self, count: int) -> None:
        """Returns when so many serve, each of which has answered."""
        self.daemon.until(lambda: len(self.workers()) == count)
        for pid in self.workers():
            self.daemon.until(lambda pid=pid: self.listens(pid))  # type: ignore[misc]  # a lambda's default

    def settle(self) -> None:
        """Return when each worker has heard what any worker has told the others until now."""
        # A worker answers to the first reload after what it told before, so the supervisor has passed that on;
        # and the second reaches each worker after what was passed on to it.
        for _ in range(2):
            self.daemon.reload()

    def workers(self) -> list[int]:
        """Their process ids, in the order of their numbers."""
        found = []
        for task in Path(f"/proc/{self.daemon.process.pid}/task").iterdir():
            for pid in (task / "children").read_text().split():
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                except FileNotFoundError:  # it has just ended
                    continue
                if b"docxy.worker" in command:
                    found.append((int(command[-2]), int(pid)))
        return [pid for _, pid in sorted(found)]

    def listens(self, pid: int) -> bool:
        """Whether a worker catches SIGTERM: its reactor runs."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return False
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    @contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """Nobody but this worker does anything."""
        others = [other for other in self.workers() if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    def connect(self, pid: int, tls: bool = False) -> HTTPConnection:
        """A connection that this worker serves."""
        with self.only(pid):
            connection = self.connection(tls)
            connection.request("GET", "/health")
            response = connection.getresponse()
            self.assertEqual((response.status, response.read()), (200, b'{"status": "ok"}\n'))
        return connection

    def connection(self, tls: bool = False) -> HTTPConnection:
        connection: HTTPConnection
        if tls:
            connection = HTTPSConnection("127.0.0.1", self.port, timeout=30, context=_trusting())
        else:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(connection.close)
        connection.connect()
        return connection

    def ask(self, connection: HTTPConnection, path: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
        """A response, its body not read yet."""
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse()

    def status(self, connection: HTTPConnection, path: str, headers: Mapping[str, str] | None = None) -> int:
        response = self.ask(connection, path, headers)
        response.read()
        return response.status


def _trusting() -> SSLContext:
    context = create_default_context()
    context.check_hostname = False
    context.verify_mode = CERT_NONE
    return context

"""What a whole docxy writes: who may read it, and how much of the disk it takes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import tempfile
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

from docxy.storage.paths import Tree
from tests.harness.processes import free_port
from tests.process.workers.harness import Upstream, WorkersCase

MIB = 1 << 20


class FilesTests(WorkersCase):
    """Two workers, with everything that writes a file turned on."""

    def serve(self, size: str) -> None:
        """Start, by an operator whose umask hides nothing."""
        self.upstream = Upstream(self)
        self.upstream.gate.set()
        self.log = Path(self.mktemp()).resolve()
        # A socket's path has a hundred characters at most, wherever the tests run.
        place = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, place)
        self.socket = Path(place, "admin.sock")
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        options = ["--cache-size", size, "--access-log", str(self.log), f"--metrics-port={free_port()}"]
        self.start(options, UPSTREAM=self.upstream.url, ADMIN_SOCKET=str(self.socket))

    def pull(self, path: str) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        self.assertEqual(answer.status, 200, path)

    def paths(self) -> list[Path]:
        """Everything that docxy wrote."""
        cache = Path(self.cache)
        return [
            self.log,
            *self.socket.parent.iterdir(),
            cache,
            *(Path(at, name) for at, down, files in os.walk(cache) for name in (*down, *files)),
        ]

    def test_modes(self) -> None:
        """Blobs, databases, locks, secret, socket, journal, access log: nobody else may read or enter any of it."""
        self.serve("100MB")
        self.pull("/v2/team/app/manifests/latest")
        self.pull(self.upstream.add(MIB))
        self.upstream.gate.clear()
        stuck = HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.addCleanup(stuck.close)
        stuck.request("GET", self.upstream.add(2 * MIB))
        stuck.getresponse()
        self.assertTrue([path for path in self.paths() if path.parent.name == "incoming" and path.is_file()])
        self.assertLessEqual({"index.sqlite", "catalog.sqlite", "secret", "admin.sock"}, self.private())
        # The history of pulls is written at the stop.
        stuck.close()
        self.daemon.process.send_signal(signal.SIGTERM)
        self.daemon.process.wait()
        self.assertIn(os.path.basename(Tree(self.cache).history), self.private())

    def private(self) -> set[str]:
        """The names of what there is; fails for what somebody else may read."""
        for path in self.paths():
            mode = path.lstat().st_mode
            self.assertTrue(stat.S_ISLNK(mode) or not mode & 0o077, f"{path} has the mode {mode:o}")
        return {path.name for path in self.paths()}

    def test_size(self) -> None:
        """Pulls of more than the budget: what `du` shows is what docxy says, and at most the budget and 16 MiB."""
        self.serve("32MiB")
        for number in range(60):
            self.pull(self.upstream.add(MIB, str(number)))
            self.pull(f"/v2/team/app{number}/manifests/latest")
        with closing(socket.socket(socket.AF_UNIX)) as admin:
            admin.connect(str(self.socket))
            admin.sendall(b"GET /status.json HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: admin.recv(1 << 16), b""))
        told = json.loads(answer.partition(b"\r\n\r\n")[2])["cache"]
        cache = Path(self.cache)
        for pid in self.workers():
            os.kill(pid, signal.SIGSTOP)
        try:
            shown = sum(path.lstat().st_blocks * 512 for path in self.paths() if cache in (path, *path.parents))
        finally:
            for pid in self.workers():
                os.kill(pid, signal.SIGCONT)
        self.assertEqual(told["budget"], 32 * MIB)
        self.assertGreater(shown, 16 * MIB, "hardly anything was kept")
        self.assertLess(shown, told["budget"] + 16 * MIB)
        self.assertLess(abs(shown - told["used"]), max(16 * MIB, told["used"] // 50), f"{shown}, {told}")

"""An upgrade of a docxy that runs: what is under way, what comes meanwhile, and a new docxy that cannot start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

from tests.harness.docxy import TWISTD, environment, spawn
from tests.harness.processes import Daemon, free_port, until
from tests.process.test_twistd import AS_SYSTEMD
from tests.process.workers.harness import Upstream, WorkersCase

DOCXY = [sys.executable, "-c", "from docxy.cli.main import main; main()"]
PULLS = int(os.environ.get("DOCXY_UPGRADE_PULLS", "10"))
LAYER = int(os.environ.get("DOCXY_UPGRADE_MB", "20")) * 1_000_000
"""Bytes of the layer that all pull at once; by default what a busy machine does in a moment."""
DISTINCT, SIZE = 10, 4 << 20
"""Layers of which each is pulled once, and their bytes."""


class Hammer:
    """Connects again and again, and keeps what failed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._enough = threading.Event()
        self.failures: list[str] = []
        self.answers = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._enough.is_set():
            connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.request("GET", "/health")
                response = connection.getresponse()
                if (response.status, response.read()) != (200, b'{"status": "ok"}\n'):
                    self.failures.append(f"status {response.status}")
                self.answers += 1
            except Exception as error:
                self.failures.append(repr(error))
            finally:
                connection.close()
            self._enough.wait(0.01)

    def stop(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()


class UpgradeTests(WorkersCase):
    timeout = 240

    def begin(self, workers: int, fds: tuple[int, ...] = (), **environ: str) -> Daemon:
        """A docxy with a pidfile and a file of its own."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        self.port = free_port()
        endpoint = str(self.port)
        if fds:
            endpoint = '"systemd:domain=INET:index=0"'
        # Trial's directories can be too deep for the path of a Unix socket.
        self.socket = Path(f"/tmp/docxy-upgrade-{self.port}.sock")
        self.pidfile, self.file = directory / "docxy.pid", directory / "docxy.toml"
        self.upstream = Upstream(self)
        self.answering = threading.Semaphore(0)
        """Released for each pull whose answer has begun."""
        self.file.write_text(
            f'cert = "off"\nport = {endpoint}\ninterface = "127.0.0.1"\ncache = "{directory}/cache"\n'
            f'cache_size = "1GB"\nadmin_socket = "{self.socket}"\nworkers = {workers}\n'
            f'[[upstreams]]\nname = "fake.test"\nurl = "{self.upstream.url}"\nprivate = true\n'
        )
        argv = [*TWISTD, "--nodaemon", f"--pidfile={self.pidfile}", "docxy", "--config", str(self.file)]
        if fds:
            argv = [sys.executable, "-c", AS_SYSTEMD, *map(str, fds), *argv]
        self.addCleanup(self.end)
        self.daemon = spawn(self, argv, environment(**environ), fds)
        self.daemon.until(lambda: self.docxy("status").returncode == 0)
        return self.daemon

    def end(self) -> None:
        """End the docxy in the pidfile: it may not be the one that the test started."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.serving(), signal.SIGTERM)

    def serving(self) -> int:
        return int(self.pidfile.read_text())

    def docxy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*DOCXY, *arguments, "--socket", str(self.socket)]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=180)

    def pull(self, path: str) -> str:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            self.answering.release()
            digest = hashlib.sha256()
            while piece := response.read(1 << 20):
                digest.update(piece)
            return f"sha256:{digest.hexdigest()}"
        finally:
            connection.close()

    def gone(self, pid: int) -> bool:
        """Whether a process that is not a child of the test's has ended."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    def upgrades(self, workers: int) -> None:
        self.begin(workers)
        paths = [self.upstream.add(SIZE, str(number)) for number in range(DISTINCT)]
        hammer = Hammer(self.port)
        self.addCleanup(hammer.stop)
        with ThreadPoolExecutor(DISTINCT) as pool:
            try:
                pulls: list[Future[str]] = [pool.submit(self.pull, path) for path in paths]
                self.upstream.until_asked(DISTINCT)
                told = self.docxy("upgrade")
                self.assertEqual(told.returncode, 0, told.stderr + self.daemon.tail())
                # The new one serves, while all pulls are still under way in the old one.
                new = self.serving()
                self.assertNotEqual(new, self.daemon.process.pid)
                self.assertEqual(self.docxy("status").returncode, 0)
                self.assertIn(f"process {new} serves now", told.stdout)
                self.assertIsNone(self.daemon.process.poll())
                self.assertFalse([pull for pull in pulls if pull.done()])
            finally:
                self.upstream.gate.set()
            self.assertEqual([pull.result() for pull in pulls], [path.rpartition("/")[2] for path in paths])
        # The old one ends by itself; the new one has what it fetched.
        self.assertEqual(self.daemon.process.wait(60), 0)
        self.assertEqual(self.pull(paths[0]), paths[0].rpartition("/")[2])
        self.assertEqual(len([asked for asked in self.upstream.asked if "/blobs/" in asked]), DISTINCT)
        # And another one takes over from that.
        told = self.docxy("upgrade")
        self.assertEqual(told.returncode, 0, told.stderr + self.daemon.tail())
        newest = self.serving()
        until(lambda: self.gone(new))
        self.assertTrue(self.socket.exists())
        hammer.stop()
        self.assertEqual(hammer.failures, [])
        self.assertGreater(hammer.answers, 20)
        # The last one leaves nothing behind.
        os.kill(newest, signal.SIGTERM)
        until(lambda: self.gone(newest))
        left = [path for path in (self.pidfile, self.socket, Path(f"{self.socket}.lock")) if os.path.lexists(path)]
        self.assertEqual(left, [])
        self.assertNotIn("Traceback", self.daemon.text())

    def test_workers(self) -> None:
        """Pulls that run through two upgrades are not cut and no connection is refused, where workers serve."""
        self.upgrades(2)

    def test_one_process(self) -> None:
        """The same where one process serves."""
        self.upgrades(1)

    def through(self, upgrade: Callable[[], object]) -> None:
        """Many pulls of one layer, which docxy is still fetching, get all of it, though docxy is upgraded meanwhile."""
        path = self.upstream.add(LAYER)
        self.upstream.held = LAYER // 2
        hammer = Hammer(self.port)
        self.addCleanup(hammer.stop)
        with ThreadPoolExecutor(PULLS) as pool:
            try:
                pulls = [pool.submit(self.pull, path) for _ in range(PULLS)]
                for _ in range(PULLS):
                    self.assertTrue(self.answering.acquire(timeout=60))
                upgrade()
                self.assertFalse([pull for pull in pulls if pull.done()])
            finally:
                self.upstream.gate.set()
            self.assertEqual({pull.result() for pull in pulls}, {path.rpartition("/")[2]})
        self.assertEqual(self.daemon.process.wait(60), 0)
        hammer.stop()
        self.assertEqual(hammer.failures, [])
        self.assertEqual(len([asked for asked in self.upstream.asked if "/blobs/" in asked]), 1)

    def by_command(self) -> None:
        told = self.docxy("upgrade")
        self.assertEqual(told.returncode, 0, told.stderr + self.daemon.tail())

    def by_signal(self) -> None:
        """As `systemctl reload` does where the unit says so."""
        before = self.pidfile.read_text()
        self.daemon.signal(signal.SIGUSR2)
        # While the new number is written there is none for a moment.
        self.daemon.until(lambda: self.pidfile.read_text() not in ("", before))

    def test_one_layer(self) -> None:
        """Pulls of one layer go through an upgrade by the command."""
        self.begin(2)
        self.through(self.by_command)

    def test_wrong_file(self) -> None:
        """With a file that docxy would not start with, the command fails and says why; the old one goes on."""
        self.begin(2)
        good = self.file.read_text()
        self.file.write_text(good.replace('cert = "off"', "tag_ttl = -1"))
        told = self.docxy("upgrade")
        self.assertEqual(told.returncode, 1)
        self.assertIn("docxy goes on as before", told.stderr)
        self.assertIn("tag_ttl", told.stderr)
        self.assertIn("the upgrade failed, and this docxy goes on", self.daemon.text())
        status = self.docxy("status")
        self.assertEqual(status.returncode, 1)
        self.assertIn("the last upgrade failed", status.stdout)
        self.assertEqual(self.serving(), self.daemon.process.pid)
        self.assertEqual(self.status(self.connection(), "/health"), 200)
        self.file.write_text(good)
        self.assertEqual(self.docxy("upgrade").returncode, 0)
        self.assertEqual(self.daemon.process.wait(60), 0)

    def test_socket_activation(self) -> None:
        """Sockets that the service manager opened go over, too, and what goes on on them."""
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as other:
            self.begin(2, (listening.fileno(), other.fileno()))
            self.port = listening.getsockname()[1]
        self.through(self.by_command)
        self.assertEqual(self.status(self.connection(), "/health"), 200)

    def test_service_manager(self) -> None:
        """At a SIGUSR2 pulls go on, the service manager learns the new number and hears no STOPPING of the old one."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        path = f"/tmp/docxy-upgrade-notify-{os.getpid()}"
        manager.bind(path)
        self.addCleanup(os.unlink, path)
        told: list[str] = []
        ready = threading.Event()

        def listen() -> None:
            # All the time: only a few messages wait in a socket.
            while (heard := manager.recv(4096).decode()) != "ENOUGH":
                told.append(heard)
                if heard == "READY=1":
                    ready.set()

        listening = threading.Thread(target=listen)
        listening.start()
        try:
            self.begin(2, NOTIFY_SOCKET=path)
            # The command line is answered before the last worker is ready.
            self.assertTrue(ready.wait(60))
            self.through(self.by_signal)
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"ENOUGH", path)
            listening.join()
        words = [each for each in told if not each.startswith(("STATUS=", "WATCHDOG="))]
        self.assertEqual(words[0], "READY=1")
        self.assertTrue(words[1].startswith("RELOADING=1\nMONOTONIC_USEC="), words)
        self.assertEqual(words[2], f"MAINPID={self.serving()}\nREADY=1")
        self.assertNotIn("STOPPING=1", words)

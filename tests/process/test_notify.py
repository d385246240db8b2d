"""What a service manager hears of a docxy that runs, on a socket in its place."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from tests.harness.docxy import start_docxy
from tests.harness.processes import free_port
from tests.process.workers.harness import WorkersCase

FIRST_WORD = 60.0
"""Seconds for a start on a busy machine."""


class NotifyTests(WorkersCase):
    def listen(self) -> str:
        """The socket's address."""
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        path = os.path.join("/tmp", f"docxy-notify-{os.getpid()}-{time.monotonic_ns()}")
        self.manager.bind(path)
        self.addCleanup(os.unlink, path)
        return path

    def until_told(self, start: str, seconds: float = FIRST_WORD) -> list[str]:
        """What came, up to and with the first message that starts like this."""
        found: list[str] = []
        until = time.monotonic() + seconds
        while not found or not found[-1].startswith(start):
            self.manager.settimeout(max(0.01, until - time.monotonic()))
            try:
                found.append(self.manager.recv(4096).decode())
            except TimeoutError:
                self.fail(f"no {start} within {seconds:g} s, only {found}")
        return found

    def test_one_process(self) -> None:
        """READY when it serves, RELOADING and READY at a SIGHUP, which ends nothing, and STOPPING."""
        environ = {"CERT_PATH": "off", "INTERFACE": "127.0.0.1", "WORKERS": "1", "NOTIFY_SOCKET": self.listen()}
        self.port = free_port()
        self.daemon = start_docxy(self, {"PORT": str(self.port), **environ})
        self.until_told("READY=1")
        self.until_told("STATUS=1 process")
        connection = self.connection()
        self.assertEqual(self.status(connection, "/health"), 200)
        os.kill(self.daemon.process.pid, signal.SIGHUP)
        self.assertIn("MONOTONIC_USEC=", self.until_told("RELOADING=1")[-1])
        self.until_told("READY=1")
        self.assertEqual(self.status(connection, "/ready"), 200)
        self.daemon.process.send_signal(signal.SIGTERM)
        self.until_told("STOPPING=1")
        self.assertEqual(self.daemon.process.wait(30), -signal.SIGTERM)

    def test_workers(self) -> None:
        """The watchdog is fed while every worker lives, and not while one stands still; workers know nothing of it."""
        self.start(NOTIFY_SOCKET=self.listen(), WATCHDOG_USEC="2000000")
        self.until_told("READY=1")
        self.until_told("WATCHDOG=1")
        first, second = self.workers()
        for pid in (first, second):
            self.assertNotIn(b"NOTIFY_SOCKET", Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(second, signal.SIGSTOP)
        self.until_hungry()
        os.kill(second, signal.SIGCONT)
        self.until_told("WATCHDOG=1")
        os.kill(self.daemon.process.pid, signal.SIGHUP)
        self.until_told("RELOADING=1")
        self.until_told("READY=1")
        self.assertEqual(self.workers(), [first, second])

    def until_hungry(self) -> None:
        """Returns when no WATCHDOG has come for the time of its patience: a service manager would end docxy."""
        self.manager.settimeout(2.0)
        try:
            told = [self.manager.recv(4096) for _ in range(100)]
        except TimeoutError:
            return
        self.fail(f"the watchdog is fed while a worker stands still: {told}")

"""Servers as processes: started, waited for, ended, and what they have used.

The law: a server is all processes of its session, and its CPU time includes that of the
ones that have ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, field

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds for a server to take connections, or to end."""
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ServerFailed(Exception):
    """A server did not start; the message has the end of its output."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind((HOST, 0))
        return int(s.getsockname()[1])


@define
class Server:
    """One server; `start` and `stop` it."""

    name: str
    argv: Sequence[str]
    ports: Sequence[int | Path]
    """TCP's, or Unix sockets; all of them take connections once it has started."""
    log: Path
    """What it prints."""
    environ: Mapping[str, str] = field(factory=dict)
    """More than PATH and HOME, which is all it sees of ours."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Raises ServerFailed."""
        environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | dict(self.environ)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        for port in self.ports:
            while not _accepts(port):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise ServerFailed(f"{self.name} did not start:\n{self.log.read_text('utf-8', 'replace')[-2000:]}")
                time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to whatever is left of its session."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
        self._process = None

    def cpu(self) -> float:
        """User and system seconds so far."""
        # utime, stime, cutime, cstime are fields 14 to 17 of proc(5); the name is before these.
        return sum(int(ticks) for fields in self._stats() for ticks in fields[11:15]) / _TICK

    def rss(self) -> float:
        """Resident bytes of all its processes; what they share counts for each."""
        return sum(self.each_rss())

    def each_rss(self) -> list[float]:
        """Resident bytes of each of its processes."""
        return [int(fields[21]) * float(_PAGE) for fields in self._stats()]

    def settle(self, seconds: float = 20.0) -> None:
        """Return when it has done nothing for 0.3 s: some go on storing when the client has all."""
        deadline, quiet, before = time.monotonic() + seconds, 0, self.cpu()
        while quiet < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
            now = self.cpu()
            quiet = quiet + 1 if now - before <= 1 / _TICK else 0
            before = now

    def _stats(self) -> Iterator[list[str]]:
        """Of each process of the session, what /proc/<pid>/stat says after the name."""
        assert self._process is not None
        session = str(self._process.pid)
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                fields = Path("/proc", entry, "stat").read_text("utf-8").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[3] == session:
                yield fields


def _accepts(port: int | Path) -> bool:
    try:
        if isinstance(port, int):
            socket.create_connection((HOST, port), timeout=1).close()
        else:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(port))
    except OSError:
        return False
    return True

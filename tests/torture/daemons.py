"""What is tried, as processes: started, signalled, killed, and read in its log.

The law: nothing that was started outlives `close`; a daemon runs in a session of its own, so that all
of it can be killed at once and all of it can be counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

from tests.harness.processes import free_port
from tests.torture import client

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 40.0
"""Seconds to become ready, on a machine with other work."""
_STAMP = re.compile(r"^\S+T\S+ \[[^\]]*\] (\d+: )?")
BAD_LINES = ("Traceback (most recent call last)", "Unhandled Error", "Unhandled error in Deferred")


class DidNotStart(Exception):
    """The message has the end of the log."""


@frozen
class Settings:
    """How a daemon is started."""

    upstream: Sequence[int]
    """Ports of its endpoints."""
    cache: Path | None
    size: str = "1GB"
    workers: int = 2
    tag_ttl: int = 1
    environ: Mapping[str, str] = field(factory=dict)
    options: Sequence[str] = ()
    shutdown_grace: int = 5


@define(eq=False)
class Daemon:
    """One daemon, over all its lives."""

    directory: Path
    """Of its configuration and log."""
    settings: Settings
    port: int = field(factory=free_port)
    died: list[float] = field(factory=list)
    """When it, or a part of it, was killed."""
    given: dict[str, float] = field(factory=dict)
    """When a client first got a manifest from it, by digest."""
    _process: subprocess.Popen[bytes] | None = None
    _read: int = 0

    name = "docxy"
    layout = True
    """Whether its cache directory is laid out as docxy's."""

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def pid(self) -> int:
        """Of the process that was started; it is the session's too."""
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        """What is run."""
        told, first = self.settings, self.settings.upstream[0]
        others = [f"http://127.0.0.1:{port}" for port in told.upstream[1:]]
        config = self.directory / "docxy.toml"
        config.write_text(
            f'[[upstreams]]\nname = "torture.test"\nurl = "http://127.0.0.1:{first}"\n'
            f"endpoints = {json.dumps(others)}\nlibrary = false\nprivate = true\n"
        )
        options = {
            "config": config,
            "port": self.port,
            "interface": "127.0.0.1",
            "cert": "off",
            "cache": told.cache or "off",
            "cache-size": told.size,
            "workers": told.workers,
            "tag-ttl": told.tag_ttl,
            "connect-timeout": 3,
            "header-timeout": 3,
            "silence-timeout": 3,
            "client-timeout": 20,
            "shutdown-grace": told.shutdown_grace,
            "access-log": "off",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return [sys.executable, "-m", "twisted", "--log-format=text", "docxy", *words, *told.options]

    async def start(self) -> None:
        """Returns when it answers; raises DidNotStart."""
        await self.begin()
        deadline = time.monotonic() + PATIENCE
        while not await self.ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise DidNotStart(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            await asyncio.sleep(0.05)

    async def begin(self) -> None:
        """Start it and wait for nothing."""
        self.directory.mkdir(parents=True, exist_ok=True)
        environ = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1", **self.settings.environ}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                cwd=self.directory,
                start_new_session=True,
            )

    async def ready(self) -> bool:
        status, _ = await client.text(self.port, "/health", 2.0)
        return status == 200

    def members(self) -> list[int]:
        """The process ids of all that lives of it, its first process included."""
        if self._process is None:
            return []
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError, IndexError):
                pid = int(entry.name)
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self._process.pid and fields[0] != "Z":
                    found.append(pid)
        return found

    def states(self) -> str:
        """What each of `members` is at, in the kernel's words: a process in a disk's wait (D) outlives its SIGKILL."""
        told = []
        for pid in self.members():
            with suppress(OSError, IndexError):
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                told.append(f"{pid} {state} in {Path(f'/proc/{pid}/wchan').read_text()}")
        return ", ".join(told)

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        return [pid for pid in self.members() if pid != self.pid]

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self, pids: Sequence[int] | None = None) -> None:
        """kill -9 of these processes, or of all of it."""
        if self._process is None:
            return
        self.died.append(time.monotonic())
        if pids is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process.pid in pids:
            self._process.wait()

    def signal(self, number: int) -> None:
        """A signal to the first process."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def gone(self, seconds: float) -> bool:
        """Whether all of it ended by itself within this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.running() and not self.members():
                return True
            await asyncio.sleep(0.05)
        return False

    async def stop(self) -> bool:
        """SIGTERM; whether that was enough."""
        if self._process is None or not self.running():
            return True
        self.died.append(time.monotonic())
        self.signal(signal.SIGTERM)
        ended = await self.gone(self.settings.shutdown_grace + 15)
        self.close()
        return ended

    def close(self) -> None:
        """Nothing of it lives after this."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def complaints(self) -> list[str]:
        """Each traceback since the last look, as one text."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(self._read)
            lines = log.read().decode("utf-8", "replace").splitlines()
            self._read = log.tell()
        return [_excerpt(lines, number) for number, line in enumerate(lines) if any(bad in line for bad in BAD_LINES)]

    def resident(self) -> int:
        """Bytes of memory of its largest process."""
        sizes = [0]
        for pid in self.members():
            with suppress(OSError, LookupError, ValueError):
                status = Path(f"/proc/{pid}/status").read_text()
                sizes.append(int(status.partition("VmRSS:")[2].split()[0]) << 10)
        return max(sizes)

    def seconds_of_cpu(self) -> float:
        """Of all its processes that live."""
        ticks = 0
        for pid in self.members():
            with suppress(OSError, LookupError, ValueError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _excerpt(lines: Sequence[str], number: int) -> str:
    """The line before a traceback, its last calls, and the error, without time stamps."""
    told = [_STAMP.sub("", line.lstrip("\t")) for line in lines[max(0, number - 1) : number + 60]]
    end = next((at for at in range(2, len(told)) if not told[at].startswith(" ")), len(told) - 1)
    return "\n    ".join([told[0][:160], *told[max(2, end - 8) : end + 1]])


class DockerRegistry(Daemon):
    """Debian's docker-registry as a mirror, to be put through the same."""

    name = "docker-registry"
    layout = False

    def command(self) -> list[str]:
        config = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.settings.cache)}},
            "http": {"addr": f"127.0.0.1:{self.port}", "secret": "one instance"},
            "proxy": {"remoteurl": f"http://127.0.0.1:{self.settings.upstream[0]}"},
        }
        path = self.directory / "registry.yml"
        path.write_text(json.dumps(config))
        return ["docker-registry", "serve", str(path)]

    async def ready(self) -> bool:
        status, _ = await client.text(self.port, "/v2/", 2.0)
        return status == 200


TARGETS: Mapping[str, type[Daemon]] = {"docxy": Daemon, "docker-registry": DockerRegistry}

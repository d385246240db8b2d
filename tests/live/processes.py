"""Daemons and commands as processes, none of which outlives the tests.

The law: a daemon is asked to stop with SIGTERM and killed when it does not; it is told by
the kernel to stop when the tests die without a word; a directory of a run that died is
removed by the next one.  Daemons are started and stopped without the reactor, because they
live longer than one test; commands run beside it, so that servers in the test can answer.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

PREFIX = "docxy-live-"
"""Of every scratch directory; the id of the process that made it follows."""

CHECKOUT = Path(__file__).parents[2]
"""Where docxy and its tests are imported from."""

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where Debian's own programs are, first, whatever else a machine has in its PATH."""


class Reactor(IReactorProcess, IReactorTime):
    """What a command needs of the reactor."""


class DidNotStart(Exception):
    """A daemon ended or stayed silent instead of getting ready; the message has the end of its log."""


class CommandFailed(Exception):
    """A command's exit status was not the expected one; the message has what it said."""


@frozen
class Output:
    """What a command left behind."""

    status: int
    """Exit status; a signal's number, negative."""
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Everything it said."""
        return self.stdout + self.stderr


def which(program: str) -> str | None:
    """Absolute path of a program, Debian's before others; None when there is none."""
    return shutil.which(program, path=f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}")


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


def accepts(port: int, host: str = "127.0.0.1") -> Callable[[], bool]:
    """A readiness check: does somebody accept connections there?"""

    def check() -> bool:
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex((host, port)) == 0

    return check


def scratch_directory() -> Path:
    """A new directory for this run, with a short path (sockets go there); those of dead runs are removed."""
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


@define
class Daemon:
    """One long-running process with a log file."""

    name: str
    argv: Sequence[str]
    log: Path
    """Its standard output and error, appended over restarts."""
    ready: Callable[[], bool]
    """Whether it serves; asked again and again after a start."""
    environ: Mapping[str, str] | None = None
    """None: the tests' own."""
    patience: float = 30.0
    """Seconds to become ready, and again to stop."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise ValueError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it is ready; raises DidNotStart."""
        # The kernel sends SIGTERM when the tests die; the setting survives exec.
        argv = ["setpriv", "--pdeathsig", "TERM", *self.argv]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
                start_new_session=True,
            )
        for _ in range(int(self.patience / 0.05)):
            if self._process.poll() is not None:
                raise DidNotStart(f"{self.name} ended with {self._process.returncode}:\n{self.tail()}")
            if self.ready():
                return
            time.sleep(0.05)
        self.stop()
        raise DidNotStart(f"{self.name} was not ready after {self.patience:g} s:\n{self.tail()}")

    def stop(self) -> int | None:
        """Ask it to end, kill what is left of its process group; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.patience)
        _kill_group(process.pid)
        return process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            _kill_group(process.pid)
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def rss(self) -> int:
        """Resident bytes of the process and of its children in the same session."""
        return sum(_resident(pid) for pid in _session(self.pid))

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 25) -> str:
        """The end of the log."""
        return "\n".join(self.text().splitlines()[-lines:])


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _session(leader: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The fields after the name, which may itself hold spaces and parentheses.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            yield int(entry.name)


def _resident(pid: int) -> int:
    try:
        for line in Path("/proc", str(pid), "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class _Collector(ProcessProtocol):
    """Gathers a command's output."""

    def __init__(self, ended: Deferred[Output], stdin: bytes) -> None:
        self._ended = ended
        self._stdin = stdin
        self._out: dict[int, list[bytes]] = {1: [], 2: []}

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._stdin)
        self.transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._out[childFD].append(data)

    def processEnded(self, reason: Failure) -> None:
        ended = reason.value
        status = 0
        if isinstance(ended, ProcessTerminated):
            status = -ended.signal if ended.exitCode is None else ended.exitCode
        out, err = (b"".join(self._out[fd]).decode(errors="replace") for fd in (1, 2))
        self._ended.callback(Output(status, out, err))


async def run(
    reactor: Reactor,
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    stdin: bytes = b"",
    timeout: float = 90.0,
    check: bool = True,
) -> Output:
    """Run a command to its end, killing it after `timeout` seconds.

    Raises CommandFailed when `check` and its exit status is not 0, and always when it was killed for time.
    """
    program = which(argv[0])
    if program is None:
        raise CommandFailed(f"{argv[0]} is not installed")
    late = False

    def kill(_: object = None) -> None:
        with suppress(ProcessExitedAlready):
            child.signalProcess("KILL")

    def expire() -> None:
        nonlocal late
        late = True
        kill()

    ended: Deferred[Output] = Deferred(kill)
    child = reactor.spawnProcess(_Collector(ended, stdin), program, argv, dict(environ), "/")
    alarm = reactor.callLater(timeout, expire)
    try:
        output = await ended
    finally:
        if alarm.active():
            alarm.cancel()
    if late:
        raise CommandFailed(f"{' '.join(argv)}\ndid not end within {timeout:g} s:\n{output.text}")
    if check and output.status != 0:
        raise CommandFailed(f"{' '.join(argv)}\nended with {output.status}:\n{output.text}")
    return output


def read_new(log: IO[bytes]) -> list[str]:
    """The whole lines a log got since the last call."""
    start = log.tell()
    data = log.read()
    whole = data.rfind(b"\n") + 1
    log.seek(start + whole)
    return data[:whole].decode(errors="replace").splitlines()

"""Daemons and commands as processes, none of which outlives the tests.

The law: SIGTERM asks a daemon to stop, SIGKILL ends one that does not; the kernel stops it
when the tests die without a word; the next run removes the directory of a run that died.
Daemons are started and stopped without the reactor, because they live longer than one test;
commands run beside it, so that servers in the test can answer.

`until` is the one place where tests look again and again: a process of somebody else's
has no other way to say that it is ready.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from email.message import Message
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

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where docxy and its tests are imported from."""

PATIENCE = 60.0
"""Seconds within which everything happens, on a busy machine too: what takes longer is taken for stuck."""

RELOADED = "SIGHUP: reloaded"
"""What docxy logs when all its processes have reloaded."""

_PORTS = range(12_000, 32_000)
"""Below what Linux gives to connections (`net.ipv4.ip_local_port_range`), above what services take."""

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
    """A TCP port nobody listens on at this moment, and that the kernel gives to no outgoing connection.

    Raises OSError where none of a hundred is free.
    """
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind((host, port))
            return port
    raise OSError(f"no free port at {host} between {_PORTS.start} and {_PORTS.stop}")


def accepts(port: int, host: str = "127.0.0.1") -> Callable[[], bool]:
    """A readiness check: does somebody accept connections there?"""

    def check() -> bool:
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex((host, port)) == 0

    return check


def fetch(url: str, **headers: str) -> tuple[int, Message, bytes]:
    """Status, headers and body; raises OSError when nobody answers.  Certificates are not checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def until(ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return when `ready` says so; raises TimeoutError when that takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.02)


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
    patience: float = PATIENCE
    """Seconds to become ready, and again to stop."""
    pass_fds: Sequence[int] = ()
    """Descriptors it inherits under their own numbers."""
    cwd: Path | None = None
    """None: the tests' own."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process; raises ValueError when there is none."""
        if self._process is None:
            raise ValueError(f"{self.name} is not running")
        return self._process

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it is ready; raises DidNotStart."""
        self.spawn()
        try:
            self.until(self.ready)
        except DidNotStart:
            self.stop()
            raise

    def spawn(self) -> None:
        """Start it and return at once."""
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
                pass_fds=self.pass_fds,
                cwd=self.cwd,
            )

    def until(self, ready: Callable[[], bool], seconds: float | None = None) -> None:
        """Return when `ready` says so; raises DidNotStart when the process ends first or takes too long.

        `seconds`: None for `patience`.
        """
        seconds = self.patience if seconds is None else seconds

        def ended_or_ready() -> bool:
            if self.process.poll() is not None:
                raise DidNotStart(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            return ready()

        try:
            until(ended_or_ready, seconds)
        except TimeoutError:
            raise DidNotStart(f"{self.name} was not ready after {seconds:g} s:\n{self.tail()}") from None

    def healthy(self, url: str, seconds: float | None = None) -> None:
        """Return when `url` answers 200; as `until`."""

        def answers() -> bool:
            try:
                return fetch(url)[0] == 200
            except OSError:
                return False

        self.until(answers, seconds)

    def stop(self) -> int | None:
        """Ask it to end, kill what is left of its process group; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.patience)
        kill_group(process.pid)
        return process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            kill_group(process.pid)
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def reload(self) -> None:
        """Send docxy a SIGHUP, and return when all its processes have done what that asks for."""
        before = self.text().count(RELOADED)
        self.signal(signal.SIGHUP)
        self.until(lambda: self.text().count(RELOADED) > before)

    def peak(self) -> int:
        """The most bytes that were resident so far of the process and of its children in the same session."""
        return sum(_most_resident(pid) for pid in _session(self.pid))

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 25) -> str:
        """The end of the log."""
        return "\n".join(self.text().splitlines()[-lines:])


def kill_group(group: int) -> None:
    """End a process and all that it started; one that has ended is none."""
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


def _most_resident(pid: int) -> int:
    try:
        for line in Path("/proc", str(pid), "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
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

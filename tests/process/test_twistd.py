"""`twistd docxy` as an operator meets it: help, errors, what is served, signals, privileges.

The real `twistd` of this checkout runs in a process of its own; nothing leaves loopback, and no
upstream is asked for anything.
"""

from __future__ import annotations

import base64
import os
import pwd
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SkipTest

from docxy import __version__
from docxy.settings.options import OPTIONS
from tests.harness.certificates import PairCase, issue
from tests.harness.docxy import FOREGROUND, TWISTD, environment, spawn, start_docxy
from tests.harness.processes import Daemon, fetch, free_port
from tests.unit.access.harness import hashed

AS_SYSTEMD = """
import os, sys
# Out of the way first: one of them may be the number another is to get.
high = [os.dup2(int(fd), 100 + n) for n, fd in enumerate(sys.argv[1:3])]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES="https:http")
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Two descriptors, then a command: runs it with them as systemd's socket activation does."""


class Case(PairCase):
    def twistd(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """twistd to its end, in the test's directory."""
        return subprocess.run(
            [*TWISTD, *args],
            env=environment(**environ),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )


class TwistdTests(Case):
    """Runs that end by themselves."""

    def test_help(self) -> None:
        """--help shows every option with its default and its variable, and every flag."""
        run = self.twistd("docxy", "--help", COLUMNS="1000")
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        lines = dict(re.findall(r"^ +--([a-z-]+)=? +(.*)$", run.stdout, re.MULTILINE))
        for option in OPTIONS:
            with self.subTest(option.name):
                tail = f"[default: {option.default or option.default_help}; environment: {option.env}]"
                self.assertTrue(lines[option.name].endswith(tail), lines[option.name])
                self.assertTrue(all(lines[flag] for flag in option.flags))
        self.assertEqual(
            lines.keys(),
            {option.name for option in OPTIONS}
            | {flag for option in OPTIONS for flag in option.flags}
            | {"help", "version"},
        )
        self.assertNotIn("[default: None]", run.stdout)

    def test_version(self) -> None:
        """--version is docxy's, not Twisted's."""
        self.assertEqual(self.twistd("docxy", "--version").stdout, f"docxy {__version__}\n")

    def test_errors(self) -> None:
        """One line on stderr, nothing else, exit status 1: before there is a daemon and with or without -n."""
        bad = self.directory / "bad.toml"
        bad.write_text("nope = 1\n")
        for args, line in (
            (["--bogus"], "docxy: option --bogus not recognized"),
            (["--config", str(bad)], f"docxy: {bad}: unknown key 'nope'"),
            (
                ["--cert=off", "--port=systemd:domain=INET6:index=7"],
                "docxy: 'systemd:domain=INET6:index=7' is not an endpoint that can be opened: "
                "no such socket was passed",
            ),
        ):
            for twistd in (["-n"], []):
                run = self.twistd(*twistd, "--pidfile=docxy.pid", "docxy", *args)
                self.assertEqual((run.returncode, run.stdout, run.stderr), (1, "", f"{line}\n"))
                self.assertFalse((self.directory / "docxy.pid").exists())

    def test_port_in_use(self) -> None:
        """In the foreground and as a daemon: one line that names the address, status 1, no pidfile, no traceback."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            line = f"cannot listen on 127.0.0.1:{port}: Address already in use"
            args = [
                "--pidfile=docxy.pid",
                "docxy",
                "--cert=off",
                "--cache=off",
                f"--port={port}",
                "--interface=127.0.0.1",
            ]
            run = self.twistd("-n", *args)
            self.assertEqual(run.returncode, 1)
            told = [text for text in (run.stdout + run.stderr).splitlines() if "cannot listen" in text]
            self.assertEqual(len(told), 1)
            self.assertTrue(told[0].endswith(line))
            self.assertNotIn("Traceback", run.stdout + run.stderr)
            run = self.twistd("--logfile=docxy.log", *args)
            self.assertEqual(run.returncode, 1)
            self.assertIn(line, run.stderr)
            self.assertNotIn("Traceback", (self.directory / "docxy.log").read_text() + run.stderr)
        self.assertFalse((self.directory / "docxy.pid").exists())

    def test_access_log_that_cannot_be_written(self) -> None:
        """One line that names the file, and no daemon."""
        args = ["--cert=off", "--cache=off", f"--port={free_port()}", "--access-log=/nowhere/docxy.log"]
        run = self.twistd("-n", "--pidfile=docxy.pid", "docxy", *args)
        self.assertEqual(run.returncode, 1)
        line = "docxy: the access log /nowhere/docxy.log cannot be written to: No such file or directory"
        told = [text for text in (run.stdout + run.stderr).splitlines() if "access log" in text]
        self.assertEqual([text[-len(line) :] for text in told], [line])
        self.assertNotIn("Traceback", run.stdout + run.stderr)

    def test_daemon(self) -> None:
        """Without -n it goes to the background with a pidfile, and SIGTERM takes both away."""
        port = free_port()
        run = self.twistd(
            "--pidfile=docxy.pid", "--logfile=docxy.log", "docxy", "--cert=off", "--cache=off", f"--port={port}"
        )
        self.assertEqual((run.returncode, run.stdout + run.stderr), (0, ""))
        pidfile = self.directory / "docxy.pid"
        pid = int(pidfile.read_text())
        self.assertEqual(fetch(f"http://127.0.0.1:{port}/health")[0], 200)
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/health")
        connection.getresponse().read()
        os.kill(pid, signal.SIGTERM)
        # The kept-alive connection is closed by the stop; the pidfile goes as the last thing.
        assert connection.sock is not None
        self.assertEqual(connection.sock.recv(1), b"")
        connection.close()
        wait_until_gone(pid)
        self.assertFalse(pidfile.exists())


def wait_until_gone(pid: int) -> None:
    """Returns when a process that is no child of ours has ended; raises TimeoutError after 30 s."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([handle], [], [], 30)[0]:
            raise TimeoutError(pid)
    finally:
        os.close(handle)


def served(port: int) -> bytes:
    """The certificate that is served, in DER."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=30))


def low_port() -> int:
    """A free port that only root may bind."""
    for port in range(1023, 600, -1):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port below 1024")


class ServedTests(Case):
    """A daemon in the foreground."""

    def start(self, args: Sequence[str], **environ: str) -> Daemon:
        return start_docxy(self, environ, args)

    def bound(self, daemon: Daemon) -> str:
        """The line that says what it is bound to, once it is there."""
        daemon.until(lambda: "bound to" in daemon.text())
        return next(line for line in daemon.text().splitlines() if "bound to" in line)

    def test_plain(self) -> None:
        """The first line of the log says that it is plain HTTP and why; then come address and public URL."""
        port = free_port()
        daemon = self.start(["--port", str(port)], CERT_PATH="off")
        line = self.bound(daemon)
        self.assertRegex(
            daemon.text().splitlines()[0],
            rf"docxy {__version__}: plain HTTP registry on .*:{port}, as no certificate is given or found$",
        )
        self.assertIn(f"bound to [::]:{port}; public URL http://{socket.gethostname()}:{port}; auth none;", line)
        self.assertEqual(fetch(f"http://127.0.0.1:{port}/health")[0], 200)
        status, headers, _ = fetch(f"http://[::1]:{port}/health")
        self.assertEqual(status, 200)
        # By the wall clock, though what waits in the daemon waits by another one.
        self.assertLess(abs(parsedate_to_datetime(headers["Date"]).timestamp() - time.time()), 60)

    def test_https(self) -> None:
        """HTTPS, and a plain port that only redirects to the certificate's name."""
        port, side = free_port(), free_port()
        args = [*self.pair(issue("mirror.example")), f"--https-port={port}", f"--http-port={side}"]
        daemon = self.start([*args, "--interface=127.0.0.1"])
        line = self.bound(daemon)
        self.assertIn("HTTPS registry", daemon.text().splitlines()[0])
        self.assertIn(f"bound to 127.0.0.1:{port}, 127.0.0.1:{side}; public URL https://mirror.example:{port};", line)
        self.assertIn("; auth transparent;", line)
        self.assertEqual(fetch(f"https://127.0.0.1:{port}/health")[0], 200)
        connection = HTTPConnection("127.0.0.1", side, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", "/health?secret=1", headers={"Host": "evil.example"})
        answer = connection.getresponse()
        self.assertEqual(
            (answer.status, answer.getheader("Location")), (301, f"https://mirror.example:{port}/health?secret=1")
        )
        answer.read()
        daemon.until(lambda: "/health" in daemon.text())
        self.assertNotIn("secret", daemon.text())

    def test_no_redirects(self) -> None:
        """--http-port 0 opens one port only."""
        port = free_port()
        args = [*self.pair(issue("mirror.example")), f"--https-port={port}", "--http-port=0", "--interface=127.0.0.1"]
        self.assertIn(f"bound to 127.0.0.1:{port}; public URL", self.bound(self.start(args)))

    def test_access_log(self) -> None:
        """With a file of their own, requests of both ports are lines there and nowhere else."""
        port, side = free_port(), free_port()
        log = self.directory / "access.log"
        args = [*self.pair(issue("mirror.example")), f"--https-port={port}", f"--http-port={side}"]
        daemon = self.start([*args, "--interface=127.0.0.1", f"--access-log={log}"])
        daemon.healthy(f"https://127.0.0.1:{port}/health")
        fetch(f"https://127.0.0.1:{port}/nothing")
        connection = HTTPConnection("127.0.0.1", side, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", "/elsewhere")
        connection.getresponse().read()
        daemon.until(lambda: "/elsewhere" in log.read_text())
        self.assertRegex(
            log.read_text(),
            r'(?m)^127\.0\.0\.1 - - \[\S+ \+0000\] "GET /nothing HTTP/1.1" 404 \d+ "-" "\S+" \d+\.\d+ - - \w+$',
        )
        self.assertNotIn('"GET /', daemon.text())

    def test_systemd_sockets(self) -> None:
        """Sockets that systemd passes are served, HTTPS too, and the public URL has their port."""
        sockets = [socket.create_server(("::1", 0), family=socket.AF_INET6) for _ in range(2)]
        ports = [sock.getsockname()[1] for sock in sockets]
        args = [
            *self.pair(issue("mirror.example")),
            "--cache=off",
            "--https-port=systemd:domain=INET6:index=0",
            "--http-port=systemd:domain=INET6:name=http",
        ]
        passed = [sock.fileno() for sock in sockets]
        daemon = spawn(self, [sys.executable, "-c", AS_SYSTEMD, *map(str, passed), *FOREGROUND, *args], fds=passed)
        for sock in sockets:
            sock.close()
        self.assertIn(f"public URL https://mirror.example:{ports[0]};", self.bound(daemon))
        self.assertEqual(fetch(f"https://[::1]:{ports[0]}/health")[0], 200)
        connection = HTTPConnection("::1", ports[1], timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", "/v2/")
        self.assertEqual(connection.getresponse().getheader("Location"), f"https://mirror.example:{ports[0]}/v2/")

    def test_hangup_loads_the_certificate(self) -> None:
        """After SIGHUP new clients see the renewed certificate; a broken one leaves the old and is told."""
        port = free_port()
        args = self.pair(issue("mirror.example"))
        daemon = self.start([*args, f"--https-port={port}", "--http-port=0"])
        daemon.healthy(f"https://127.0.0.1:{port}/health")
        renewed = issue("mirror.example")
        self.pair(renewed)
        daemon.reload()
        self.assertEqual(served(port), renewed.certificate.public_bytes(Encoding.DER))
        Path(args[1]).write_text("broken")
        daemon.reload()
        self.assertIn("the certificate in use stays", daemon.text())
        self.assertEqual(served(port), renewed.certificate.public_bytes(Encoding.DER))
        self.assertNotIn("Traceback", daemon.text())

    def test_hangup_without_certificate(self) -> None:
        """Over plain HTTP there is nothing to load: SIGHUP changes nothing."""
        port = free_port()
        daemon = self.start(["--cert=off", f"--port={port}", "--workers=1"])
        daemon.healthy(f"http://127.0.0.1:{port}/health")
        daemon.reload()
        for _ in range(3):
            self.assertEqual(fetch(f"http://127.0.0.1:{port}/health")[0], 200)
        self.assertIsNone(daemon.process.poll())

    def test_privileges(self) -> None:
        """As root with --uid: a low port, a key and CAs for root's eyes only are served by somebody else."""
        if os.geteuid() != 0:
            raise SkipTest("only root can drop privileges")
        nobody = pwd.getpwnam("nobody")
        port = low_port()
        args = self.pair(issue("mirror.example"))
        os.chmod(args[3], 0o600)
        # The cache's parent belongs to root, as /var/cache does, and others may pass it.
        parent = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, parent)
        parent.chmod(0o755)
        cache = parent / "docxy"
        args += [f"--https-port={port}", "--http-port=0", "--interface=127.0.0.1", "--cache", str(cache)]
        metrics = free_port()
        accounts = cache.with_name("htpasswd")
        accounts.write_text(f"alice:{hashed('secret')}\n")
        config = self.directory / "docxy.toml"
        authorities = self.directory / "ca.pem"
        authorities.touch(0o600)
        authorities.write_bytes(issue(common_name="a CA").pem)
        config.write_text(
            f'[access]\nhtpasswd = "{accounts}"\n[[upstreams]]\nname = "docker.io"\nca_file = "{authorities}"\n'
        )
        args += [f"--metrics-port={metrics}", "--config", str(config)]
        daemon = spawn(
            self,
            [*TWISTD, "-n", "--pidfile=", f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}", "docxy", *args],
            environment(PYTHONDONTWRITEBYTECODE="1"),
        )
        daemon.healthy(f"https://127.0.0.1:{port}/health")
        self.assertEqual(fetch(f"http://127.0.0.1:{metrics}/metrics")[0], 200)
        basic = base64.b64encode(b"alice:secret").decode()
        self.assertEqual(fetch(f"https://127.0.0.1:{port}/auth/token", Authorization=f"Basic {basic}")[0], 200)
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        self.assertIn(f"Uid:\t{nobody.pw_uid}\t{nobody.pw_uid}\t{nobody.pw_uid}", status)
        self.assertEqual(cache.stat().st_uid, nobody.pw_uid)
        self.assertEqual(cache.stat().st_mode & 0o777, 0o700)
        self.assertNotIn("Traceback", daemon.text())

"""`twistd docxy` as an operator meets it: help, errors, what is served, signals, privileges.

Most of it runs the real `twistd` of this checkout in a process of its own; nothing leaves
loopback, and no upstream is asked for anything.
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
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.python.usage import UsageError
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from docxy import __version__, tls
from docxy.option_table import OPTIONS
from docxy.tap import Options, derived_url
from tests.certificates import Issued, issue
from tests.deployed import TOP, Daemon, bare_environment, fetch, free_port, start_docxy
from tests.gate.harness import hashed

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

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def parse(*args: str, **environ: str) -> Options:
    options = Options(environ)
    options.parseOptions(list(args))
    return options


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def pair(self, issued: Issued, name: str = "pair") -> list[str]:
        """Options for the certificate and its key."""
        cert, key = self.directory / f"{name}.cert.pem", self.directory / f"{name}.key.pem"
        cert.write_bytes(issued.pem)
        key.write_bytes(issued.key_pem())
        return ["--cert", str(cert), "--key", str(key)]

    def twistd(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """twistd to its end, in the test's directory."""
        return subprocess.run(
            [*TWISTD, *args],
            env=bare_environment(PYTHONPATH=str(TOP), **environ),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )


class OptionsTests(Case):
    def refused(self, pattern: str, *args: str, **environ: str) -> None:
        error = self.assertRaises(UsageError, parse, *args, **environ)
        self.assertRegex(str(error), rf"\A{pattern}\Z")
        self.assertNotIn("\n", str(error))

    def test_places(self) -> None:
        """The command line beats the environment, which is the one that is handed in."""
        self.assertEqual(parse("--cert=off", "--tag-ttl=1", TAG_TTL="2").config.tag_ttl, 1)
        self.assertEqual(parse("--cert=off", TAG_TTL="2").config.tag_ttl, 2)

    def test_flags(self) -> None:
        """--no-auth and --no-prefetch are flags; --auth takes a value."""
        config = parse("--no-auth", "--no-prefetch", CERT_PATH="off").config
        self.assertEqual((config.auth.value, config.prefetch), ("none", False))
        self.assertEqual(parse("--auth", "transparent", CERT_PATH="off").config.auth.value, "transparent")

    def test_certificate(self) -> None:
        """The pair is read while options are parsed: later there may be no right to."""
        issued = issue("mirror.example")
        options = parse(*self.pair(issued))
        assert options.pair is not None
        self.assertEqual(options.pair.dns_names, ("mirror.example",))
        self.assertIsNone(parse(CERT_PATH="off").pair)

    def test_refused(self) -> None:
        """Errors of parsing, of settings and of PEM files are all UsageErrors of one line."""
        self.refused("option --bogus not recognized", "--bogus")
        self.refused("option --cert requires argument", "--cert")
        self.refused("option --no-auth must not have an argument", "--no-auth=1")
        self.refused("unexpected argument 'start'", "start")
        self.refused("--port: '99999' is not a port: .*", "--port=99999")
        self.refused("CERT_PATH in the environment: '/missing' does not exist", CERT_PATH="/missing")
        cert, key = self.pair(issue("a.example"))[1::2]
        _, other = self.pair(issue("a.example"), "other")[1::2]
        self.refused(f"--cert: '{re.escape(cert)}' is given without its key .*", "--cert", cert)
        self.refused(f"key {other}: does not match the certificate {cert}", "--cert", cert, "--key", other)
        Path(cert).write_text("-----BEGIN CERTIFICATE-----\n")
        self.refused(f"certificate {cert}: malformed PEM: .+", "--cert", cert, "--key", key)
        Path(cert).write_text("")
        self.refused(f"certificate {cert}: not a PEM certificate", "--cert", cert, "--key", key)


class DerivedURLTests(Case):
    def test_from_the_certificate(self) -> None:
        """The certificate's name, and the port unless it is 443."""
        config = parse(*self.pair(issue("*.example", "mirror.example"))).config
        assert config.cert is not None and config.key is not None
        pair = tls.load(config.cert, config.key)
        for port, wanted in ((443, "https://mirror.example"), (8443, "https://mirror.example:8443")):
            self.assertEqual(derived_url(pair, IPv6Address("TCP", "::", port), config, "host"), wanted)
        self.assertEqual(derived_url(pair, UNIXAddress("/s"), config, "host"), "https://mirror.example")

    def test_wildcard_only(self) -> None:
        """A wildcard names nobody: the host's own name stands in."""
        config = parse(*self.pair(issue("*.example"))).config
        assert config.cert is not None and config.key is not None
        pair = tls.load(config.cert, config.key)
        self.assertEqual(derived_url(pair, IPv6Address("TCP", "::", 443), config, "host"), "https://host")

    def test_plain(self) -> None:
        """The address bound to, or the host's name when it is all of them; 80 is not written."""
        config = parse("--cert=off").config
        for address, wanted in (
            (IPv4Address("TCP", "10.0.0.1", 8080), "http://10.0.0.1:8080"),
            (IPv6Address("TCP", "::1", 80), "http://[::1]"),
            (IPv6Address("TCP", "::", 8080), "http://host:8080"),
            (IPv4Address("TCP", "0.0.0.0", 80), "http://host"),
        ):
            self.assertEqual(derived_url(None, address, config, "host"), wanted)


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
        daemon.until(lambda: "bound to" in daemon.output())
        return next(line for line in daemon.output().splitlines() if "bound to" in line)

    def test_plain(self) -> None:
        """The first line of the log says that it is plain HTTP and why; then come address and public URL."""
        port = free_port()
        daemon = self.start(["--port", str(port)], CERT_PATH="off")
        line = self.bound(daemon)
        self.assertRegex(
            daemon.output().splitlines()[0],
            rf"docxy {__version__}: plain HTTP registry on .*:{port}, as no certificate is given or found$",
        )
        self.assertIn(f"bound to [::]:{port}; public URL http://{socket.gethostname()}:{port}; auth none;", line)
        self.assertEqual(fetch(f"http://127.0.0.1:{port}/health")[0], 200)
        self.assertEqual(fetch(f"http://[::1]:{port}/health")[0], 200)

    def test_https(self) -> None:
        """HTTPS, and a plain port that only redirects to the certificate's name."""
        port, side = free_port(), free_port()
        args = [*self.pair(issue("mirror.example")), f"--https-port={port}", f"--http-port={side}"]
        daemon = self.start([*args, "--interface=127.0.0.1"])
        line = self.bound(daemon)
        self.assertIn("HTTPS registry", daemon.output().splitlines()[0])
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
        daemon.until(lambda: "/health" in daemon.output())
        self.assertNotIn("secret", daemon.output())

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
        self.assertRegex(log.read_text(), r'(?m)^\d{4}-\S+ 127\.0\.0\.1 "GET /nothing" 404 \d+$')
        self.assertNotIn('"GET /', daemon.output())

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
        daemon = Daemon(
            self,
            [sys.executable, "-c", AS_SYSTEMD, *map(str, passed), *TWISTD, "-n", "--pidfile=", "docxy", *args],
            env=bare_environment(PYTHONPATH=str(TOP)),
            pass_fds=passed,
        )
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
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: "loaded certificate" in daemon.output())
        self.assertEqual(served(port), renewed.certificate.public_bytes(Encoding.DER))
        Path(args[1]).write_text("broken")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: "the certificate in use stays" in daemon.output())
        self.assertEqual(served(port), renewed.certificate.public_bytes(Encoding.DER))
        self.assertNotIn("Traceback", daemon.output())

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
        daemon = Daemon(
            self,
            [*TWISTD, "-n", "--pidfile=", f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}", "docxy", *args],
            env=bare_environment(PYTHONPATH=str(TOP), PYTHONDONTWRITEBYTECODE="1"),
        )
        daemon.healthy(f"https://127.0.0.1:{port}/health")
        self.assertEqual(fetch(f"http://127.0.0.1:{metrics}/metrics")[0], 200)
        basic = base64.b64encode(b"alice:secret").decode()
        self.assertEqual(fetch(f"https://127.0.0.1:{port}/auth/token", Authorization=f"Basic {basic}")[0], 200)
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        self.assertIn(f"Uid:\t{nobody.pw_uid}\t{nobody.pw_uid}\t{nobody.pw_uid}", status)
        self.assertEqual(cache.stat().st_uid, nobody.pw_uid)
        self.assertEqual(cache.stat().st_mode & 0o777, 0o700)
        self.assertNotIn("Traceback", daemon.output())

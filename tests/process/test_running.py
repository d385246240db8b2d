"""What an operator runs, run: the script, the health check, and nginx in front of docxy."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.certificates import server_files
from tests.harness.checkout import (
    TOP,
    VARIABLES,
    bare_environment,
    copy_of_checkout,
    need,
    read,
)
from tests.harness.docxy import spawn, start_docxy
from tests.harness.processes import fetch, free_port


def pair(directory: Path) -> tuple[str, str]:
    """Paths of a certificate for mirror.example and of its key, in a directory that is made."""
    directory.mkdir(parents=True)
    files = server_files(directory.resolve(), ("mirror.example",))
    return str(files.chain), str(files.key)


class HealthcheckTests(SynchronousTestCase):
    """`deploy/healthcheck.py`, which the image runs."""

    def ask(self, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(TOP / "deploy/healthcheck.py")],
            env=bare_environment(**environ),
            capture_output=True,
            text=True,
            timeout=30,
        )

    def test_nobody(self) -> None:
        """Where nobody listens it fails and says where it asked."""
        port = free_port()
        for environ, url in (
            ({"PORT": str(port)}, f"http://127.0.0.1:{port}/health"),
            ({"PORT": str(port), "CERT_PATH": "off", "INTERFACE": "::1"}, f"http://[::1]:{port}/health"),
            ({"HTTPS_PORT": str(port), "CERT_PATH": "/cert.pem"}, f"https://127.0.0.1:{port}/health"),
            ({"HTTPS_PORT": str(port), "ACME": "mirror.example"}, f"https://127.0.0.1:{port}/health"),
            ({"HTTPS_PORT": str(port), "TLS": "internal"}, f"https://127.0.0.1:{port}/health"),
        ):
            run = self.ask(**environ)
            self.assertEqual(run.returncode, 1)
            self.assertIn(url, run.stderr)

    def test_docxy(self) -> None:
        """A docxy that runs is healthy, over plain HTTP and over HTTPS with a certificate for another name."""
        cert, key = pair(Path(self.mktemp()))
        served = {"CERT_PATH": cert, "KEY_PATH": key}
        for environ in ({"PORT": str(free_port())}, {"HTTPS_PORT": str(free_port()), "HTTP_PORT": "0", **served}):
            daemon = start_docxy(self, {"INTERFACE": "127.0.0.1", **environ})
            daemon.until(partial(self.healthy, environ))
            self.assertEqual(daemon.stop(), -signal.SIGTERM, daemon.text())
            self.assertFalse(self.healthy(environ))

    def healthy(self, environ: Mapping[str, str]) -> bool:
        return self.ask(**environ).returncode == 0


class ScriptTests(SynchronousTestCase):
    """`deploy-without-auth.sh`, run as an operator would."""

    def test_help(self) -> None:
        """--help explains and starts nothing; the variables it names are docxy's."""
        run = subprocess.run(
            [str(TOP / "deploy-without-auth.sh"), "--help"], capture_output=True, text=True, check=True, timeout=10
        )
        self.assertTrue(run.stdout.startswith("Usage: deploy-without-auth.sh"))
        named = set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", run.stdout)) - {"HTTP", "SIGTERM", "README"}
        self.assertLessEqual(named, VARIABLES | {"PYTHON", "VENV"})

    def test_old_python(self) -> None:
        """A Python that is too old, or no Python at all, is refused by name before anything is made."""
        venv = Path(self.mktemp())
        run = subprocess.run(
            [str(TOP / "deploy-without-auth.sh")],
            env=bare_environment(PYTHON="/bin/false", VENV=str(venv)),
            capture_output=True,
            text=True,
            timeout=10,
        )
        self.assertEqual(run.returncode, 1)
        self.assertIn("/bin/false is not Python 3.10", run.stderr)
        self.assertFalse(venv.exists())

    def test_no_venv(self) -> None:
        """A Python without venv, as Debian's is: one line names the package, and nothing half-made stays."""
        fake, venv = Path(self.mktemp()), Path(self.mktemp())
        fake.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n', "utf-8")
        fake.chmod(0o755)
        run = subprocess.run(
            [str(TOP / "deploy-without-auth.sh")],
            env=bare_environment(PYTHON=str(fake.absolute()), VENV=str(venv)),
            capture_output=True,
            text=True,
            timeout=10,
        )
        self.assertEqual(run.returncode, 1)
        self.assertFalse(venv.exists())
        self.assertEqual(len(run.stderr.splitlines()), 1)
        self.assertIn("apt install python3-venv", run.stderr)

    def test_half_made(self) -> None:
        """An environment without pip, which an interrupted run left, is made anew."""
        fake, venv, told = Path(self.mktemp()), Path(self.mktemp()), Path(self.mktemp())
        fake.write_text(f'#!/bin/sh\necho "$@" >> {told.absolute()}\n', "utf-8")
        fake.chmod(0o755)
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").write_text("#!/bin/sh\nexit 1\n", "utf-8")
        (venv / "bin" / "python").chmod(0o755)
        subprocess.run(
            [str(TOP / "deploy-without-auth.sh")],
            env=bare_environment(PYTHON=str(fake.absolute()), VENV=str(venv.absolute())),
            capture_output=True,
            timeout=10,
        )
        self.assertIn(f"-m venv --clear {venv.absolute()}", told.read_text("utf-8").splitlines())

    def test_run(self) -> None:
        """In a fresh copy of the checkout one command brings up a mirror that asks nobody for a login."""
        tree = copy_of_checkout(Path(self.mktemp()))
        port = free_port()
        cache = tree / "cache"
        environ = bare_environment(
            PORT=str(port), CACHE_DIR=str(cache), CERT_PATH="/nowhere.pem", PYTHON=sys.executable
        )
        daemon = spawn(self, ["sh", str(tree / "deploy-without-auth.sh"), "--interface", "127.0.0.1"], environ)
        daemon.healthy(f"http://127.0.0.1:{port}/health", 180)
        self.assertEqual(fetch(f"http://127.0.0.1:{port}/v2/")[0], 200)
        self.assertEqual(daemon.stop(), -signal.SIGTERM, daemon.text())


class Challenging(BaseHTTPRequestHandler):
    """An upstream that lets nobody in without a token."""

    def do_GET(self) -> None:
        port = self.connection.getsockname()[1]
        self.send_response(401)
        self.send_header("WWW-Authenticate", f'Bearer realm="http://127.0.0.1:{port}/token",service="upstream"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not for the console."""


class NginxTests(SynchronousTestCase):
    """`deploy/nginx.conf` in front of docxy, both real; only addresses and paths are changed."""

    def test_in_front(self) -> None:
        """Through nginx docxy is healthy, and the realm of its challenge is the public URL's."""
        nginx = need("nginx")
        where = Path(self.mktemp()).resolve()
        cert, key = pair(where)
        upstream = ThreadingHTTPServer(("127.0.0.1", 0), Challenging)
        serving = threading.Thread(target=upstream.serve_forever, args=(0.05,))
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(upstream.server_close)
        self.addCleanup(upstream.shutdown)
        inside, outside = free_port(), free_port()
        text = read("deploy/nginx.conf")
        (line,) = re.findall(r"^#\s+(--interface .*)$", text, re.MULTILINE)
        environ = {"UPSTREAM": f"http://127.0.0.1:{upstream.server_port}", "AUTH": "transparent"}
        daemon = start_docxy(self, environ, [*shlex.split(line), "--port", str(inside)])
        daemon.healthy(f"http://127.0.0.1:{inside}/health")
        for old, new in (
            ("server 127.0.0.1:8080;", f"server 127.0.0.1:{inside};"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{outside} ssl;"),
            ("listen [::]:443 ssl;", ""),
            ("/etc/docxy/cert.pem", cert),
            ("/etc/docxy/key.pem", key),
        ):
            self.assertEqual(text.count(old), 1, old)
            text = text.replace(old, new)
        paths = "".join(f"{kind}_temp_path {where}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        conf = where / "nginx.conf"
        conf.write_text(
            f"daemon off; pid {where}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; client_body_temp_path {where}/body; {paths}\n{text}\n}}\n"
        )
        front = spawn(self, [nginx, "-p", str(where), "-c", str(conf)])
        front.healthy(f"https://127.0.0.1:{outside}/health")
        status, headers, _ = fetch(f"https://127.0.0.1:{outside}/v2/")
        self.assertEqual(status, 401)
        self.assertIn('realm="https://mirror.example/auth/token"', headers["WWW-Authenticate"])

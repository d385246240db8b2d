"""An upgrade of a daemon that root started, and that is somebody else since."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.certificates import issue
from tests.harness.checkout import TOP
from tests.harness.docxy import TWISTD, environment
from tests.harness.processes import fetch, free_port, until
from tests.process.test_twistd import low_port
from tests.process.workers.test_upgrade import DOCXY


def ended(pid: int) -> bool:
    """Whether a process that is not a child of the test's has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def python_of(user: pwd.struct_passwd, environ: dict[str, str]) -> str:
    """A Python that this user may run."""
    for python in (sys.executable, "/usr/bin/python3"):
        command = [python, "-c", "import twisted.internet.reactor, httptools"]
        with contextlib.suppress(OSError):
            if subprocess.run(command, user=user.pw_uid, env=environ, cwd="/", capture_output=True).returncode == 0:
                return python
    raise SkipTest(f"{user.pw_name} may run no Python that has docxy's libraries")


class UserTests(SynchronousTestCase):
    timeout = 180

    def test_root_is_not_needed(self) -> None:
        """A low port, a key for root's eyes only, root's pidfile and the log's file go over; twistd daemonizes both."""
        if os.geteuid() != 0:
            raise SkipTest("only root can drop privileges")
        nobody = pwd.getpwnam("nobody")
        # The pidfile's directory belongs to root, as /run does, and others may pass it.
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        directory.chmod(0o755)
        identity = issue("mirror.example")
        cert, key, pidfile, log = (directory / name for name in ("cert.pem", "key.pem", "docxy.pid", "docxy.log"))
        cert.write_bytes(identity.pem)
        key.touch(0o600)
        key.write_bytes(identity.key_pem())
        log.touch()
        os.chown(log, nobody.pw_uid, nobody.pw_gid)
        port, metrics, admin = low_port(), free_port(), directory / "docxy" / "admin.sock"
        url = f"https://127.0.0.1:{port}/health"
        args = ["--cert", str(cert), "--key", str(key), f"--https-port={port}", "--http-port=0", "--workers=1"]
        args += ["--interface=127.0.0.1", f"--metrics-port={metrics}", "--cache", str(directory / "docxy")]
        user = [f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}"]
        libraries = os.pathsep.join([str(TOP), *(path for path in sys.path if path.endswith("site-packages"))])
        environ = environment(PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=libraries)
        started = subprocess.run(
            [
                python_of(nobody, environ),
                *TWISTD[1:],
                f"--pidfile={pidfile}",
                f"--logfile={log}",
                *user,
                "docxy",
                *args,
            ],
            env=environ,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(started.returncode, 0, started.stderr)
        old = int(pidfile.read_text())
        self.addCleanup(lambda: None if ended(int(pidfile.read_text())) else os.kill(int(pidfile.read_text()), 15))
        until(lambda: self.asked(url) == 200)
        told = subprocess.run(
            [*DOCXY, "upgrade", "--socket", str(admin)], env=environ, capture_output=True, text=True, timeout=180
        )
        self.assertEqual(told.returncode, 0, told.stderr + log.read_text())
        new = int(pidfile.read_text())
        self.assertNotEqual(new, old)
        until(lambda: ended(old))
        self.assertEqual((self.asked(url), self.asked(f"http://127.0.0.1:{metrics}/metrics")), (200, 200))
        status = Path(f"/proc/{new}/status").read_text()
        self.assertIn(f"Uid:\t{nobody.pw_uid}\t{nobody.pw_uid}\t{nobody.pw_uid}", status)
        self.assertEqual((pidfile.stat().st_uid, admin.stat().st_mode & 0o777), (0, 0o600))
        lines = log.read_text()
        self.assertIn(f"took over from process {old}", lines)
        self.assertIn(f"process {new} serves", lines)
        self.assertNotIn("Traceback", lines)
        self.assertNotIn("tried to drop privileges", lines)
        os.kill(new, signal.SIGTERM)
        until(lambda: ended(new))

    def asked(self, url: str) -> int:
        try:
            return fetch(url)[0]
        except OSError:
            return 0

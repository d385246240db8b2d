"""The command `docxy` as a process, in front of a daemon that it started itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docxy.names import OCI_MANIFEST
from tests.harness.docxy import environment, spawn
from tests.harness.processes import fetch, free_port
from tests.harness.servers import QuietHandler, serve
from tests.harness.terminal import COLUMNS, Terminal

DOCXY = [sys.executable, "-c", "from docxy.cli.main import main; main()"]
"""`docxy`, whatever PATH says."""
SHOWN_AGAIN = "\x1b[?25h\x1b[?1049l"
"""The cursor, and what was on the screen before."""
LAYER = bytes(range(256)) * 4096
DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": len(LAYER)},
        "layers": [{"mediaType": "application/octet-stream", "digest": DIGEST, "size": len(LAYER)}],
    }
).encode()


class Registry(QuietHandler):
    """One image, `o/i:v1`, of one layer."""

    def do_GET(self) -> None:
        is_manifest = "/manifests/" in self.path
        body = MANIFEST if is_manifest else LAYER
        self.send_response(200)
        self.send_header("Content-Type", OCI_MANIFEST if is_manifest else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET


class CommandTests(SynchronousTestCase):
    """`docxy run`, and the commands that ask it."""

    def docxy(self, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DOCXY, *arguments], env=environment(**environ), capture_output=True, text=True, timeout=60
        )

    def terminal(self, environ: Mapping[str, str]) -> None:
        """On a terminal of 80 columns `top` fits and leaves it as it was; questions wait for an answer."""
        top = Terminal(self, [*DOCXY, "top"], environment(**environ))
        top.until("fake.test/o/i:v1")
        top.type("q")
        self.assertEqual(top.ended(), 0)
        self.assertLessEqual(max(map(len, top.lines)), COLUMNS)
        self.assertTrue(top.text.rstrip().endswith(SHOWN_AGAIN), top.text[-40:])
        self.assertEqual(top.after, top.before)
        for answer, status, words in (("n", 1, "Aborted!"), ("y", 0, "freed ")):
            asking = Terminal(self, [*DOCXY, "rm", "o/i:v1"], environment(**environ))
            asking.until("[y/N]: ")
            asking.type(f"{answer}\n")
            self.assertEqual((asking.ended(), words in asking.text), (status, True), asking.text)
            self.assertLessEqual(max(map(len, asking.lines)), COLUMNS)
        failing = Terminal(self, [*DOCXY, "why", f"o/{'long/' * 10}name"], environment(**environ))
        self.assertEqual(failing.ended(), 1)
        self.assertEqual(len([line for line in failing.lines if line]), 2)
        self.assertLessEqual(max(map(len, failing.lines)), COLUMNS)
        password = Terminal(self, [*DOCXY, "password", "alice", "--cost", "4"], environment())
        for prompt in ("Password for alice: ", "confirmation: "):
            password.until(prompt)
            password.type("hunter2\n")
        self.assertEqual(password.ended(), 0)
        self.assertIn("alice:$2b$04$", password.text)
        self.assertNotIn("hunter2", password.text)
        self.assertEqual(password.after, password.before)

    def test_pull(self) -> None:
        """A pull through a daemon that `docxy run` started is explained; when the daemon ends, the status is 3."""
        upstream = serve(self, Registry)
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        # Trial's directories can be too deep for the path of a Unix socket.
        socket = f"/tmp/docxy-cli-{free_port()}.sock"
        self.addCleanup(Path(socket).unlink, missing_ok=True)
        file, port = directory / "docxy.toml", free_port()
        file.write_text(
            f'cert = "off"\nport = {port}\ninterface = "127.0.0.1"\ncache = "{directory}/cache"\n'
            f'cache_size = "1GB"\nadmin_socket = "{socket}"\nworkers = 2\n'
            f'[[upstreams]]\nname = "fake.test"\nurl = "{upstream}"\nprivate = true\n'
        )
        environ = {"DOCXY_CONFIG": str(file)}
        check = self.docxy({}, "config", "check", str(file))
        self.assertEqual(check.returncode, 0, check.stderr)
        self.assertEqual(self.docxy(environ, "status").returncode, 3)

        daemon = spawn(
            self, [*DOCXY, "run", "--config", str(file), "--tag-ttl", "5"], environment(PYTHONUNBUFFERED="1")
        )
        daemon.until(lambda: self.docxy(environ, "status").returncode == 0)
        for path in ("/v2/o/i/manifests/v1", f"/v2/o/i/blobs/{DIGEST}"):
            status, _, _ = fetch(f"http://127.0.0.1:{port}{path}", Accept=OCI_MANIFEST)
            self.assertEqual(status, 200)
        daemon.until(lambda: "layer" in self.docxy(environ, "why", "o/i:v1").stdout)

        why = self.docxy(environ, "why", "fake.test/o/i:v1")
        self.assertEqual((why.returncode, why.stderr), (0, ""))
        self.assertIn(DIGEST[7:19], why.stdout)
        self.assertNotIn("\x1b", why.stdout)
        pulls = json.loads(self.docxy(environ, "pulls", "--json").stdout)["pulls"]
        self.assertEqual([pull["image"] for pull in pulls], ["fake.test/o/i:v1"])
        self.assertEqual(self.docxy(environ, "why", "o/other").returncode, 1)
        self.assertEqual(self.docxy(environ, "why", "Not An Image").returncode, 2)
        self.assertIn("fake.test", self.docxy(environ, "config", "podman").stdout)
        self.terminal(environ)
        daemon.stop()
        ended = self.docxy(environ, "status")
        self.assertEqual((ended.returncode, len(ended.stderr.splitlines())), (3, 1), ended.stderr)

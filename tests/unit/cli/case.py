"""Commands run in this process, in front of a Unix socket that answers as docxy's admin socket does."""

from __future__ import annotations

import json
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from docxy.cli.main import docxy_command
from tests.unit.cli.canned import snapshot


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    case: AdminCase


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        case = self.server.case
        case.asked.append(self.path)
        if split.path == "/events":
            body = b": alive\n\n" + b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in case.events)
        elif split.path == "/pulls.json":
            wanted = parse_qs(split.query).get("repository", [None])[0]
            pulls = [each for each in case.pulls if wanted in (None, f"{each['upstream']}/{each['repository']}")]
            body = json.dumps({"version": 1, "pulls": pulls}).encode()
        elif split.path == "/quota.json":
            told = case.snapshot
            body = json.dumps({"version": 1, "now": told["docxy"]["now"], "upstreams": told["upstreams"]}).encode()
        else:
            body = json.dumps(case.snapshot).encode()
        self.send_response(case.status)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        case = self.server.case
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.path.rpartition("/")[2]
        case.acts.append((name, given))
        told = case.answers[name]
        body = b"\n" + b"".join(json.dumps(line).encode() + b"\n" for line in (told(given) if callable(told) else told))
        self.send_response(case.status)
        self.end_headers()
        self.wfile.write(body)


def run_docxy(*arguments: str, input: str | None = None, **environ: str) -> Result:
    """One command, on a screen of 80 columns that is no terminal."""
    environment = {"DOCXY_CONFIG": "", "CACHE_DIR": "", "COLUMNS": "80", **environ}
    return CliRunner().invoke(docxy_command, arguments, input=input, env=environment, prog_name="docxy")


class AdminCase(SynchronousTestCase):
    """`self.snapshot`, `self.pulls` and `self.events` are what the socket tells."""

    def setUp(self) -> None:
        self.snapshot: Mapping[str, Any] = snapshot()
        self.pulls: list[Mapping[str, Any]] = list(self.snapshot["pulls"])
        self.events: list[Mapping[str, Any]] = []
        self.status = 200
        self.asked: list[str] = []
        self.acts: list[tuple[str, Any]] = []
        """Those that were asked for, with their arguments."""
        self.answers: dict[str, Any] = {}
        """What each says: lines, or a function of the arguments."""
        # A Unix socket's path has a bound of about 100 bytes, which trial's directories can exceed.
        self.directory = Path(tempfile.mkdtemp(prefix="docxy-cli-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.socket = str(self.directory / "admin.sock")
        server = _Server(self.socket, _Handler)
        server.case = self
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def run_docxy(self, *arguments: str, input: str | None = None, **environ: str) -> Result:
        """One command that asks `self.socket`."""
        return run_docxy(*arguments, input=input, **{"ADMIN_SOCKET": self.socket, **environ})

    def said(self, status: int, *arguments: str, input: str | None = None, **environ: str) -> str:
        """Standard output of a command that must end with this status, in lines of at most 80 columns."""
        result = self.run_docxy(*arguments, input=input, **environ)
        self.assertEqual(result.exit_code, status, result.output)
        for line in result.stdout.splitlines():
            if "--json" not in arguments:
                self.assertLessEqual(len(line), 80, line)
        self.assertNotIn("\x1b", result.stdout)
        return result.stdout

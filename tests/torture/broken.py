"""A mirror that is wrong on purpose, one way at a time: what the programme must catch.

    python -m tests.torture.broken PORT UPSTREAM CACHE WRONG

`WRONG` is `nothing` or the name of a mark.  Without a fault of its own it passes requests on and keeps
nothing, as the plainest proxy does: what the upstream does wrong its clients see, unless it tries again.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from attrs import evolve

from tests.torture.daemons import Daemon, Settings


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    upstream: int
    wrong: str
    spoilt = False
    """Whether the upstream failed once."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {}, b"{}")
            return
        if self.wrong == "hangs":
            time.sleep(60)
        status, headers, body = self._fetch()
        if self.wrong == "healable" and status >= 500:
            status, headers, body = 502, {}, b"{}"
        elif status >= 500:
            Handler.spoilt = True
            status, headers, body = self._fetch()
        if self.wrong == "wrong" and len(body) > 700 and status == 200:
            body = body[:-1]
            headers["Content-Length"] = str(len(body))
        if self.wrong == "500s":
            status, headers, body = 500, {}, b"{}"
        if self.wrong == "unexplained" or (self.wrong == "unhealed" and Handler.spoilt):
            status, headers, body = 502, {}, b"{}"
        if self.wrong == "tracebacks":
            sys.stderr.write('Traceback (most recent call last):\n  File "x", line 1, in x\nOSError: no\n')
            sys.stderr.flush()
        self._send(status, headers, body)

    do_HEAD = do_GET

    def _fetch(self) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.upstream, timeout=10)
        with suppress(OSError, HTTPException):
            passed = {name: self.headers[name] for name in ("Range", "Accept") if name in self.headers}
            connection.request(self.command, self.path, headers=passed)
            answer = connection.getresponse()
            told = ("Content-Type", "Content-Range", "Docker-Content-Digest", "Content-Length")
            headers = {name: value for name, value in answer.headers.items() if name in told}
            body = answer.read()
            connection.close()
            return answer.status, headers, body
        connection.close()
        return 502, {}, b"{}"

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not for the log."""


class Broken(Daemon):
    """It, as a target."""

    name = "broken"

    def __init__(self, directory: Path, settings: Settings) -> None:
        """`settings.size` is what is wrong."""
        self.wrong = settings.size
        super().__init__(directory, evolve(settings, shutdown_grace=1))

    def command(self) -> list[str]:
        told = self.settings
        words = [str(self.port), str(told.upstream[0]), str(told.cache), self.wrong]
        return [sys.executable, "-m", "tests.torture.broken", *words]


def main(port: str, upstream: str, cache: str, wrong: str) -> None:
    """Serve for ever."""
    incoming = Path(cache, "incoming")
    incoming.mkdir(parents=True, exist_ok=True)
    if wrong == "leftovers":
        (incoming / "sha256-00").write_bytes(b"a part")
    if wrong == "over_budget":
        Path(cache, "large").write_bytes(bytes(48 << 20))
    Handler.upstream, Handler.wrong = int(upstream), wrong
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

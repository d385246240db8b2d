"""HTTP servers in threads of the test's, for daemons to talk to."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext, SSLError

from twisted.trial.unittest import SynchronousTestCase


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections open, takes their ends as they come, and writes nothing to the console."""

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError, SSLError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Not for the console."""


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as tests make."""

    daemon_threads = True
    request_queue_size = 128


def serve(test: SynchronousTestCase, handler: type[BaseHTTPRequestHandler], tls: SSLContext | None = None) -> str:
    """The URL of a server on loopback, which ends with the test.  `tls`: None for plain HTTP."""
    server = Server(("127.0.0.1", 0), handler)
    if tls is not None:
        # Each connection shakes hands in its own thread.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    for end in (serving.join, server.server_close, server.shutdown):
        test.addCleanup(end)
    return f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"

"""A registry somewhere on the internet, as docxy behind an HTTP proxy sees it: any name over TLS, by CONNECT.

The law: nothing of it is on the internet.  The proxy leads every name to itself, with a certificate for the
one name that it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from threading import Thread

from tests.harness.certificates import issue
from tests.harness.servers import QuietHandler, Server
from tests.live.images import Image


class Away:
    """Serves images under one name."""

    def __init__(self, directory: Path, name: str, images: dict[str, Image]) -> None:
        """`directory`: its own, which exists; `images`: by repository."""
        self.name = name
        self.asked: list[str] = []
        """Request lines without the version, in order; a ranged GET has its range behind it."""
        self._images = images
        self.proxy = ""
        """URL, while it runs."""
        authority = issue(common_name="the CA of a registry away")
        self.authority = directory / "away-ca.pem"
        self.authority.write_bytes(authority.pem)
        leaf = issue(name, by=authority)
        pair = directory / "away.pem"
        pair.write_bytes(leaf.pem + leaf.key_pem())
        self._context = SSLContext(PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair)

    @contextmanager
    def running(self) -> Iterator[None]:
        """It answers while this is open."""
        away = self

        class Handler(QuietHandler):
            def do_CONNECT(self) -> None:
                away.asked.append(f"CONNECT {self.path}")
                self.send_response(200)
                self.end_headers()
                self.connection = away._context.wrap_socket(self.connection, server_side=True)
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb", 0)
                self.close_connection = False

            def do_GET(self) -> None:
                away.asked.append(" ".join(filter(None, (self.command, self.path, self.headers["Range"]))))
                away._answer(self)

            do_HEAD = do_GET

        server = Server(("127.0.0.1", 0), Handler)
        self.proxy = f"http://127.0.0.1:{server.server_port}"
        serving = Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            serving.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        status, kind, body = 404, "application/json", b'{"errors": [{"code": "NOT_FOUND"}]}'
        parts = request.path.removeprefix("/v2/").rsplit("/", 2)
        image = self._images.get(parts[0]) if len(parts) == 3 else None
        if request.path == "/v2/":
            status, body = 200, b"{}"
        elif image is not None and parts[1] == "manifests":
            for manifest in (image.top, *image.children.values()):
                if parts[2] == manifest.digest or (parts[2] == "latest" and manifest is image.top):
                    status, kind, body = 200, manifest.media_type, manifest.body
        elif image is not None and parts[2] in image.blobs:
            status, kind, body = 200, "application/octet-stream", image.blobs[parts[2]].read_bytes()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

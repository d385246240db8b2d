"""Clients that stop reading cost docxy next to nothing, however many they are and however big the blob is."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing
from http.client import HTTPResponse

from tests.live.case import LiveTestCase
from tests.live.daemon import Docxy

CLIENTS = 50
LIMIT = 150_000_000
"""Bytes that one process may have resident."""
TASTE = 64 * 1024
"""Bytes a client reads before it stops."""


class StalledTests(LiveTestCase):
    """Fifty clients stop reading in the middle of the large layer."""

    def check(self, *, tls: bool, cache: bool) -> None:
        """docxy gives one of them the rest, all right, when it reads on, and stays small while the others stall.

        While that one gets all of the layer, a docxy without bounds takes as much for each of the others.
        """
        docxy = self.shared.new_docxy("none", tls, cache=cache, options=("--workers=1",))
        self.addCleanup(docxy.stop)
        docxy.start()
        digest, size = self.bed.images["library/large"].layers[1]
        with ExitStack() as clients:
            bodies = [self.stalled(docxy, digest, size, clients) for _ in range(CLIENTS)]
            tasted, rest = bodies[0]
            whole = hashlib.sha256(tasted)
            while piece := rest.read(1 << 20):
                whole.update(piece)
            self.assertEqual(f"sha256:{whole.hexdigest()}", digest)
            peak = docxy.daemon.peak()
            self.assertLess(peak, LIMIT, f"{CLIENTS} stalled clients: {peak / 1e6:.0f} MB resident")

    def stalled(self, docxy: Docxy, digest: str, size: int, clients: ExitStack) -> tuple[bytes, HTTPResponse]:
        """A client that asked for the layer and has read a little: that, and what it has not read."""
        connection = clients.enter_context(closing(docxy.connect()))
        connection.request("GET", f"/v2/library/large/blobs/{digest}")
        response = connection.getresponse()
        self.assertEqual((response.status, response.getheader("Content-Length")), (200, str(size)))
        return response.read(TASTE), response

    def test_pure_proxy(self) -> None:
        """Without a cache, each client has a transfer of its own from the upstream, which must be paused."""
        self.check(tls=False, cache=False)

    def test_pure_proxy_https(self) -> None:
        """The same through TLS, which has buffers of its own."""
        self.check(tls=True, cache=False)

    def test_cache(self) -> None:
        """With a cache, they follow one fill."""
        self.check(tls=False, cache=True)

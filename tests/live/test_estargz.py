"""An eStargz layer through docxy, read file by file before anybody has all of it, as a lazy snapshotter does."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPSConnection
from ssl import create_default_context

from tests.live.case import LiveTestCase
from tests.live.daemon import Docxy
from tests.live.estargz import ANNOTATION, read_file
from tests.live.images import ESTARGZ


class LazyTests(LiveTestCase):
    """In front of the bed."""

    def read(self, docxy: Docxy, name: str, token: str | None) -> bytes:
        """A file of the image's layer; fails when docxy sends anything but what was asked for."""
        image = self.bed.images[ESTARGZ]
        layer = json.loads(image.local.body)["layers"][0]
        size: int = layer["size"]

        def fetch(first: int, last: int) -> bytes:
            headers = {"Range": f"bytes={first}-{last}", **({"Authorization": f"Bearer {token}"} if token else {})}
            status, told, body = self.ask(docxy, f"/v2/{ESTARGZ}/blobs/{layer['digest']}", headers)
            self.assertEqual((status, told.get("content-range")), (206, f"bytes {first}-{last}/{size}"), body[:200])
            return body

        return read_file(fetch, size, layer["annotations"][ANNOTATION], name)

    def ask(self, docxy: Docxy, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        connection: HTTPConnection
        if docxy.certificate is None:
            connection = HTTPConnection("127.0.0.1", docxy.port, timeout=60)
        else:
            context = create_default_context(cafile=str(docxy.certificate.root))
            connection = HTTPSConnection("127.0.0.1", docxy.port, timeout=60, context=context)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def check(self, auth: str, tls: bool) -> None:
        """Cold, warm and with the registry off."""
        docxy = self.shared.new_docxy(auth, tls)
        self.addCleanup(docxy.stop)
        docxy.start()
        token = None
        if auth == "transparent":
            _, _, grant = self.ask(docxy, f"/auth/token?scope=repository:{ESTARGZ}:pull", {})
            token = json.loads(grant)["token"]
        self.assertEqual(self.read(docxy, "etc/image", token), ESTARGZ.encode())
        busybox = self.read(docxy, "bin/busybox", token)
        self.assertEqual(busybox[:4], b"\x7fELF")
        # The whole of it is in the cache before the registry goes.
        layer, size = self.bed.images[ESTARGZ].layers[0]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.assertEqual(len(self.ask(docxy, f"/v2/{ESTARGZ}/blobs/{layer}", headers)[2]), size)
        with self.bed.off():
            self.assertEqual(self.read(docxy, "bin/busybox", token), busybox)
        self.assertNotIn("Traceback", docxy.daemon.text())

    def test_touched(self) -> None:
        """Where only what clients read is to be fetched, a file comes by its ranges and the layer is not fetched."""
        docxy = self.shared.new_docxy("none", False, options=("--workers=1",), tables='fill = "touched"')
        self.addCleanup(docxy.stop)
        docxy.start()
        image = self.bed.images[ESTARGZ]
        layer, size = image.layers[0]
        assert docxy.cache_directory is not None
        kept = f"blobs/sha256/*/{layer.partition(':')[2]}"
        self.ask(docxy, f"/v2/{ESTARGZ}/manifests/{image.local.digest}", {"Accept": "*/*"})
        busybox = self.read(docxy, "bin/busybox", None)
        self.assertEqual(busybox[:4], b"\x7fELF")
        self.assertEqual([*docxy.cache_directory.glob(kept)], [])
        self.assertEqual([*docxy.cache_directory.glob("incoming/**/*")], [])
        with self.bed.off():
            self.assertEqual(self.read(docxy, "bin/busybox", None), busybox)
        # Whoever wants all of it has it kept.
        self.assertEqual(len(self.ask(docxy, f"/v2/{ESTARGZ}/blobs/{layer}", {})[2]), size)
        with self.bed.off():
            self.assertEqual(len(self.ask(docxy, f"/v2/{ESTARGZ}/blobs/{layer}", {})[2]), size)
            self.assertEqual(self.read(docxy, "etc/image", None), ESTARGZ.encode())
        self.assertNotIn("Traceback", docxy.daemon.text())

    def test_none(self) -> None:
        """Footer, table of contents and files by ranges, with docxy's own tokens, over plain HTTP."""
        self.check("none", False)

    def test_transparent(self) -> None:
        """The same over HTTPS, with a token of the client's own."""
        self.check("transparent", True)
